"""The page's text: complete, escaped, and well built for keyboards and screen readers."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import itertools
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from shoestring.core.run_folder import Entry, Memory, RunFolder, Timeline
from shoestring.core.units import format_bytes, format_seconds
from shoestring.report import write_report
from tests.report import runs

VOID = ("meta", "link", "br", "img", "input", "hr", "rect")


class Page(HTMLParser):
    """The elements of a page, each with its attributes and text; nesting is checked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}, []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.elements[index][2].append(data)

    def all(self, *tags: str) -> list[tuple[dict[str, str], str]]:
        return [(a, "".join(text)) for tag, a, text in self.elements if tag in tags]

    def texts(self, tag: str) -> list[str]:
        return [text for _, text in self.all(tag)]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.texts("main")).split())

    @property
    def specs(self) -> dict[str, dict[str, object]]:
        return {
            attributes["id"].removesuffix("-spec"): json.loads(text)
            for attributes, text in self.all("script")
            if attributes.get("type") == "application/json"
        }

    def summary(self) -> dict[str, list[str]]:
        table = re.search(r'<table class="summary">.*?</table>', self.source, re.DOTALL)
        assert table
        found = {}
        for row in re.findall(r"<tr>(.*?)</tr>", table[0], re.DOTALL):
            cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
            plain = [html.unescape(re.sub(r"<[^>]+>", " ", cell)) for cell in cells]
            found[plain[0]] = [" ".join(cell.split()) for cell in plain[1:]]
        return found


def page(*folders: Path) -> Page:
    out = folders[0].parent / "page.html"
    assert write_report(folders, out) == out
    return Page(out.read_text(encoding="utf-8"))


def test_the_summary_says_what_the_run_says(
    run_folder: Callable[..., Path], source: runs.Made
) -> None:
    found = page(run_folder())
    plan, run = source.plan, RunFolder(run_folder()).read()
    summary = {name: cells[0] for name, cells in found.summary().items()}
    assert summary["Status"] == "finished"
    assert summary["Steps taken"] == "40 of 40 steps"
    assert summary["Model"] == run.model
    assert summary["Task"] == "classification"
    assert summary["Data"] == "train 2,560 rows of rows.csv evaluation 64 rows of rows.csv"
    assert summary["Batch"] == "512x16 float32"
    assert summary["Optimizer"] == "AdamW"
    assert plan.budget is not None
    assert summary["Budget of memory"] == f"{format_bytes(plan.budget)}, kept"
    assert summary["Peak of the plain step, predicted"] == format_bytes(plan.plain.peak)
    assert summary["Peak as planned, predicted"] == format_bytes(plan.predicted.peak)
    measured = format_bytes(run.measured["peak"])
    assert summary["Peak, measured"] == f"{measured} (prediction -0.4%)"
    assert summary["Resident size, measured"] == "300 MiB"
    assert summary["Step time as planned, predicted"] == format_seconds(plan.predicted.seconds)
    assert summary["Step time, measured"] == format_seconds(run.measured["seconds"])
    assert summary["Seed"] == "0"
    assert summary["Versions"] == " ".join(f"{k} {v}" for k, v in run.versions.items())
    assert summary["Command"] == run.command
    assert "The same with the card's context and reserve" not in summary


def test_the_plan_says_what_the_plan_says(
    run_folder: Callable[..., Path], source: runs.Made
) -> None:
    words = page(run_folder()).words
    for step in source.plan.steps:
        assert f"{step.describe()} ({step.name}" in words
    for row in source.plan.rows:
        assert row.label in words
    assert source.plan.refused
    for name, reason in source.plan.refused:
        assert f"{name}{reason}" in words.replace(f"{name} ", name)


def test_a_budget_that_was_exceeded_is_told(
    run_folder: Callable[..., Path], source: runs.Made
) -> None:
    assert source.plan.budget is not None
    found = page(run_folder(measured={"peak": 2.0 * source.plan.budget}))
    assert found.summary()["Budget of memory"][0].endswith("exceeded")


