"""A GPT of plain modules: 10 million weights, 4 layers, vocabulary 4096."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

WIDTH: Final = 384
LAYERS: Final = 4
HEADS: Final = 6
VOCABULARY: Final = 4096
LENGTH: Final = 64


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mixed, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        parts = self.mixed(self.before(x)).chunk(3, -1)
        query, key, value = (p.view(rows, length, HEADS, -1).transpose(1, 2) for p in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, WIDTH))
        added: torch.Tensor = x + self.down(F.gelu(self.up(self.after(x))))
        return added


class GPT(nn.Module):
    """A decoder of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(_Block() for _ in range(LAYERS)))
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return logits.

        Args:
            ids: ``[rows, length]``.
        """
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        logits: torch.Tensor = self.head(self.last(self.blocks(x)))
        return logits


def made(rows: int) -> tuple[GPT, Callable[[], torch.Tensor]]:
    """Return the model, always with the same weights, and a closure with a batch.

    Args:
        rows: of the batch, of 64 tokens each.
    """
    torch.manual_seed(0)
    model = GPT()
    ids = torch.randint(VOCABULARY, (rows, LENGTH + 1))

    def closure() -> torch.Tensor:
        logits = model(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return model, closure
