"""The section about FLOPs and bytes: what the count says, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from shoestring.core.run_folder import RunFolder
from shoestring.core.units import format_bytes, format_count
from shoestring.measure.counting.counts import Count
from tests.measure.counted_models import count_of, row
from tests.report import runs
from tests.report.test_page import HOSTILE, Page, page

TITLE = "Where the FLOPs and bytes go"


def tables(found: Page) -> dict[str, str]:
    """Return the texts of the tables by the beginnings of their captions."""
    return {text.split(",")[0]: text for text in found.texts("table")}


def test_it_says_what_the_count_says(run_folder: Callable[..., Path], source: runs.Made) -> None:
    folder = run_folder()
    c = Count.load(RunFolder(folder).count)
    found = page(folder)
    assert TITLE in found.texts("h2")
    assert c.flops > source.plain.flops  # the planned step computes something again
    phases = next(text for text in found.texts("table") if text.startswith("By phase"))
    for phase, cost in c.by_phase().items():
        assert phase in phases
        assert format_count(cost.flops) in phases or not cost.flops
        assert format_bytes(cost.bytes) in phases
    modules = next(text for text in found.texts("table") if text.startswith("By module"))
    assert "layers.0 … 5 (6)" in modules
    assert format_count(c.by_module()["first"].flops) in modules
    assert c.counted.title in found.words


def test_without_a_count_it_is_said(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    RunFolder(folder).count.unlink()
    found = page(folder)
    assert "No count: the run has written none." in found.words
    assert TITLE in found.texts("h2")


def test_a_damaged_count_is_told_and_the_rest_is_there(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    place = RunFolder(folder).count
    data = json.loads(place.read_text())
    data["total"]["flops"] += 1
    place.write_text(json.dumps(data))
    found = page(folder)
    assert "the rows do not sum to its total" in found.words
    assert "run-0-curve" in found.specs


def test_texts_are_only_text(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    count_of(row(HOSTILE, HOSTILE, flops=1, known=False), title=HOSTILE).save(
        RunFolder(folder).count
    )
    found = page(folder)
    assert HOSTILE not in found.source
    assert found.words.count("<script>document.title") >= 3
