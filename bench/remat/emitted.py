"""What running our graphs costs, beside torch's own: nothing is computed again by either.

    python -m bench.remat.emitted CELL ...

Both cut the same joint graph, and run it operation by operation: ours in the order that keeps
everything, torch's by its default partition.
"""

from __future__ import annotations

import functools
import gc
from typing import Final

import torch
from torch import nn

from bench.harness import ratio_and_spread
from bench.remat._torch import default_backend
from bench.remat.models import SUBJECTS
from bench.remat.records import Figures
from bench.remat.steps import Side, differences, overhead, take_turns
from shoestring.activations.remat.answer import Answer
from shoestring.activations.remat.capture.pricing import CostKind, price_nodes
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.compiled import RematBackend
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate

SECONDS: Final = 40.0
CELLS: Final = tuple(SUBJECTS)


def keep_everything(graph: Graph) -> Schedule:
    """Return the schedule that computes nothing twice.

    Args:
        graph: the operations.
    """
    run = simulate(graph, graph.plain)
    answer = Answer(graph.plain, run.peak, run.seconds, run.seconds, "none", complete=True)
    return Schedule(graph, answer, run.peak)


class _Called(nn.Module):
    """A model that is run by something else."""

    def __init__(self, model: nn.Module, run: object) -> None:
        super().__init__()
        self.model, self._run = model, [run]

    def forward(self, *batch: torch.Tensor) -> torch.Tensor:
        (run,) = self._run
        assert callable(run)
        loss: torch.Tensor = run(*batch)
        return loss


def measure(name: str) -> Figures:
    """Compare the steps of one model.

    Args:
        name: one of `CELLS`.

    Returns:
        Times, peaks, and what either gives that the plain step does not.
    """
    subject = SUBJECTS[name]
    rows = subject.rows[0]
    plain = Side(subject.build(), subject.batch(rows))
    wanted = plain.outcome()
    ours = RematBackend(keep_everything, functools.partial(price_nodes, kind=CostKind.FLOPS))
    sides = {"plain": plain}
    for side, backend in (("ours", ours), ("peer", default_backend())):
        model = subject.build()
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        sides[side] = Side(_Called(model, compiled), subject.batch(rows))
    different = {side: differences(sides[side].outcome(), wanted) for side in ("ours", "peer")}
    peaks = {side: each.peak() for side, each in sides.items()}
    del wanted
    gc.collect()
    samples = take_turns({side: each.step for side, each in sides.items()}, seconds=SECONDS)
    ratio, spread = ratio_and_spread(samples["ours"], samples["peer"])
    return {
        "title": subject.title,
        "rows": rows,
        "peaks": peaks,
        "different": different,
        "samples": samples,
        "ratio": ratio,
        "spread": list(spread),
        "overhead": overhead(samples["ours"], samples["plain"]),
        "peer_overhead": overhead(samples["peer"], samples["plain"]),
    }


if __name__ == "__main__":
    from bench.remat.child import main

    main("emitted", CELLS, measure)
