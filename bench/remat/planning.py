"""How long planning takes, beside torch's selection and beside compiling the model at all.

    python -m bench.remat.planning CELL ...

The joint graph is captured before. Ours is timed from there to an order: reading the graph,
pricing its operations with nothing known of the machine, and finding an order whose peak is that
of torch's choice. Torch is timed in choosing what to save by its dynamic program alone. Then
`fit` as a whole beside the compiling of the same model with ``backend="aot_eager"``.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Final

import torch

from bench.remat._torch import (
    CapturedJoint,
    capture_joint,
    forget_compiled,
    prepare_selection,
)
from bench.remat.records import Figures
from bench.remat.steps import fresh_cache
from bench.remat.thin import THIN, Thin, read, recomputed_by
from shoestring.activations.remat.fitting import fit, remove
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.closure import solve_peak, solve_saved, sweep
from shoestring.activations.remat.solvers.closure_order import closure_cost, closure_order
from shoestring.activations.remat.solvers.find import Planner
from shoestring.measure import load_machine

SHARE: Final = 0.5
"""Torch's budget."""
FURTHER: Final = (0.7, 0.6, 0.55)
"""Further budgets on the same graph, as torch counts them."""
ROUNDS: Final = 3
WHOLE_ROUNDS: Final = 2
CELLS: Final = tuple(THIN)


def measure(name: str) -> Figures:
    """Time planning for one model.

    Args:
        name: one of `CELLS`.

    Returns:
        Processor seconds of each side and of their stages.
    """
    thin = THIN[name]
    captured = capture_joint(thin.build(), thin.batch())
    budgets = {share: _torch_peak(captured, share) for share in (SHARE, *FURTHER)}
    rounds = [_round(captured.copied(), captured.copied(), budgets) for _ in range(1 + ROUNDS)]
    samples = {stage: [one[stage] for one in rounds[1:]] for stage in rounds[0]}
    joint = read(captured.copied())
    return {
        "title": thin.title,
        "nodes": len(joint.graph.nodes),
        "budgets": {str(share): peak for share, (peak, _) in budgets.items()},
        "samples": samples,
        "medians": {stage: statistics.median(taken) for stage, taken in samples.items()},
        "whole": _whole(thin, budgets[SHARE][0]),
    }


def _torch_peak(captured: CapturedJoint, share: float) -> tuple[int, int]:
    """Return the peak of torch's choice in our order, and the bytes that it keeps."""
    choose = prepare_selection(captured.copied())
    joint = read(captured.copied())
    chosen = recomputed_by(joint, choose(share))
    order = closure_order(joint.graph, chosen)
    return simulate(joint.graph, order).peak, closure_cost(joint.graph, chosen)[0]


def _round(
    ours: CapturedJoint, theirs: CapturedJoint, budgets: dict[float, tuple[int, int]]
) -> dict[str, float]:
    """Time every stage once; each side has its own copy of the graph."""
    stages: dict[str, float] = {}

    def timed(stage: str, count: int, run: Callable[[], object]) -> None:
        gc.collect()
        begin = time.process_time()
        run()
        stages[stage] = (time.process_time() - begin) / count

    further = [budgets[share] for share in FURTHER]
    peak, kept = budgets[SHARE]
    choose = prepare_selection(theirs)
    timed("torch", 1, lambda: choose(SHARE))
    known = ours.copied()
    found: list[Graph] = []
    with fresh_cache():
        timed("read", 1, lambda: found.append(read(ours).graph))
        timed("read_known", 1, lambda: found.append(read(known).graph))
    graph, fresh = found
    planner = Planner(graph)
    timed("find", 1, lambda: planner.order(peak))
    timed("find_again", len(further), lambda: [planner.order(p) for p, _ in further])
    timed("sweep", 1, lambda: sweep(fresh))
    swept = sweep(fresh)
    timed("peak", 1, lambda: solve_peak(swept, peak))
    timed("peak_again", len(further), lambda: [solve_peak(swept, p) for p, _ in further])
    timed("saved", 1, lambda: solve_saved(swept, kept))
    timed("saved_again", len(further), lambda: [solve_saved(swept, k) for _, k in further])
    timed("torch_again", len(further), lambda: [choose(share) for share in FURTHER])
    stages["ours"] = stages["read"] + stages["find"]
    return stages


def _whole(thin: Thin, peak: int) -> dict[str, list[float]]:
    """Time `fit` and torch's own compiling of the same step, each from nothing."""
    batch = thin.batch()
    samples: dict[str, list[float]] = {"fit": [], "aot_eager": []}
    for turn in range(1 + WHOLE_ROUNDS):  # the first loads what either needs
        for side, taken in samples.items():
            model = thin.build()
            forget_compiled()
            gc.collect()
            with fresh_cache():
                load_machine()  # its rates, which are measured once in its life
                begin = time.process_time()
                if side == "fit":
                    fit(model, batch, activations=peak, cost="flops")
                else:
                    # Backward is compiled when it is first needed; the step itself is short.
                    torch.compile(model, backend="aot_eager", fullgraph=True)(*batch).backward()
                seconds = time.process_time() - begin
            if turn:
                taken.append(seconds)
            if side == "fit":
                remove(model)
    return samples


if __name__ == "__main__":
    from bench.remat.child import main

    main("planning", CELLS, measure)
