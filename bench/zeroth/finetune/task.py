"""What is trained of the classifier, on which batches, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import nn

from bench.zeroth.finetune.data import Classifier, Rows, frozen, load

MODES: Final = ("full", "lora", "head")
RANK: Final = 8


class Task:
    """A classifier that begins at the linear probe, and what of it is trained.

    Args:
        mode: ``full`` is all but the tables of embeddings; ``lora`` the head and corrections of
            rank 8 to query and value; ``head`` the head alone.
        seed: of the batches and of LoRA's first weights.
    """

    def __init__(self, mode: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.parts, self._seed = load(), seed
        self.model = Classifier()
        known = frozen()
        with torch.no_grad():
            self.model.head.weight.copy_(known["weight"])
            self.model.head.bias.copy_(known["bias"])
        self._kept: dict[int, torch.Tensor] = {}
        if mode == "head":
            parts = self.parts._asdict().items()
            self._kept = {id(rows.labels): known[part] for part, rows in parts}
        _choose(self.model, mode)

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def batches(self, rows: int) -> Iterator[torch.Tensor]:
        """Yield indices of training rows, without end, each epoch in an order of its own.

        Args:
            rows: of a batch.
        """
        generator = torch.Generator().manual_seed(self._seed)
        count = len(self.parts.train.labels)
        while True:
            order = torch.randperm(count, generator=generator)
            yield from order[: count - count % rows].split(rows)

    def logits(self, rows: Rows, index: torch.Tensor) -> torch.Tensor:
        """Return the logits of some rows.

        Args:
            rows: one of the parts.
            index: which of its rows.
        """
        kept = self._kept.get(id(rows.labels))
        if kept is not None:
            found: torch.Tensor = self.model.head(kept[index])
            return found
        return self.model(rows.take(index))

    @torch.no_grad()
    def score(self, rows: Rows) -> tuple[float, float]:
        """Return mean loss and accuracy.

        Args:
            rows: one of the parts.
        """
        loss = right = 0.0
        for index in torch.arange(len(rows.labels)).split(64):
            logits, labels = self.logits(rows, index), rows.labels[index]
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
            right += float((logits.argmax(1) == labels).sum())
        return loss / len(rows.labels), right / len(rows.labels)


def _choose(model: Classifier, mode: str) -> None:
    """Freeze what is not trained."""
    for parameter in model.encoder.parameters():
        parameter.requires_grad_(mode == "full")
    for parameter in model.encoder.embeddings.parameters():
        parameter.requires_grad_(False)
    if mode == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(
            LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["query", "value"]),
            model.encoder,
        )
