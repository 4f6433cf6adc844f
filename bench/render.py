"""Writes measured figures into README and docs, between markers.

    python -m bench.render
    python -m bench.render --check

A page asks for a table with two lines of their own, and everything between them is replaced:

    <!-- bench:NAME -->
    <!-- /bench -->

With ``--check`` nothing is written, and the exit code is 1 where a page shows anything else
than the results say, 2 where its markers are wrong.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.harness import RESULTS, ROOT
from bench.tables import RENDERERS
from shoestring.core.documents import write_text

MARKER: Final = re.compile(r"^<!-- (?:bench:(?P<name>[^ ]*)|(?P<end>/bench)) -->$", re.MULTILINE)


class MarkerError(ValueError):
    """A page's markers are wrong; the text says where."""


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may ask for tables: README.md and docs.

    Args:
        root: of the repository.
    """
    found = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [page for page in found if page.is_file()]


def asked(text: str) -> list[str]:
    """Return the names of the tables that a page asks for.

    Args:
        text: of the page.

    Raises:
        MarkerError: a marker is unknown, not closed, or inside another.
    """
    return [name for name, _, _ in _places(text)]


def render(text: str, results: Path = RESULTS) -> str:
    """Return a page with every table as the results have it.

    Args:
        text: of the page.
        results: folder of all results.

    Raises:
        MarkerError: a marker is unknown, not closed, or inside another.
        InputError: a result cannot be read.
    """
    parts, last = [], 0
    for name, begin, end in _places(text):
        parts += [text[last:begin], "\n", RENDERERS[name](results), "\n"]
        last = end
    return "".join([*parts, text[last:]])


def _places(text: str) -> list[tuple[str, int, int]]:
    """Return name, end of the opening line and start of the closing line of every table."""
    places: list[tuple[str, int, int]] = []
    name, begin = "", -1
    for match in MARKER.finditer(text):
        line = 1 + text.count("\n", 0, match.start())
        if match["end"]:
            if begin < 0:
                raise MarkerError(f"line {line}: <!-- /bench --> closes nothing")
            places.append((name, begin, match.start()))
            begin = -1
            continue
        if begin >= 0:
            raise MarkerError(f"line {line}: <!-- bench:{name} --> above is not closed")
        name, begin = match["name"], match.end()
        if name not in RENDERERS:
            known = ", ".join(RENDERERS)
            raise MarkerError(f"line {line}: there is no table {name!r}; there are {known}")
    if begin >= 0:
        raise MarkerError(f"<!-- bench:{name} --> is not closed")
    return places


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Render all pages.

    Args:
        arguments: of the command line.
        root: of the repository.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args(arguments)
    differ = False
    for page in pages(root):
        name = page.relative_to(root).as_posix()
        before = page.read_text(encoding="utf-8")
        try:
            after = render(before, root / "bench" / "results")
        except MarkerError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        if after == before:
            continue
        differ = True
        if options.check:
            print(f"{name} differs from the results: run python -m bench.render", file=sys.stderr)
        else:
            write_text(page, after)
            print(f"{name}: rendered")
    return int(differ and options.check)


if __name__ == "__main__":
    sys.exit(main())
