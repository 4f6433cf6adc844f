"""Cases beyond a plain forward: backward, modes, algorithms and recomputation, in FLOPs.

Inputs ask for gradients, so that the first layer has both of its products in backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

from bench.counters import hand
from bench.counters.case import BACKWARD, FORWARD, RECOMPUTE, Build, Case, Hand
from bench.counters.models import Call, Outputs


def _made(model: Callable[[], nn.Module], *sizes: int, training: bool = False) -> Build:
    """Return a build of a model whose input is [rows, *sizes] and asks for gradients."""
    return lambda rows: (
        model().train(training),
        torch.randn(rows, *sizes, generator=torch.Generator().manual_seed(0), requires_grad=True),
    )


def _step(macs: Callable[[int], int], *, backward: float = 2) -> Hand:
    """Return FLOPs of forward and of a backward that is some times as much."""
    return lambda rows: {FORWARD: 2 * macs(rows), BACKWARD: round(backward * 2 * macs(rows))}


def _convolution(groups: int) -> Case:
    channels, size = 16, 8
    return Case(
        name=f"conv-backward-{groups}",
        title=f"`Conv2d`, {groups} group{'s' * (groups > 1)}",
        formula="backward: gradients of input and weight, each as much as forward",
        build=_made(
            lambda: nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False),
            channels, size, size,
        ),
        hand=_step(
            lambda rows: hand.convolution(
                rows, channels, channels, (size, size), (3, 3), groups
            )
        ),
        unit="FLOPs",
        backward=True,
    )  # fmt: skip


def _recurrent() -> tuple[Case, ...]:
    steps, inputs, hidden = 10, 32, 64
    short, few, small = 8, 4, 8
    return (
        Case(
            name="lstm-backward",
            title="LSTM",
            formula="backward: gradients of inputs and weights, each as much as forward",
            build=_made(
                lambda: Outputs(nn.LSTM(inputs, hidden, batch_first=True)),
                steps, inputs,
                training=True,
            ),
            hand=_step(lambda rows: hand.recurrent(steps, rows, inputs, hidden, 4)),
            unit="FLOPs",
            backward=True,
        ),
        Case(
            name="gru",
            title="GRU",
            formula="3 h (in + h) multiply-adds for each step and row",
            build=_made(lambda: Outputs(nn.GRU(few, small, batch_first=True)), short, few),
            hand=lambda rows: {FORWARD: 2 * hand.recurrent(short, rows, few, small, 3)},
            unit="FLOPs",
            beside=lambda rows: {"bias": short * rows * 3 * small},
        ),
    )  # fmt: skip


def _encoder(mode: str, title: str, *, training: bool, gradients: bool) -> Case:
    width, heads, inner, length = 32, 4, 64, 8

    def macs(rows: int) -> int:
        tokens = rows * length
        products = hand.linear(tokens, width, 4 * width) + 2 * hand.linear(tokens, width, inner)
        return products + hand.attention(rows, heads, length, length, width // heads)

    def layer() -> nn.Module:
        return nn.TransformerEncoderLayer(width, heads, inner, dropout=0.0, batch_first=True)

    return Case(
        name=f"encoder-{mode}",
        title=f"`TransformerEncoderLayer`, {title}",
        formula="T (4 d^2 + 2 d f) + 2 T^2 d multiply-adds for each row",
        build=_made(layer, length, width, training=training),
        hand=lambda rows: {FORWARD: 2 * macs(rows)},
        unit="FLOPs",
        gradients=gradients,
    )


def _attention() -> Case:
    heads, length, width = 12, 64, 64

    def attend(x: torch.Tensor) -> torch.Tensor:
        query, key, value = x.unflatten(1, (3, heads)).unbind(1)
        return F.scaled_dot_product_attention(query, key, value)

    return Case(
        name="attention-backward",
        title="fused attention on a CPU",
        formula="2 products forward, 5 backward, which makes the scores again",
        build=_made(lambda: Call(attend), 3 * heads, length, width),
        hand=lambda rows: {
            FORWARD: 2 * hand.attention(rows, heads, length, length, width),
            BACKWARD: 2 * hand.attention_backward(rows, heads, length, length, width),
        },
        unit="FLOPs",
        backward=True,
    )


def _algorithms() -> tuple[Case, ...]:
    points, coordinates = 16, 8
    many, columns, size, kept, wide = 32, 15, 64, 3, 12

    def sparse(x: torch.Tensor) -> torch.Tensor:
        # Each row keeps its first entries, so that rows x kept are multiplied.
        place = torch.arange(x.shape[0]).repeat_interleave(kept)
        indices = torch.stack([place, torch.arange(kept).repeat(x.shape[0])])
        matrix = torch.sparse_coo_tensor(
            indices, torch.ones(indices.shape[1]), (x.shape[0], wide), check_invariants=False
        )
        return torch.sparse.mm(matrix, torch.ones(wide, columns))

    return (
        Case(
            name="cdist",
            title="`cdist`",
            formula="3 m + 1 for each pair of points of m coordinates",
            build=_made(lambda: Call(lambda x: torch.cdist(x, x)), points, coordinates),
            hand=lambda rows: {FORWARD: rows * hand.distances(points, points, coordinates)},
            unit="FLOPs",
            gradients=False,
        ),
        Case(
            name="qr",
            title="`linalg.qr`",
            formula="2 (2 m n^2 - 2 n^3 / 3) for each matrix",
            build=_made(lambda: Call(lambda x: torch.linalg.qr(x)[0]), many, columns),
            hand=lambda rows: {FORWARD: rows * hand.reflections(many, columns)},
            unit="FLOPs",
            gradients=False,
        ),
        Case(
            name="fft",
            title="`fft`, complex",
            formula="5 n log2 n for each row",
            build=_made(lambda: Call(lambda x: torch.fft.fft(torch.complex(x, x))), size),
            hand=lambda rows: {FORWARD: hand.fourier(rows, size)},
            unit="FLOPs",
            gradients=False,
        ),
        Case(
            name="sparse",
            title="`sparse.mm`",
            formula="2 for each entry that is kept and column",
            build=_made(lambda: Call(sparse), wide),
            hand=lambda rows: {FORWARD: 2 * rows * kept * columns},
            unit="FLOPs",
            gradients=False,
        ),
    )


def _checkpointed(name: str, title: str, *, early: bool) -> Case:
    from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

    width, length = 32, 2

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (nn.Linear(width, width, bias=False) for _ in range(2))
            self.inside = nn.Sequential(*layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with set_checkpoint_early_stop(early):
                return checkpoint(self.inside, x, use_reentrant=False)

    def counts(rows: int) -> dict[str, int]:
        layer = 2 * hand.linear(rows * length, width, width)
        # Stopping early, recomputation ends when it has the input of the last layer.
        return {FORWARD: 2 * layer, RECOMPUTE: layer * (1 if early else 2), BACKWARD: 4 * layer}

    return Case(
        name=name,
        title=title,
        formula="2 linear layers: forward, again but for what nothing needs, twice as much",
        build=_made(Checkpointed, length, width, training=True),
        hand=counts,
        unit="FLOPs",
        backward=True,
    )


STEPS: Final[tuple[Case, ...]] = (
    *map(_convolution, (1, 4, 16)),
    *_recurrent(),
    _encoder("train", "training", training=True, gradients=True),
    _encoder("eval", "evaluation", training=False, gradients=True),
    _encoder("fused", "evaluation without gradients", training=False, gradients=False),
    _attention(),
    *_algorithms(),
    _checkpointed("checkpoint", "checkpointed", early=True),
    _checkpointed("checkpoint-whole", "checkpointed, no early stop", early=False),
)
"""The cases, in the order of the table."""
