"""The table of the solvers of rematerialisation: how fast they are, and which is best."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.harness import RESULTS, Result, is_older, read_result
from shoestring.core.units import format_bytes, format_seconds


def solvers(results: Path = RESULTS) -> str:
    """Return what each solver took against its bar, and what it found beside the others.

    Args:
        results: folder of all results.
    """
    # Here, since `bench.tables` lists this table among its own.
    from bench.tables import FOOTNOTE, NOT_RUN, _grid

    found = [read_result(path) for path in sorted((results / "remat-solvers").glob("*.json"))]
    if not found:
        return NOT_RUN
    named = {result.scenario.partition("/")[2]: result for result in found}
    taken = [_taken(r) for name, r in named.items() if not name.startswith(("best-", "near-"))]
    best = [_best(r) for name, r in named.items() if name.startswith("best-")]
    near = [_near(r) for name, r in named.items() if name.startswith("near-")]
    others = ("closure", "rotor", "checkmate", "hilp", "dtr", "auto")
    older = f" {FOOTNOTE}" if any(map(is_older, found)) else ""
    return "\n\n".join(
        [
            _grid(["solver", "graph", "took", "bar", ""], taken, left=2),
            "Medians, one core. Without a chain to go by, the graph of unlike layers takes all of "
            "the ten seconds that it is given.",
            _grid(["graph", "to be best", *others], best, left=2),
            "Seconds of the order that each finds in ten, over the plain step's; none where it "
            "finds none. **Bold**: the one that was to be best is not.",
            _grid(["solver", "near"], near),
            "Share of drawn graphs of at most 25 nodes, at 85, 70 and 55 % of the plain peak, on "
            f"which it is within 3 % of Checkmate.{older}",
        ]
    )


def _taken(result: Result) -> list[str]:
    figure = statistics.median(result.samples["ours"])
    shown = format_bytes(figure) if result.unit == "bytes" else format_seconds(figure)
    bar = format_seconds(result.samples["peer"][0]) if result.samples.get("peer") else ""
    said = {None: "", True: "met", False: "**missed**"}[result.met]
    return [result.ours, result.note, shown + _mark(result), bar, said]


def _best(result: Result) -> list[str]:
    graph = result.note.partition(", 10 s")[0]
    cells = []
    for solver in ("closure", "rotor", "checkmate", "hilp", "dtr", "auto"):
        seconds = result.samples.get(solver)
        shown = f"{seconds[0]:.3f}" if seconds else "none"
        cells.append(_held(shown, solver != result.ours or result.met is not False) + _mark(result))
    return [graph, result.ours, *cells]


def _near(result: Result) -> list[str]:
    share = result.samples["ours"][0]
    return [f"{result.ours}, {result.note.rpartition(', ')[2]}", f"{share:.0%}{_mark(result)}"]


def _held(text: str, met: bool) -> str:
    return text if met else f"**{text}**"


def _mark(result: Result) -> str:
    from bench.tables import OLDER

    return OLDER if is_older(result) else ""