def test_several_runs_are_columns(run_folder: Callable[..., Path], log: list[Entry]) -> None:
    first = run_folder("first")
    second = run_folder("second", log[:20], status="failed", step=18, measured={}, note="NaN.")
    found = page(first, second)
    summary = found.summary()
    assert summary["Run"] == ["first", "second"]
    assert summary["Status"] == ["finished", "failed NaN."]
    assert summary["Peak, measured"][1] == "not measured yet"
    loss = found.specs["runs-curve"]["datasets"]
    assert isinstance(loss, dict)
    for name, entries in (("first", log), ("second", log[:20])):
        for kind in ("train", "eval"):
            drawn = [point["value"] for point in loss[kind] if point["name"] == name]
            assert drawn == [e.values["loss"] for e in entries if e.kind == kind]
    assert found.texts("h2") == ["Side by side", "first", "second"]


def test_runs_of_one_name_are_told_apart(run_folder: Callable[..., Path]) -> None:
    first, second = run_folder("a/run"), run_folder("b/run")
    assert page(first, second).summary()["Run"] == [str(first), str(second)]


def test_a_run_that_has_just_begun(run_folder: Callable[..., Path]) -> None:
    folder = run_folder("run", [], status="running", step=0, measured={})
    (folder / "timeline.json").unlink()
    found = page(folder)
    assert "running or killed" in found.words
    assert "No curves: nothing has been logged yet." in found.words
    assert "No memory over time: the run has written no timeline." in found.words
    assert "No costs by module: the run has written no timeline." in found.words
    assert list(found.specs) == ["run-pareto"]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({}, "the run has no plan"),
        ({"schema": "shoestring/plan/2"}, "another version"),
        ({"schema": "shoestring/plan/1"}, "lacks the key"),
    ],
)
def test_a_plan_that_cannot_be_read_is_told(
    run_folder: Callable[..., Path], plan: dict[str, object], reason: str
) -> None:
    found = page(run_folder(plan=plan))
    assert re.search(rf"No plan to show: [^.]*{reason}", found.words)
    assert found.summary()["Peak as planned, predicted"] == ["not known"]
    assert "run-memory-planned" in found.specs


