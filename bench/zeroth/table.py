"""The tables of zeroth-order training: speed, memory, samplers, targets and fine-tuning."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.harness import RESULTS, Result, is_older, read_result
from bench.zeroth.finetune.table import finetune
from bench.zeroth.suggested.table import suggested
from shoestring.core.units import format_bytes

NOT_RUN: Final = "*not run yet*"
OLDER: Final = "†"
FOOTNOTE: Final = "† measured with older code."


def speed(results: Path = RESULTS) -> str:
    """Return the time of a step beside its forwards and others'.

    Args:
        results: folder of all results.
    """
    found = _read("zeroth-speed", results)
    lines = [
        [
            f"{r.ours} beside {r.peer} {r.peer_version}".rstrip(),
            _rows(r),
            _ratio(r),
            _spread(r),
            _bar(r),
        ]
        for r in found
    ]
    said = (
        "A GPT of 10.3 million weights (width 384, 4 layers, vocabulary 4096), rows of 64 tokens, "
        "float32; processor time of one thread, in turns; ratio of the medians, with the 10th and "
        "90th percentile of all pairs."
    )
    return _page(["time of a step", "rows", "ratio", "10 to 90 %", "bar"], lines, said, found)


def memory(results: Path = RESULTS) -> str:
    """Return what a step takes beyond inference.

    Args:
        results: folder of all results.
    """
    found = _read("zeroth-memory", results)
    lines = [
        [
            r.ours,
            format_bytes(int(r.samples["inference"][0])),
            format_bytes(int(r.samples["step"][0])) + _mark(r),
            format_bytes(int(r.samples["ours"][0])) + _mark(r),
            _bar(r, "1 MiB"),
        ]
        for r in found
    ]
    said = (
        "Peak by the account of torch's allocator, weights included. The same GPT, 8 rows; MiniLM "
        "and a classifier, 16 rows of 32 word pieces, all weights trained. AdamW: forward, "
        "backward and step; planned: in the smallest of the exact plans, which computes again, too."
    )
    head = ["step", "inference", "step's peak", "beyond inference", "bar"]
    return _page(head, lines, said, found)


def samplers(results: Path = RESULTS) -> str:
    """Return the time of each kind of semi-orthogonal direction beside QR.

    Args:
        results: folder of all results.
    """
    found = _read("zeroth-samplers", results)
    lines = [[r.ours, _times(r), _bar(r, "20 times")] for r in found]
    said = (
        "A direction of 768 x 768, drawn and added to a weight, beside the Q of normal numbers, "
        "drawn and added; float32, processor time of one thread."
    )
    return _page(["kind", "times as fast as QR", "bar"], lines, said, found)


def targets(results: Path = RESULTS) -> str:
    """Return the evaluations that each optimizer takes to each target.

    Args:
        results: folder of all results.
    """
    found = _read("zeroth-targets", results)
    problems = list(dict.fromkeys(_problem(r) for r in found))
    rows: dict[str, dict[str, Result]] = {}
    for result in found:
        rows.setdefault(result.ours, {})[_problem(result)] = result
    lines = [
        [name, *(_evaluations(cells[p]) if p in cells else "" for p in problems)]
        for name, cells in rows.items()
    ]
    said = (
        "Evaluations of the loss until it has fallen to 1 % of its start (logistic: by 90 % of the "
        "way to its least); median of three draws of the problem that the learning rate, of a grid "
        "of quarter decades, was not chosen on; all other options are the defaults. The bar is "
        "20,000. Quadratic: 620 weights; ill-conditioned: 100, condition 100; logistic: 63."
    )
    return _page(["optimizer", *problems], lines, said, found)


def searches(results: Path = RESULTS) -> str:
    """Return the evaluations beside those of nevergrad's searches.

    Args:
        results: folder of all results.
    """
    found = _read("zeroth-searches", results)
    lines = []
    for r in found:
        size, condition, _ = r.scenario.partition("/")[2].split("-", 2)
        ours, theirs = (statistics.median(r.samples[side]) for side in ("ours", "peer"))
        other = f"{r.peer} {r.peer_version}"
        lines.append([size, condition, other, f"{ours:.0f}", f"{theirs:.0f}", _ratio(r)])
    said = (
        "Evaluations until a quadratic has fallen to 1 %, median of three; ours with what "
        "`suggest` takes where it is told that the curvature stays (`growth=1`)."
    )
    head = ["weights", "condition", "search", "ours", "its", "ratio"]
    return _page(head, lines, said, found, left=3)


TABLES: Final[dict[str, Callable[[Path], str]]] = {
    "zeroth-finetune": finetune,
    "zeroth-memory": memory,
    "zeroth-samplers": samplers,
    "zeroth-searches": searches,
    "zeroth-speed": speed,
    "zeroth-suggested": suggested,
    "zeroth-targets": targets,
}


def _read(scenario: str, results: Path) -> list[Result]:
    return [read_result(path) for path in sorted((results / scenario).glob("*.json"))]


def _page(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    said: str,
    found: Sequence[Result],
    left: int = 1,
) -> str:
    if not found:
        return NOT_RUN
    rule = ["---" if place < left else "--:" for place in range(len(head))]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
    return f"{grid}\n\n{said}" + (f" {FOOTNOTE}" if any(map(is_older, found)) else "")


def _rows(result: Result) -> str:
    return result.scenario.rpartition("-")[2]


def _problem(result: Result) -> str:
    return result.scenario.partition("/")[2].rpartition("-")[0]


def _mark(result: Result) -> str:
    return OLDER if is_older(result) else ""


def _ratio(result: Result) -> str:
    return ("failed" if result.ratio is None else f"{result.ratio:.2f}") + _mark(result)


def _times(result: Result) -> str:
    return ("failed" if not result.ratio else f"{1 / result.ratio:.1f}") + _mark(result)


def _spread(result: Result) -> str:
    return "" if result.spread is None else "{:.2f} to {:.2f}".format(*result.spread)


def _bar(result: Result, words: str = "") -> str:
    if result.limit is None:
        return ""
    held = "met" if result.met else "**missed**"
    return f"{words or f'{result.limit:.2f}'}: {held}"


def _evaluations(result: Result) -> str:
    if result.note:
        return f"**missed**{_mark(result)}"
    return f"{statistics.median(result.samples['ours']):.0f}{_mark(result)}"
