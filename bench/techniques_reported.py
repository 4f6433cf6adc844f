"""The steps of techniques that are only reported, as torch, peft and bitsandbytes run them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from bench.techniques_measure import OPTIMIZERS, Cell, Side
from shoestring.measure.tracing.allocator import standing, steady_step
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import StepOptions, forward_loss
from tests.zoo import adapted

RANK: Final = 16
"""Of adapters, as in the prediction."""


def autocast(cell: Cell) -> Side:
    """Return the step under bfloat16 autocast.

    Args:
        cell: the step.
    """
    model, batch = _made(cell)
    optimizer = OPTIMIZERS[cell.optimizer](model.parameters())
    return _steady(cell, model, batch, optimizer, torch.bfloat16)


def eight_bit_state(cell: Cell) -> Side:
    """Return the step with the 8-bit AdamW of bitsandbytes.

    Args:
        cell: the step.
    """
    import bitsandbytes

    model, batch = _made(cell)
    return _steady(cell, model, batch, bitsandbytes.optim.AdamW8bit(model.parameters()))


def adapters(cell: Cell, *, in_4_bits: bool = False) -> Side:
    """Return the step of a frozen model with peft's LoRA.

    Args:
        cell: the step.
        in_4_bits: keep the adapted weights in 4 bits with bitsandbytes.
    """
    model, batch = _made(cell)
    model = adapted.with_lora(adapted.in_4_bits(model) if in_4_bits else model, RANK)
    trained = [p for p in model.parameters() if p.requires_grad]
    return _steady(cell, model, batch, OPTIMIZERS[cell.optimizer](trained))


def two_forwards(cell: Cell) -> Side:
    """Return two forward passes without gradients, which is what a slope takes.

    Args:
        cell: the step.
    """
    model, batch = _made(cell)
    options = StepOptions(loss=cell.case.loss)

    def step() -> None:
        with torch.no_grad():
            for _ in range(2):
                forward_loss(model, batch, options)

    return Side(step, lambda: standing(model, batch))


SIDES: Final[dict[str, Callable[[Cell], Side]]] = {
    "adam8bit": eight_bit_state,
    "bf16": autocast,
    "lora": adapters,
    "nf4": functools.partial(adapters, in_4_bits=True),
    "zeroth-order": two_forwards,
}
"""What makes the changed step, by technique."""


def _made(cell: Cell) -> tuple[nn.Module, Batch]:
    return cell.case.build(), cell.case.batch(cell.rows)


def _steady(
    cell: Cell,
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    dtype: torch.dtype | None = None,
) -> Side:
    step = steady_step(model, batch, optimizer, cell.case.loss, autocast=dtype)
    return Side(step, lambda: [*standing(model, batch, optimizer), *_scales(model)])


def _scales(model: nn.Module) -> list[torch.Tensor]:
    """Return the scales of 4-bit weights, which are neither parameters nor buffers."""
    found: list[torch.Tensor] = []
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            found += [value for value in vars(state).values() if torch.is_tensor(value)]
            state = getattr(state, "state2", None)
    return found
