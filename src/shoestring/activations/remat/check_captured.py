"""A block that is captured and computes again all that may be, for the self-check."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx, nn

from shoestring.activations.remat.answer import Answer
from shoestring.activations.remat.capture._torch import counted_alone
from shoestring.activations.remat.capture.pricing import Price, Prices
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.compiled import RematBackend
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.closure_order import closure_order


def captured_again(block: nn.Module) -> Callable[..., object]:
    """Return a function that runs a block as the captured path does, and keeps next to nothing.

    Args:
        block: its forward must be capturable as one graph.
    """
    backend = RematBackend(compute_all_again, _alike)
    run: Callable[..., object] = torch.compile(
        counted_alone(block), backend=backend, fullgraph=True, dynamic=False
    )
    return run


def compute_all_again(graph: Graph) -> Schedule:
    """Return the schedule that computes again whatever may be.

    Args:
        graph: the operations.
    """
    order = closure_order(graph, graph.repeatable)
    run = simulate(graph, order)
    answer = Answer(order, run.peak, run.seconds, graph.seconds, "all", complete=True)
    return Schedule(graph, answer, run.peak)


def _alike(nodes: Sequence[fx.Node], **_: object) -> Prices:
    # All is computed again whatever it costs, so nothing need be measured.
    return {node: Price(1.0, 0) for node in nodes}
