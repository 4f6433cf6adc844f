"""Everything of torch's private interface that this folder compares with, in one place."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import fx, nn
from torch._functorch import config
from torch._functorch.compile_utils import fx_graph_cse
from torch._functorch.partitioners import (
    choose_saved_values_set,
    classify_nodes,
    default_partition,
    min_cut_rematerialization_partition,
)

from shoestring.activations.remat.capture._torch import Backend, aot_backend

FAR = int(1e9)
"""Distance from backward of what backward does not need, as torch writes it."""


@contextmanager
def torch_budget(share: float) -> Iterator[Backend]:
    """Give the backend of torch's own memory budget, and set that budget meanwhile.

    Graphs run operation by operation and free their inputs, as ours do. The budget must be set
    when the first step runs, since backward is compiled there.

    Args:
        share: of the bytes that torch's plain selection saves.
    """
    with config.patch(activation_memory_budget=share, activation_memory_budget_solver="dp"):
        yield aot_backend(min_cut_rematerialization_partition)


def forget_compiled() -> None:
    """Drop all that torch has compiled in this process."""
    torch._dynamo.reset()


def default_backend() -> Backend:
    """Return the backend that computes nothing twice, cut by torch's default partition."""
    return aot_backend(default_partition)


@dataclasses.dataclass(frozen=True)
class CapturedJoint:
    """A joint graph as torch's own partition sees it, before it chooses.

    Attributes:
        module: the graph, without what nothing needs and without equal operations.
        forward_outputs: how many of its outputs are the forward's.
        static: positions of the inputs that are parameters and buffers.
    """

    module: fx.GraphModule
    forward_outputs: int
    static: tuple[int, ...]

    def copied(self) -> CapturedJoint:
        """Return a copy that may be changed."""
        return dataclasses.replace(self, module=_copied(self.module))


def _copied(module: fx.GraphModule) -> fx.GraphModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, at a class of its own
        return copy.deepcopy(module)


def capture_joint(model: nn.Module, batch: Sequence[torch.Tensor]) -> CapturedJoint:
    """Return the joint graph of a model's step.

    Args:
        model: returns its loss.
        batch: its arguments.
    """
    found: list[CapturedJoint] = []

    def cut(
        module: fx.GraphModule,
        inputs: object,
        *,
        num_fwd_outputs: int,
        static_lifetime_input_indices: Sequence[int] | None = None,
        **_: object,
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        static = static_lifetime_input_indices or ()
        seen = _copied(module)
        seen.graph.eliminate_dead_code()
        seen.graph = fx_graph_cse(seen.graph)
        found.append(CapturedJoint(seen, num_fwd_outputs, tuple(static)))
        return default_partition(module, inputs, num_fwd_outputs=num_fwd_outputs)

    forget_compiled()
    torch.compile(model, backend=aot_backend(cut), fullgraph=True)(*batch)
    (joint,) = found
    return joint


def prepare_selection(joint: CapturedJoint) -> Callable[[float], list[str]]:
    """Return torch's choice of what to save, as a function of its budget.

    What is done here, before it is called, is what torch does once for a graph.

    Args:
        joint: the graph; changed in place.

    Returns:
        From a budget as torch counts it to the names of the nodes that are saved.
    """
    graph = joint.module.graph
    info = classify_nodes(joint.module, list(joint.static), joint.forward_outputs)
    for node in reversed(graph.nodes):
        if node.op == "output":
            node.dist_from_bw = FAR
        elif not info.is_required_fw(node):
            node.dist_from_bw = 0
        else:
            distances = (user.dist_from_bw + 1 for user in node.users)
            node.dist_from_bw = min(distances, default=FAR)

    def choose(budget: float) -> list[str]:
        with config.patch(activation_memory_budget_solver="dp"):
            saved = choose_saved_values_set(graph, info, memory_budget=budget)
        return [node.name for node in saved]

    return choose
