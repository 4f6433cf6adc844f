"""Small networks that meet what rematerialisation stumbles over, and a way to run them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import fx, nn
from torch.nn import functional as F

from shoestring.activations.remat.capture._torch import aot_backend
from shoestring.activations.remat.capture.emission import emit
from shoestring.activations.remat.capture.joint import Joint, read_joint
from shoestring.activations.remat.capture.pricing import CostKind, price_nodes
from shoestring.activations.remat.graph import Graph

Choose = Callable[[Graph], Sequence[int]]


class Attending(nn.Module):
    """A block of a Transformer: views, a split, attention, dropout, residuals."""

    def __init__(self, width: int, p: float) -> None:
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow, self.project = nn.Linear(4 * width, width), nn.Linear(width, 3 * width)
        self.drop = nn.Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        parts = self.project(self.norm(x)).reshape(rows, length, 3, 4, width // 4)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.drop(mixed.transpose(1, 2).reshape(rows, length, width))
        out: torch.Tensor = x + self.drop(self.narrow(F.gelu(self.wide(self.norm2(x)))))
        return out


class Feeding(nn.Module):
    """A block whose dropout is read through views, by a product of three dimensions."""

    def __init__(self, width: int, p: float) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.narrow(self.drop(F.relu(self.wide(x))))
        return out


class Shifting(nn.Module):
    """A block that adds a buffer, read through a view, and changes it."""

    shift: torch.Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.wide = nn.Linear(width, width)
        self.register_buffer("shift", torch.randn(length * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shifted: torch.Tensor = F.gelu(self.wide(x) + self.shift.view(x.shape[1:]))
        with torch.no_grad():
            self.shift.mul_(0.5)
        return shifted


class WithLoss(nn.Module):
    """A network that returns its loss, so that nothing of the step lies outside of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.network(x).square().mean()
        return loss


def transformer(p: float = 0.5, *, depth: int = 2, width: int = 32) -> nn.Module:
    """Return a small Transformer."""
    blocks = [Attending(width, p) for _ in range(depth)]
    return nn.Sequential(nn.Linear(8, width), *blocks, nn.Linear(width, 8))


def feeding(p: float = 0.5) -> nn.Module:
    """Return a stack of layers with dropout before their second product."""
    return nn.Sequential(nn.Linear(8, 32), Feeding(32, p), Feeding(32, p), nn.Linear(32, 8))


def shifting() -> nn.Module:
    """Return layers that change their buffers."""
    return nn.Sequential(nn.Linear(8, 32), Shifting(32, 32), Shifting(32, 32), nn.Linear(32, 8))


def convolutional() -> nn.Module:
    """Return convolutions with batch normalisation and an activation in place."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 12 * 12, 4),
    )


def sequence() -> torch.Tensor:
    """Return a batch for `transformer`; its masks are larger than a generator's state."""
    return torch.randn(8, 32, 8, generator=torch.Generator().manual_seed(3))


def image() -> torch.Tensor:
    """Return a batch for `convolutional`."""
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Captured:
    """A network compiled to run in a chosen order.

    Attributes:
        network: the compiled copy.
        joint: what was captured; there after the first call.
        forward: the emitted graph of the forward.
        backward: that of the backward.
    """

    joint: Joint
    forward: fx.GraphModule
    backward: fx.GraphModule

    def __init__(self, network: nn.Module, choose: Choose) -> None:
        torch._dynamo.reset()
        self.network = copy.deepcopy(network)
        self._choose = choose
        self.run = torch.compile(self.network, backend=aot_backend(self._cut), fullgraph=True)

    def _cut(
        self, module: fx.GraphModule, inputs: object, *, num_fwd_outputs: int, **_: object
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        self.joint = read_joint(
            module,
            forward_outputs=num_fwd_outputs,
            pricing=lambda nodes: price_nodes(nodes, CostKind.FLOPS),
        )
        self.order = tuple(self._choose(self.joint.graph))
        self.forward, self.backward = emit(self.joint, self.order)
        return self.forward, self.backward


def plain(graph: Graph) -> tuple[int, ...]:
    """Choose to compute nothing twice."""
    return graph.plain


def everything(graph: Graph) -> tuple[int, ...]:
    """Choose to compute again whatever may be."""
    return lazily(graph, graph.repeatable)


def all_but_draws(graph: Graph) -> tuple[int, ...]:
    """Choose to keep masks and to compute again all else that may be."""
    draws = {k for k, node in enumerate(graph.nodes) if node.kind == "native_dropout"}
    return lazily(graph, graph.repeatable - draws)


def lazily(graph: Graph, again: frozenset[int]) -> tuple[int, ...]:
    """Return the order in which some nodes run again, each before the first that needs it."""
    order = list(range(graph.border + 1))
    there = set(graph.held) | set(graph.nodes[graph.border].makes)
    for node in range(graph.border):
        if node not in again:
            there.update(graph.nodes[node].makes)

    def need(value: int) -> None:
        if value not in there:
            maker = graph.maker[value]
            for read in graph.nodes[maker].reads:
                need(read)
            order.append(maker)
            there.update(graph.nodes[maker].makes)

    for node in range(graph.border + 1, len(graph.nodes)):
        for read in graph.nodes[node].reads:
            need(read)
        order.append(node)
        there.update(graph.nodes[node].makes)
    return tuple(order)


def each_time(graph: Graph) -> tuple[int, ...]:
    """Return the order in which each node of backward has all it needs computed anew."""
    order = list(range(graph.border + 1))
    for node in range(graph.border + 1, len(graph.nodes)):
        wanted, needed = list(graph.nodes[node].reads), set()
        while wanted:
            maker = graph.maker[wanted.pop()]
            if maker in graph.repeatable and maker not in needed:
                needed.add(maker)
                wanted += graph.nodes[maker].reads
        order += [*sorted(needed), node]
    return tuple(order)
