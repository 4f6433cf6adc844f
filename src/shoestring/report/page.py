"""The page: one HTML file that holds all it needs and asks no host for anything."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from shoestring import __version__
from shoestring.core.documents import check_replaced, write_text
from shoestring.core.errors import InputError
from shoestring.core.markup import REPORT_PAGE, Html, joined, tag, text
from shoestring.report.curves import curves_figure, series
from shoestring.report.reading import Seen, read_runs
from shoestring.report.sections import run_sections, section, tiles
from shoestring.report.summary import summary_table


def write_report(
    folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] | None = None
) -> Path:
    """Write the page about one run, or about several side by side.

    Args:
        folders: of the runs, at least one.
        out: the file; by default ``report.html`` in the run's folder, or in the working
            folder where there are several runs. An older report is replaced, another file
            is not.

    Returns:
        The file that was written.

    Raises:
        InputError: a folder is no run's, a package is missing, or the file cannot be written.

    Example:
        ``write_report(["runs/tweets"])``
    """
    if not folders:
        raise InputError("a report needs the folder of a run.", hint="name what train made.")
    home = Path(folders[0]) if len(folders) == 1 else Path()
    path = Path(out) if out is not None else home / "report.html"
    runs = read_runs(folders)
    check_replaced(path, REPORT_PAGE, "no report", hint="name another file with --out.")
    write_text(path, page(runs))
    return path


def page(runs: Sequence[Seen]) -> str:
    """Return the page about runs as HTML text.

    Args:
        runs: at least one.

    Raises:
        InputError: a package that draws charts is missing.
    """
    _bundle()  # the first to say which package is missing
    title = _title(runs)
    parts = _one(runs[0]) if len(runs) == 1 else _several(runs)
    return document(title, _header(runs, title), parts)


def document(title: str, header: Html, parts: Sequence[tuple[str, str, Html]]) -> str:
    """Return a whole page as HTML text, with all it needs in it.

    Args:
        title: of the page.
        header: what stands above its contents.
        parts: id, name and content of each section.

    Raises:
        InputError: a package that draws charts is missing.
    """
    bundle, own = _bundle(), Html(_asset("page.js"))
    head = joined(
        [
            Html('<meta charset="utf-8">\n'),
            Html(f"{REPORT_PAGE}\n"),
            Html(_policy(bundle, own)),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
            Html('<meta name="color-scheme" content="light dark">\n'),
            tag("title", title),
            tag("style", Html(_asset("page.css"))),
        ]
    )
    body = joined(
        [
            tag("a", "Skip to the content", cls="skip", attributes={"href": "#content"}),
            header,
            _contents([(ident, name) for ident, name, _ in parts]),
            tag("main", *(part for _, _, part in parts), ident="content", attributes=_FOCUS),
            _footer(),
            tag("script", bundle),
            tag("script", own),
        ]
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'


_FOCUS: Final = {"tabindex": "-1"}


def _title(runs: Sequence[Seen]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} training runs side by side"
    return f"Training run of {runs[0].run.model}"


def _header(runs: Sequence[Seen], title: str) -> Html:
    about = [tag("h1", title)]
    if len(runs) == 1:
        run = runs[0].run
        about.append(
            tag("p", f"{run.task}, machine {run.machine}, started {run.started}", cls="about")
        )
    else:
        about.append(tag("p", ", ".join(seen.name for seen in runs), cls="about"))
    return tag("header", *about)


def _contents(parts: Sequence[tuple[str, str]]) -> Html:
    links = [tag("li", tag("a", name, attributes={"href": f"#{ident}"})) for ident, name in parts]
    return tag("nav", tag("ul", *links), attributes={"aria-label": "Contents"})


def _one(seen: Seen) -> list[tuple[str, str, Html]]:
    summary = joined([tiles(seen), summary_table([seen])])
    first = ("summary", "Summary", section("summary", "Summary", summary, level=2))
    return [first, *run_sections(seen, prefix="run", level=2)]


def _several(runs: Sequence[Seen]) -> list[tuple[str, str, Html]]:
    lines = [
        series(seen.log, "loss", kind, seen.name) for seen in runs for kind in ("train", "eval")
    ]
    lines = [line for line in lines if line.points or line.lost]
    losses = (
        curves_figure("loss", lines, prefix="runs", heading="Loss of all runs")
        if lines
        else tag("p", "None of the runs has logged a loss yet.", cls="missing")
    )
    compared = joined([summary_table(runs), losses])
    parts = [("compared", "Side by side", section("compared", "Side by side", compared, level=2))]
    for number, seen in enumerate(runs):
        ident = f"run{number}"
        own = [part for _, _, part in run_sections(seen, prefix=ident, level=3)]
        content = joined([tiles(seen), *own])
        parts.append((ident, seen.name, section(ident, seen.name, content, level=2, cls="run")))
    return parts


def _footer() -> Html:
    return tag(
        "footer",
        tag(
            "p",
            f"Made by shoestring {__version__}. Predicted times rank plans; they promise "
            "no deadline.",
        ),
        Html("<noscript><p>The charts need JavaScript; each has a table below it.</p></noscript>"),
    )


def _asset(name: str) -> str:
    return (resources.files("shoestring.report") / name).read_text(encoding="utf-8")


def _bundle() -> Html:
    """Return the JavaScript that draws the charts."""
    try:
        import altair as alt
        import vl_convert  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        raise InputError(
            "the report needs the packages altair and vl-convert-python.",
            hint="pip install 'shoestring[report]'.",
        ) from error
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return _bundled(version)


@functools.cache
def _bundled(version: str) -> Html:
    """Return Vega-Lite of a version, with all it needs; made anew it takes more than a second."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    # A script element ends at this text wherever it stands; in JavaScript it can only stand in
    # a string or a pattern, where the escaped slash means the same.
    return Html(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _policy(*scripts: Html) -> str:
    """Return a policy under which only these scripts run, and nothing is asked of any host."""
    sums = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{value}'" for value in sums)
    rules = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{text(rules)}">\n'
