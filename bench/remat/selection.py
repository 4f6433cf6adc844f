"""Seconds of computing again at equal saved bytes: ours beside torch's own choice.

    python -m bench.remat.selection CELL ...

Torch chooses at nine of its budgets. Ours is given the bytes that torch's choice keeps, and both
are priced by the same rule on the same graph: each storage once, each operation that runs again
by its FLOPs.
"""

from __future__ import annotations

from typing import Final

from bench.remat._torch import capture_joint, prepare_selection
from bench.remat.bars import TORCH_BUDGETS
from bench.remat.records import Figures
from bench.remat.thin import THIN, read, recomputed_by
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.closure import solve_peak, solve_saved, sweep
from shoestring.activations.remat.solvers.closure_order import closure_cost, closure_order

CELLS: Final = tuple(THIN)


def measure(name: str) -> Figures:
    """Compare the choices on one model.

    Args:
        name: one of `CELLS`.

    Returns:
        By budget: bytes kept, and what runs again as a share of the forward. Also the seconds of
        ours in the order whose peak is that of torch's choice.
    """
    thin = THIN[name]
    captured = capture_joint(thin.build(), thin.batch())
    choose = prepare_selection(captured.copied())
    joint = read(captured)
    graph = joint.graph
    forward = sum(node.seconds for node in graph.nodes[: graph.border])
    swept = sweep(graph)
    rows: list[Figures] = []
    for budget in TORCH_BUDGETS:
        theirs = recomputed_by(joint, choose(budget))
        kept, seconds = closure_cost(graph, theirs)
        ours = solve_saved(swept, kept, tolerance=1e-9)
        peak = simulate(graph, closure_order(graph, theirs)).peak
        within = solve_peak(swept, peak)
        rows.append(
            {
                "budget": budget,
                "kept": kept,
                "own_kept": ours.saved_bytes,
                "ours": ours.seconds / forward,
                "peer": seconds / forward,
                "bound": ours.bound / forward,
                "peak": peak,
                "own_peak": within.peak,
                "ours_within_peak": (within.seconds - graph.seconds) / forward,
            }
        )
    return {
        "title": thin.title,
        "nodes": len(graph.nodes),
        "border": graph.border,
        "plain_peak": simulate(graph, graph.plain).peak,
        "rows": rows,
    }


if __name__ == "__main__":
    from bench.remat.child import main

    main("selection", CELLS, measure)
