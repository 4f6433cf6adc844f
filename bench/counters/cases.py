"""Seventeen small models and the multiply-adds of one forward of each, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from bench.counters import hand, models
from bench.counters.case import Build, Case, forward


def _floats(model: Callable[[], nn.Module], *sizes: int) -> Build:
    """Return a build of a model whose input is [rows, *sizes] of floats."""
    return lambda rows: (model().eval(), torch.ones(rows, *sizes))


def _tokens(model: Callable[[], nn.Module], length: int) -> Build:
    """Return a build of a model whose input is [rows, length] of tokens."""
    return lambda rows: (model().eval(), torch.zeros(rows, length, dtype=torch.int64))


def _resnet() -> Case:
    width, size, classes = 8, 16, 10
    half = size // 2

    def macs(rows: int) -> int:
        first = hand.convolution(rows, width, width, (size, size), (3, 3), 1)
        return (
            hand.convolution(rows, 3, width, (size, size), (3, 3), 1)
            + 2 * first
            + hand.convolution(rows, width, 2 * width, (half, half), (3, 3), 1)
            + hand.convolution(rows, 2 * width, 2 * width, (half, half), (3, 3), 1)
            + hand.convolution(rows, width, 2 * width, (half, half), (1, 1), 1)
            + hand.linear(rows, 2 * width, classes)
        )

    def beside(rows: int) -> dict[str, int]:
        image, smaller = rows * width * size**2, rows * 2 * width * half**2
        return {
            "bias": rows * classes,
            "batch norm": 3 * image + 2 * smaller,
            "norm parameters": rows * 2 * (3 * width + 2 * 2 * width),
            "ReLU": 3 * image + 2 * smaller,
            "pooling": smaller,
            "pooling outputs": rows * 2 * width,
        }

    return Case(
        name="resnet",
        title="ResNet-like",
        formula="convolutions of stem, two blocks and shortcut, and the classifier",
        build=_floats(lambda: models.ResNet(width, classes), 3, size, size),
        hand=forward(macs),
        beside=beside,
    )


def _gpt(name: str, title: str, *, fused: bool) -> Case:
    layers, width, heads, vocabulary, length = 2, 64, 4, 100, 16

    def macs(rows: int) -> int:
        tokens = rows * length
        return (
            layers * hand.linear(tokens, width, 12 * width)
            + layers * hand.attention(rows, heads, length, length, width // heads)
            + hand.linear(tokens, width, vocabulary)
        )

    def beside(rows: int) -> dict[str, int]:
        tokens = rows * length
        return {
            "bias": layers * tokens * 9 * width,
            "layer norm": (2 * layers + 1) * tokens * width,
            "GELU": layers * tokens * 4 * width,
            "softmax": layers * rows * heads * length**2,
        }

    return Case(
        name=name,
        title=title,
        formula="L (12 d^2 T + 2 T^2 d) + V d T for each row",
        build=_tokens(lambda: models.GPT(layers, width, heads, vocabulary, fused=fused), length),
        hand=forward(macs),
        beside=beside,
    )


def _lstm() -> Case:
    steps, inputs, hidden = 10, 32, 64

    def macs(rows: int) -> int:
        first = hand.recurrent(steps, rows, inputs, hidden, 4)
        return first + hand.recurrent(steps, rows, hidden, hidden, 4)

    return Case(
        name="lstm",
        title="LSTM, 2 layers",
        formula="4 h (in + h) for each layer, step and row",
        build=_floats(
            lambda: models.Outputs(nn.LSTM(inputs, hidden, 2, batch_first=True)), steps, inputs
        ),
        hand=forward(macs),
        # Both layers; each has two biases of four gates.
        beside=lambda rows: {
            "bias": 2 * steps * rows * 8 * hidden,
            "gates": 2 * steps * rows * hidden,
        },
    )


def _attention() -> Case:
    length, width, heads = 8, 32, 4

    def macs(rows: int) -> int:
        products = 4 * hand.linear(rows * length, width, width)
        return products + hand.attention(rows, heads, length, length, width // heads)

    return Case(
        name="attention",
        title="`nn.MultiheadAttention`",
        formula="4 T d^2 + 2 T^2 d for each row",
        build=_floats(lambda: models.SelfAttention(width, heads), length, width),
        hand=forward(macs),
        beside=lambda rows: {
            "bias": rows * length * 4 * width,
            "output bias": rows * length * width,
            "scale": rows * length * width,
            "softmax": rows * heads * length**2,
        },
    )


def _transposed() -> Case:
    inputs, outputs, size, kernel = 16, 8, 8, 4
    return Case(
        name="conv-transpose",
        title="`ConvTranspose2d`, stride 2",
        formula="in HW (of the input) x out k^2 for each row",
        build=_floats(
            lambda: nn.Sequential(
                nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=1, bias=False)
            ),
            inputs, size, size,
        ),
        hand=forward(
            lambda rows: hand.transposed(rows, inputs, outputs, (size,) * 2, (kernel,) * 2)
        ),
    )  # fmt: skip


def _convolution(
    name: str,
    title: str,
    layer: type[nn.Conv1d | nn.Conv2d | nn.Conv3d],
    channels: tuple[int, int],
    image: tuple[int, ...],
    *,
    padding: int,
    groups: int = 1,
) -> Case:
    inputs, outputs = channels
    places = tuple(size - 2 + 2 * padding for size in image)
    kernel = (3,) * len(image)
    return Case(
        name=name,
        title=title,
        formula="out HW (of the output) x in / groups k^2 for each row",
        build=_floats(
            lambda: nn.Sequential(
                layer(inputs, outputs, 3, padding=padding, groups=groups, bias=False)
            ),
            inputs, *image,
        ),
        hand=forward(
            lambda rows: hand.convolution(rows, inputs, outputs, places, kernel, groups)
        ),
    )  # fmt: skip


def _products() -> tuple[Case, ...]:
    length, width, wide = 10, 32, 48
    return (
        Case(
            name="linear",
            title="`Linear` on [2, 10, 32]",
            formula="T in out for each row",
            build=_floats(lambda: nn.Sequential(nn.Linear(width, wide, bias=False)), length, width),
            hand=forward(lambda rows: hand.linear(rows * length, width, wide)),
        ),
        Case(
            name="einsum",
            title="`torch.einsum`",
            formula="T in out for each row",
            build=_floats(lambda: models.Einsum(width, 2 * width), length, width),
            hand=forward(lambda rows: hand.linear(rows * length, width, 2 * width)),
        ),
        Case(
            name="shared",
            title="`Linear` called 3 times",
            formula="3 d^2 for each row",
            build=_floats(lambda: models.Thrice(width), width),
            hand=forward(lambda rows: 3 * hand.linear(rows, width, width)),
            beside=lambda rows: {"bias": 3 * rows * width},
        ),
        Case(
            name="functional",
            title="`F.linear`, `x @ parameter`",
            formula="2 T in out for each row",
            build=_floats(lambda: models.Functional(width, wide), length, width),
            hand=forward(
                lambda rows: (
                    hand.linear(rows * length, width, wide)
                    + hand.linear(rows * length, wide, width)
                )
            ),
        ),
    )


def _embeddings() -> tuple[Case, ...]:
    vocabulary, width, length = 100, 64, 16
    return (
        Case(
            name="embedding",
            title="`Embedding`",
            formula="nothing is multiplied",
            build=_tokens(lambda: nn.Sequential(nn.Embedding(vocabulary, width)), length),
            hand=forward(lambda rows: 0),
        ),
        Case(
            name="embedding-bag",
            title="`EmbeddingBag`",
            formula="nothing is multiplied",
            build=_tokens(lambda: nn.Sequential(nn.EmbeddingBag(vocabulary, width)), length),
            hand=forward(lambda rows: 0),
        ),
    )


def _bilinear() -> Case:
    first, second, outputs = 8, 9, 10
    return Case(
        name="bilinear",
        title="`nn.Bilinear`",
        formula="out (in1 in2 + in2) for each row: x W, then the sum over z",
        build=_floats(lambda: models.Bilinear(first, second, outputs), first + second),
        hand=forward(lambda rows: hand.bilinear(rows, first, second, outputs)),
        beside=lambda rows: {"the sum over z": -rows * outputs * second},
    )


CASES: Final[tuple[Case, ...]] = (
    _resnet(),
    _gpt("gpt-fused", "GPT, fused attention", fused=True),
    _gpt("gpt", "GPT, attention by products", fused=False),
    _lstm(),
    _attention(),
    _transposed(),
    _convolution("conv3d", "`Conv3d`", nn.Conv3d, (4, 8), (8, 8, 8), padding=0),
    _convolution(
        "conv-groups", "`Conv2d`, 4 groups", nn.Conv2d, (16, 32), (8, 8), padding=1, groups=4
    ),
    _convolution(
        "depthwise", "`Conv2d`, depthwise", nn.Conv2d, (16, 16), (8, 8), padding=1, groups=16
    ),
    _convolution("conv1d", "`Conv1d`", nn.Conv1d, (8, 16), (20,), padding=1),
    *_products(),
    *_embeddings(),
    _bilinear(),
)
"""The models, in the order of the table."""
