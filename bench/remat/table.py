"""The tables of rematerialisation: peaks and times against bars, against others, and planning."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.harness import RESULTS
from bench.remat import bars
from bench.remat.records import Record, as_numbers, as_table, read_part
from bench.remat.solvers_table import solvers
from shoestring.core.units import format_bytes

EQUAL: Final = 1 + 1e-9
"""Ratio up to which two sums of the same seconds are the same."""


def memory(results: Path = RESULTS) -> str:
    """Return peak and time of each model at each batch, in a half and a third of its peak.

    Args:
        results: folder of all results.
    """
    found = read_part("memory", results)
    lines = [_memory_line(r, budget) for r in found for budget in bars.BUDGETS]
    head = ["model", "batch", "plain", "bar", "peak", "predicted", "floor"]
    head += ["computed again", "bar", "time", "total"]
    said = (
        "Plain and peak: measured peak of forward and backward above parameters, buffers and the "
        "batch, gradients included. Floor: what one operation takes by itself, with the "
        "gradients that must be there by then; no order stays under it. Computed again: seconds, "
        "predicted, as a share of the plain step's. Time: of forward and backward over the plain "
        "ones, processor time of one thread. "
        "Total: peak of a training step with AdamW, over the plain one's."
    )
    return _page(head, lines, said, found)


def _memory_line(record: Record, budget: str) -> list[str]:
    share, most = bars.BUDGETS[budget]
    plain = record.number("peak")
    peak = record.number(budget, "peak")
    predicted = record.number(budget, "predicted_peak")
    again, measured = (record.number(budget, k) for k in ("predicted_overhead", "overhead"))
    mark = _mark(record)
    exact = not as_table(as_table(record.figures[budget])["different"])
    return [
        str(record.figures["title"]),
        str(record.figures["rows"]),
        format_bytes(plain),
        f"{share:.0%}",
        _held(f"{peak / plain:.1%}", peak <= share * plain and exact) + mark,
        "=" if predicted == peak else f"{predicted / peak - 1:+.2%}",
        f"{record.number(budget, 'floor') / plain:.0%}",
        _held(f"{again:.1%}", again <= most) + mark,
        f"{most:.0%}",
        _held(f"{measured:+.1%}", abs(measured - again) <= bars.CLOSE) + mark,
        f"{record.number(budget, 'total') / record.number('total'):.0%}{mark}",
    ]


def peers(results: Path = RESULTS) -> str:
    """Return time beside what torch and Hugging Face offer, at the peak that they reach.

    Args:
        results: folder of all results.
    """
    found = read_part("peers", results)
    head = ["model", "other", "its peak", "our peak", "its time", "our time"]
    head += ["ours / its", "10 to 90 %", "its gradients"]
    said = (
        "Peaks as shares of the plain step's, above parameters, buffers and the batch; ours is "
        "fitted into the other's. Times over the plain step's, processor time of one thread, in "
        "turns. Its gradients: whether loss, gradients and buffers are those of the plain step; "
        "ours are, to the last bit, wherever nothing else is said."
    )
    return _page(head, list(map(_peer_line, found)), said, found, left=2)


def _peer_line(record: Record) -> list[str]:
    figures, mark = record.figures, _mark(record)
    first = [str(figures["model"]), str(figures["peer"])]
    if "error" in figures:
        return [*first, *[""] * 6, f"**fails**: {_short(figures['error'])}{mark}"]
    plain, theirs = record.number("plain_peak"), record.number("peer_peak")
    low, high = as_numbers(figures["spread"])
    wrong, own = as_table(figures["peer_different"]), as_table(figures["different"])
    peak = record.number("peak")
    return [
        *first,
        f"{theirs / plain:.0%}{mark}",
        _held(f"{peak / plain:.0%}", peak <= theirs and not own) + mark,
        f"{1 + record.number('peer_overhead'):.2f}{mark}",
        f"{1 + record.number('overhead'):.2f}{mark}",
        _held(f"{record.number('ratio'):.2f}", record.number("ratio") <= 1) + mark,
        f"{low:.2f} to {high:.2f}",
        f"**wrong**: {', '.join(wrong)}" if wrong else "=",
    ]


def _short(error: object) -> str:
    return textwrap.shorten(str(error), 120, placeholder=" ...").replace("|", "/")


def selection(results: Path = RESULTS) -> str:
    """Return what is computed again at equal saved bytes, beside torch's own choice.

    Args:
        results: folder of all results.
    """
    found = read_part("selection", results)
    lines = []
    for record in found:
        rows = _rows(record)
        worst = max(map(_ratio, rows))
        cells = [f"{_share(row['ours'])} / {_share(row['peer'])}" for row in rows]
        lines.append([str(record.figures["title"]), *cells, _held(f"{worst:.3f}", worst <= EQUAL)])
        lines[-1][-1] += _mark(record)
    head = ["model", *(f"{budget:g}" for budget in bars.TORCH_BUDGETS), "worst ratio"]
    said = (
        "Ours / torch's: FLOPs that run again as a share of the forward's, at the bytes that "
        "torch's choice keeps at each of its budgets."
    )
    return _page(head, lines, said, found)


def _rows(record: Record) -> list[dict[str, object]]:
    rows = record.figures["rows"]
    if not isinstance(rows, list):
        raise TypeError("the rows of a selection are a list")
    return [as_table(row) for row in rows]


def _ratio(row: Mapping[str, object]) -> float:
    ours, theirs = float(str(row["ours"])), float(str(row["peer"]))
    if theirs == 0:
        return 1.0 if ours == 0 else float("inf")
    return ours / theirs


def _share(value: object) -> str:
    share = float(str(value))
    return f"{100 * share:.1f}" if share >= 0.0005 else "0"


def planning(results: Path = RESULTS) -> str:
    """Return how long planning takes, beside torch's selection and compiling.

    Args:
        results: folder of all results.
    """
    found = read_part("planning", results)
    lines = [_planning_line(record) for record in found]
    head = ["model", "operations", "plan / torch's choice", "bar", "another budget", "bar"]
    head += ["same choice", "another", "fit / aot_eager", "bar"]
    said = (
        "Processor time of one thread. Plan: from the joint graph to an order within the peak of "
        "torch's choice at its budget 0.5, priced by FLOPs, with nothing known of the machine. "
        "Another budget: on the same graph. Same choice: within the bytes that torch's choice "
        "keeps, which is all that torch's budget bounds, and not within a peak. All over torch's "
        "time at its budget 0.5. The last: `fit` from call to ready, its self-check included, over "
        'compiling the same step with `backend="aot_eager"`.'
    )
    return _page(head, lines, said, found)


def _planning_line(record: Record) -> list[str]:
    mark = _mark(record)
    torch_seconds = record.number("medians", "torch")
    first = record.number("medians", "ours") / torch_seconds
    again = record.number("medians", "find_again") / torch_seconds
    alike = sum(record.number("medians", stage) for stage in ("read", "sweep", "saved"))
    alike_again = record.number("medians", "saved_again")
    whole = as_table(record.figures["whole"])
    both = [statistics.median(as_numbers(whole[side])) for side in ("fit", "aot_eager")]
    most = bars.PLAN_MOST[record.name]
    return [
        str(record.figures["title"]),
        str(record.figures["nodes"]),
        _held(f"{first:.2f}", first <= most) + mark,
        f"{most:.2f}",
        _held(f"{again:.3f}", again <= bars.AGAIN_MOST) + mark,
        f"{bars.AGAIN_MOST:.3f}",
        f"{alike / torch_seconds:.2f}{mark}",
        f"{alike_again / torch_seconds:.3f}{mark}",
        _held(f"{both[0] / both[1]:.2f}", both[0] <= bars.WHOLE_MOST * both[1]) + mark,
        f"{bars.WHOLE_MOST:.0f}",
    ]


def emitted(results: Path = RESULTS) -> str:
    """Return what our graphs cost beside torch's, where neither computes anything again.

    Args:
        results: folder of all results.
    """
    found = read_part("emitted", results)
    lines = []
    for record in found:
        ratio, mark = record.number("ratio"), _mark(record)
        low, high = as_numbers(record.figures["spread"])
        lines.append(
            [
                str(record.figures["title"]),
                str(record.figures["rows"]),
                _held(f"{ratio:.3f}", ratio <= bars.EMITTED_MOST) + mark,
                f"{low:.3f} to {high:.3f}",
                f"{bars.EMITTED_MOST:.2f}",
                f"{1 + record.number('peer_overhead'):.2f}{mark}",
                f"{1 + record.number('overhead'):.2f}{mark}",
            ]
        )
    head = ["model", "batch", "time, ours / torch's", "10 to 90 %", "bar"]
    head += ["torch's / plain", "ours / plain"]
    said = (
        "Processor time of one thread of forward and backward, in turns; both cut the same joint "
        "graph and run it operation by operation, torch by its default partition."
    )
    return _page(head, lines, said, found)


def zoo(results: Path = RESULTS) -> str:
    """Return how each model of the zoo is fitted into 70 % of its activations.

    Args:
        results: folder of all results.
    """
    found = read_part("zoo", results)
    lines = []
    for record in found:
        figures, mark = record.figures, _mark(record)
        plain, peak = record.number("plain_peak"), record.number("peak")
        predicted = record.number("predicted_peak")
        wrong = as_table(figures["different"])
        reached = peak <= record.number("budget") and not figures["refusal"]
        lines.append(
            [
                record.name,
                str(figures["rows"]),
                str(figures["path"]),
                format_bytes(plain),
                _held(f"{peak / plain:.1%}", reached) + mark,
                "=" if predicted == peak else f"{predicted / peak - 1:+.2%}",
                f"{record.number('predicted_overhead'):.1%}{mark}",
                f"{record.number('overhead'):+.1%}{mark}",
                f"**{', '.join(wrong)}**" if wrong else "=",
            ]
        )
    head = ["model", "batch", "path", "plain", "peak", "predicted", "computed again", "time"]
    said = (
        "Each is fitted into 70 % of the plain step's peak above parameters, buffers and the "
        "batch. Path: captured as a graph, or eager, operator by operator. Computed again: "
        "predicted seconds, as a share of the plain step's. Time: measured, of forward and "
        "backward over the plain ones, processor time of one thread; of a captured step it holds "
        "what the compiler's graphs save and cost, too. Same: loss, gradients, buffers and the "
        "state of random numbers of two steps, to the last bit."
    )
    return _page([*head, "same"], lines, said, found, left=3)


# --- small things ----------------------------------------------------------------------------


def _page(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    said: str,
    found: Sequence[Record],
    *,
    left: int = 1,
) -> str:
    # Here, since `bench.tables` lists these tables among its own.
    from bench.tables import FOOTNOTE, NOT_RUN, _grid

    if not found:
        return NOT_RUN
    older = f" {FOOTNOTE}" if any(record.older for record in found) else ""
    missed = " **Bold**: a bar that was missed, or what is wrong."
    bold = missed if any("**" in cell for line in lines for cell in line) else ""
    return f"{_grid(head, lines, left=left)}\n\n{said}{bold}{older}"


def _held(text: str, met: bool) -> str:
    return text if met else f"**{text}**"


def _mark(record: Record) -> str:
    from bench.tables import OLDER

    return OLDER if record.older else ""


TABLES: Final[dict[str, Callable[[Path], str]]] = {
    "remat-memory": memory,
    "remat-peers": peers,
    "remat-selection": selection,
    "remat-planning": planning,
    "remat-emitted": emitted,
    "remat-solvers": solvers,
    "remat-zoo": zoo,
}
"""The tables by the name that a page calls them by."""
