"""Deep and thin models, whose planning takes long and whose steps do not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from bench.remat._torch import CapturedJoint
from bench.remat.models import ResNet, gpt, pictures, tokens
from shoestring.activations.remat.capture.joint import Joint, read_joint
from shoestring.activations.remat.capture.pricing import CostKind, price_nodes
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.closure_order import needed_values
from tests.zoo.case import seeded


@dataclasses.dataclass(frozen=True, slots=True)
class Thin:
    """A deep and thin model.

    Attributes:
        title: for people.
        build: makes the model.
        batch: makes its batch.
    """

    title: str
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[torch.Tensor, ...]]


def _gpt(layers: int) -> Thin:
    build = gpt(layers, width=32, heads=4, vocabulary=64, length=32)
    batch = functools.partial(tokens, 4, 32, 64)
    return Thin(f"GPT, {layers} layers", build, batch)


THIN: Final[dict[str, Thin]] = {
    **{f"gpt{layers}": _gpt(layers) for layers in (12, 24, 48)},
    "resnet": Thin(
        "ResNet, 16 bottlenecks",
        seeded(functools.partial(ResNet, 4)),
        functools.partial(pictures, 2, 64),
    ),
}
"""The models by name."""


def read(joint: CapturedJoint) -> Joint:
    """Return what schedules are made for, with operations priced by their FLOPs.

    Args:
        joint: as torch's own partition sees it; changed in place.
    """
    return read_joint(
        joint.module,
        forward_outputs=joint.forward_outputs,
        pricing=functools.partial(price_nodes, kind=CostKind.FLOPS),
    )


def recomputed_by(joint: Joint, saved: list[str]) -> frozenset[int]:
    """Return what runs again where some nodes of a joint graph are saved.

    A saved view saves the storage beneath it. What may not run again is kept by all.

    Args:
        joint: the graph.
        saved: names of its nodes.
    """
    graph = joint.graph
    names = set(saved)
    kept = {value for node, value in joint.values.items() if node.name in names}
    again: set[int] = set()
    wanted = [value for value in needed_values(graph) if value not in kept]
    while wanted:
        maker = graph.maker[wanted.pop()]
        if maker in again or not _may_run_again(graph, maker):
            continue
        again.add(maker)
        wanted += [value for value in graph.nodes[maker].reads if value not in kept]
    return frozenset(again)


def _may_run_again(graph: Graph, maker: int) -> bool:
    return 0 <= maker < graph.border and graph.nodes[maker].repeatable
