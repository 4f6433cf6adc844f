"""The plain meaning of micro-batches: the gradient of a mean over terms, part by part."""

from __future__ import annotations

import torch
from torch import nn


def gradients_in_parts(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, sizes: list[int]
) -> list[torch.Tensor]:
    """Return the gradients of the mean cross-entropy over the labels that are not -100.

    The sum of the terms is differentiated part by part, and divided by the number of all
    terms at the end; no mean of a part is ever taken.

    Args:
        model: maps (rows, ...) to logits (rows, length, classes).
        inputs: (rows, ...).
        targets: (rows, length) int64, -100 where ignored.
        sizes: rows of each part.
    """
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for rows, labels in zip(inputs.split(sizes), targets.split(sizes), strict=True):
        logits = model(rows)
        for row in range(len(labels)):
            for place in range(labels.shape[1]):
                if labels[row, place] == -100:
                    continue
                term = -logits[row, place].log_softmax(-1)[labels[row, place]]
                grads = torch.autograd.grad(term, parameters, retain_graph=True)
                total = [t + g for t, g in zip(total, grads, strict=True)]
    count = int((targets != -100).sum())
    return [t / count for t in total]
