"""Every layer that needs no table of levels, with torch's own beside it, for common tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.fewbit.dropout import Dropout
from shoestring.activations.fewbit.glu import GEGLU, ReGLU, SwiGLU
from shoestring.activations.fewbit.norms import LayerNorm, RMSNorm
from shoestring.activations.fewbit.randomized_linear import RandomizedLinear
from shoestring.activations.fewbit.softmax import attention_values, softmax_dropout

WIDTH = 16


class Softmax(nn.Module):
    """Softmax with dropout, of torch or of here."""

    def __init__(self, *, ours: bool) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.ours:
            return softmax_dropout(x, -1, 0.25, self.training)
        return F.dropout(F.softmax(x, -1), 0.25, self.training)


class Attention(nn.Module):
    """Attention of rows to themselves, of torch or of here."""

    def __init__(self, *, ours: bool) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = x @ x.transpose(-2, -1) / 4
        if self.ours:
            return attention_values(scores, x, 0.25, training=self.training)
        return F.dropout(F.softmax(scores, -1), 0.25, self.training) @ x


class Gate(nn.Module):
    """A gated unit of torch's own operators."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = x.chunk(2, -1)
        return self.act(gate) * value


class Case(NamedTuple):
    """A layer.

    Attributes:
        ours: makes it.
        plain: makes torch's, with the same state_dict.
        exact: whether gradients are torch's.
        twice: whether it can be differentiated twice.
    """

    ours: Callable[[], nn.Module]
    plain: Callable[[], nn.Module]
    exact: bool = True
    twice: bool = False


LAYERS: dict[str, Case] = {
    "linear": Case(
        lambda: RandomizedLinear(WIDTH, 8, ratio=0.25), lambda: nn.Linear(WIDTH, 8), exact=False
    ),
    "linear srht": Case(
        lambda: RandomizedLinear(WIDTH, 8, ratio=0.25, sketch="srht"),
        lambda: nn.Linear(WIDTH, 8),
        exact=False,
    ),
    "linear importance": Case(
        lambda: RandomizedLinear(WIDTH, 8, ratio=0.25, sketch="importance"),
        lambda: nn.Linear(WIDTH, 8),
        exact=False,
    ),
    "dropout": Case(lambda: Dropout(0.25), lambda: nn.Dropout(0.25), twice=True),
    "layer norm": Case(lambda: LayerNorm(WIDTH), lambda: nn.LayerNorm(WIDTH)),
    "rms norm": Case(lambda: RMSNorm(WIDTH), lambda: nn.RMSNorm(WIDTH)),
    "softmax": Case(lambda: Softmax(ours=True), lambda: Softmax(ours=False)),
    "attention": Case(lambda: Attention(ours=True), lambda: Attention(ours=False)),
    "swiglu": Case(SwiGLU, lambda: Gate(F.silu), twice=True),
    "geglu": Case(GEGLU, lambda: Gate(F.gelu), twice=True),
    "reglu": Case(ReGLU, lambda: Gate(F.relu), twice=True),
}
