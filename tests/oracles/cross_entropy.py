"""Cross-entropy of a linear head, written out: every row, every class, no chunks."""

from __future__ import annotations

from collections.abc import Callable

import torch


def cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    class_weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    transform: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits,
) -> torch.Tensor:
    """Return the loss, by its definition with the smoothed target spelt out."""
    num_classes = weight.shape[0]
    rows = hidden.reshape(-1, hidden.shape[-1])
    product = rows @ weight.T
    logits = transform(product if bias is None else product + bias)
    log_p = logits - logits.logsumexp(dim=1, keepdim=True)
    scale = torch.ones_like(log_p[0]) if class_weight is None else class_weight
    kept = labels.reshape(-1) != ignore_index
    index = labels.reshape(-1) * kept
    chosen = torch.nn.functional.one_hot(index, num_classes).to(log_p)
    target = (1 - label_smoothing) * chosen + label_smoothing / num_classes
    losses = -(target * scale * log_p).sum(dim=1)[kept]
    return losses.sum() if reduction == "sum" else losses.sum() / scale[index][kept].sum()
