"""One model of the zoo, and what its batches are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import nn

Batch: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor]
Loss: TypeAlias = Callable[[object, Batch], torch.Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A small model with a batch, as a user would bring it.

    Attributes:
        name: short name, used in results and test ids.
        build: makes the model in training mode; the same weights every time.
        batch: makes the batch of a number of rows; the same data every time.
        loss: ``f(output, batch) -> scalar``; None where the output carries its loss.
        rows: two batch sizes; at the larger, activations are half of AdamW's peak or more.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    loss: Loss | None
    rows: tuple[int, int]


def seeded(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a builder whose weights are always the same and that leaves torch's RNG alone.

    Args:
        make: makes the model, drawing from torch's global RNG.
    """

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make().train()

    return build


def generator(seed: int = 0) -> torch.Generator:
    """Return a generator on the CPU for the data of a batch.

    Args:
        seed: its seed.
    """
    return torch.Generator(device="cpu").manual_seed(seed)


def integers(*size: int, below: int, seed: int = 0) -> torch.Tensor:
    """Return int64 numbers in [1, below).

    Args:
        size: the tensor's sizes.
        below: one past the largest; 0 is left for padding.
        seed: of the draw.
    """
    return torch.randint(1, below, size, generator=generator(seed), device="cpu")


def normals(*size: int, seed: int = 0) -> torch.Tensor:
    """Return float32 numbers of the normal distribution.

    Args:
        size: the tensor's sizes.
        seed: of the draw.
    """
    return torch.randn(size, generator=generator(seed), device="cpu")


def padded_mask(rows: int, length: int) -> torch.Tensor:
    """Return an int64 mask (rows, length); every second row ends in padding.

    Args:
        rows: number of rows.
        length: their length, with padding.
    """
    lengths = torch.tensor([length if row % 2 == 0 else length * 3 // 4 for row in range(rows)])
    return (torch.arange(length) < lengths[:, None]).long()


def text(rows: int, length: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Return token numbers and their mask, 0 where padded.

    Args:
        rows: number of rows.
        length: their length, with padding.
        vocabulary: one past the largest token number.
    """
    mask = padded_mask(rows, length)
    tokens = integers(rows, length, below=vocabulary) * mask
    return {"input_ids": tokens, "attention_mask": mask}


def labelled_text(rows: int, length: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Return `text` with itself as labels, -100 where padded.

    Args:
        rows: number of rows.
        length: their length, with padding.
        vocabulary: one past the largest token number.
    """
    batch = text(rows, length, vocabulary)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {**batch, "labels": labels}