def test_a_damaged_timeline_is_told(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    (folder / "timeline.json").write_text('{"schema": "shoestring/timeline/1", "plain": ')
    found = page(folder)
    assert "cut short" in found.words
    assert "run-0-curve" in found.specs


@pytest.mark.parametrize(
    "memory", [Memory([], {}, 0), Memory(["forward"], {}, 0), Memory(["odd"], {"odd": [0]}, 0)]
)
def test_an_empty_timeline_is_no_error(run_folder: Callable[..., Path], memory: Memory) -> None:
    folder = run_folder()
    RunFolder(folder).write_timeline(Timeline(memory, memory, []))
    assert "The timeline has no costs by module." in page(folder).words


def test_losses_that_are_not_finite_are_told(
    run_folder: Callable[..., Path], log: list[Entry]
) -> None:
    bad = [
        dataclasses.replace(log[-1], step=n, kind="train", values={"loss": math.nan})
        for n in (41, 42)
    ]
    found = page(run_folder("run", [*log, *bad]))
    assert "train was not finite at step 41 and 1 later" in found.words
    assert found.summary()["Last training loss"] == ["loss nan (step 42)"]
    only = page(run_folder("other", bad))
    assert "was not finite at step 41" in only.words
    assert "run-0-curve" not in only.specs


def test_a_long_log_is_thinned_and_says_so(run_folder: Callable[..., Path]) -> None:
    long = [Entry(n, "train", {"loss": 1 / n}) for n in range(1, 5001)]
    found = page(run_folder("run", long))
    data = found.specs["run-0-curve"]["datasets"]
    assert isinstance(data, dict)
    assert 100 < len(data["train"]) <= 1502
    assert data["train"][0]["step"] == 1
    assert data["train"][-1]["step"] == 5000
    assert "one of 25 logged steps" in found.words


HOSTILE = '<script>document.title="bad"</script></script a><!--"&\'\u2028'


def test_texts_from_files_are_only_text(run_folder: Callable[..., Path], log: list[Entry]) -> None:
    named = [Entry(e.step, e.kind, {**e.values, HOSTILE: 1.0}) for e in log]
    folder = run_folder(
        HOSTILE.replace("/", "|"),
        named,
        model=HOSTILE,
        task=HOSTILE,
        command=HOSTILE,
        machine=HOSTILE,
        started=HOSTILE,
        note=HOSTILE,
        versions={HOSTILE: HOSTILE},
        data={HOSTILE: HOSTILE},
    )
    timeline = RunFolder(folder).timeline()
    kinds = {**timeline.plain.kinds, HOSTILE: [1] * len(timeline.plain.phases)}
    odd = dataclasses.replace(timeline.plain, kinds=kinds)
    modules = [{**row, "path": f"{HOSTILE}.{row['path']}".strip(".")} for row in timeline.modules]
    whole = [row for row in timeline.modules if row["path"] == ""]
    RunFolder(folder).write_timeline(Timeline(odd, odd, [*whole, *modules]))
    found = page(folder)
    kinds_of_scripts = [attributes.get("type", "") for attributes, _ in found.all("script")]
    assert kinds_of_scripts.count("") == 2
    assert set(kinds_of_scripts) == {"", "application/json"}
    assert HOSTILE not in found.source
    # Browsers end a script at more than Python's parser does: there is no bracket to end it.
    assert not any("<" in text for attributes, text in found.all("script") if attributes)
    assert HOSTILE in found.texts("h1")[0]
    areas = found.specs["run-memory-plain"]["datasets"]
    assert isinstance(areas, dict)
    assert HOSTILE in {point["kind"] for point in areas["areas"]}


def test_only_the_two_scripts_of_the_page_may_run(run_folder: Callable[..., Path]) -> None:
    found = page(run_folder())
    (policy,) = (a["content"] for a, _ in found.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    scripts = [text for attributes, text in found.all("script") if not attributes]
    sums = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    (rule,) = (part for part in policy.split("; ") if part.startswith("script-src"))
    assert rule.split()[1:] == [f"'sha256-{value}'" for value in sums]


def test_no_host_is_asked(run_folder: Callable[..., Path]) -> None:
    for _, attributes, _ in page(run_folder()).elements:
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith("#")


def test_the_page_is_built_for_keyboards_and_screen_readers(
    run_folder: Callable[..., Path],
) -> None:
    found = page(run_folder("a"), run_folder("b"))
    assert '<html lang="en">' in found.source
    levels = [int(tag[1]) for tag, _, _ in found.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [a["id"] for _, a, _ in found.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in found.elements:
        for name in ("aria-labelledby", "data-spec"):
            assert attributes.get(name, ids[0]) in ids
        assert attributes.get("href", f"#{ids[0]}")[1:] in ids
    assert [tag for tag, _, _ in found.elements].count("main") == 1
    for tag in ("header", "nav", "footer"):
        assert found.all(tag)
    assert all(a["scope"] in ("row", "col") for a, _ in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table"))
    for attributes, _ in found.all("div"):
        if "data-spec" in attributes:
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"]) > 20
    assert len(found.all("figure")) == len(found.all("details"))


def test_an_older_report_is_replaced_and_another_file_is_not(
    run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = run_folder()
    out = write_report([folder])
    assert out == folder / "report.html"
    first = out.read_bytes()
    assert write_report([folder]).read_bytes() == first
    out.write_text("<html>my own notes</html>")
    with pytest.raises(ValueError, match="is no report"):
        write_report([folder])
    assert out.read_text() == "<html>my own notes</html>"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
