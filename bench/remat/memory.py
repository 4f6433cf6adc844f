"""Peak and time of steps that are fitted into a half and a third of what they take.

    python -m bench.remat.memory CELL ...

A cell is a model and the rows of its batch, as ``unet-4``. The plain step is measured first; the
model is then fitted into shares of its peak above parameters, with nothing known of the machine
but what fitting itself measures. Where a share is not reached, the least that is takes its place.
"""

from __future__ import annotations

import gc
import time
from typing import Final

import torch

from bench.remat.bars import BUDGETS
from bench.remat.models import SUBJECTS, Subject
from bench.remat.records import Figures, as_table
from bench.remat.steps import (
    SCALARS,
    Side,
    differences,
    fresh_cache,
    least_of,
    overhead,
    take_turns,
)
from shoestring.activations.remat.fitting import fit
from shoestring.activations.remat.graph import Graph
from shoestring.core.errors import InfeasibleError

SECONDS: Final = 40.0
"""Spent on timing a cell, about."""

CELLS: Final = tuple(f"{s.name}-{rows}" for s in SUBJECTS.values() for rows in s.rows)
"""A model and the rows of its batch."""


def measure(name: str) -> Figures:
    """Measure one cell.

    Args:
        name: one of `CELLS`.

    Returns:
        The plain step's figures, and those of each budget.
    """
    model, _, rows = name.rpartition("-")
    subject = SUBJECTS[model]
    plain = Side(subject.build(), subject.batch(int(rows)))
    wanted = plain.outcome()
    peak = plain.peak()
    parameters = sum(p.nbytes for p in plain.model.parameters())
    figures: Figures = {
        "title": subject.title,
        "rows": int(rows),
        "peak": peak,
        "static": 4 * parameters,  # with their gradients and Adam's two moments
        "total": plain.total(),
    }
    sides = {"plain": plain}
    with fresh_cache():
        for budget, (share, _most) in BUDGETS.items():
            budgeted = _fitted(subject, int(rows), int(share * peak), wanted)
            sides[budget], figures[budget] = budgeted
    del wanted
    gc.collect()
    samples = take_turns({n: side.step for n, side in sides.items()}, seconds=SECONDS)
    figures["samples"] = samples
    for budget in BUDGETS:
        as_table(figures[budget])["overhead"] = overhead(samples[budget], samples["plain"])
    return figures


def _fitted(
    subject: Subject, rows: int, budget: int, wanted: dict[str, list[torch.Tensor]]
) -> tuple[Side, Figures]:
    """Fit a model into a budget; where it does not fit, into the least that was found."""
    side = Side(subject.build(), subject.batch(rows))
    begin, refusal = time.process_time(), ""
    try:
        schedule = fit(side.model, side.batch, activations=budget - SCALARS)
    except InfeasibleError as error:
        refusal = str(error).partition("\n")[0]
        schedule = fit(side.model, side.batch, activations=least_of(error))
    seconds = time.process_time() - begin
    different = differences(side.outcome(), wanted)
    return side, {
        "budget": budget,
        "refusal": refusal,
        "predicted_peak": schedule.peak + SCALARS,
        "peak": side.peak(),
        "total": side.total(),
        "predicted_overhead": schedule.overhead,
        "least_overhead": schedule.lower_bound / schedule.graph.seconds - 1,
        "solver": schedule.answer.solver,
        "complete": schedule.answer.complete,
        "kept": schedule.graph.sizes(schedule.run.kept),
        "nodes": len(schedule.graph.nodes),
        "floor": floor(schedule.graph) + SCALARS,
        "captured_plain_peak": schedule.plain.peak + SCALARS,
        "fit_seconds": seconds,
        "different": different,
    }


def floor(graph: Graph) -> int:
    """Return bytes that no order's peak stays under.

    While a node runs there are what it reads and makes, its workspace, and the gradients that
    stay and were made by nodes that it cannot run without. At the end there are all that stay.

    Args:
        graph: the operations.
    """
    stays: list[frozenset[int]] = []  # by node: results made by it or by what it needs
    most = graph.sizes(graph.results)
    for node in graph.nodes:
        makers = {graph.maker[value] for value in node.reads} - {-1}
        before = frozenset().union(*(stays[maker] for maker in makers))
        own = {*node.reads, *node.makes} - graph.held
        most = max(most, graph.sizes(own | before) + node.workspace)
        stays.append(before | graph.results.intersection(node.makes))
    return most


if __name__ == "__main__":
    from bench.remat.child import main

    main("memory", CELLS, measure)
