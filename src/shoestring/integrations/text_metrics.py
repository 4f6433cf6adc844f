"""How well texts are classified: accuracy, and F1 over the classes."""

from __future__ import annotations

import numpy as np
import torch
import transformers


def chosen(logits: torch.Tensor | tuple[torch.Tensor, ...], labels: object) -> torch.Tensor:
    """Keep the predicted class of a row, so that an evaluation stores no logits.

    Args:
        logits: of a batch.
        labels: not used.
    """
    first = logits[0] if isinstance(logits, tuple) else logits
    return first.argmax(-1)


def metrics(prediction: transformers.EvalPrediction) -> dict[str, float]:
    """Return accuracy and the unweighted mean of the classes' F1.

    Args:
        prediction: of a whole evaluation.
    """
    found, right = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    f1 = macro_f1(torch.from_numpy(found), torch.from_numpy(right))
    return {"accuracy": float((found == right).mean()), "f1": f1}


def macro_f1(found: torch.Tensor, right: torch.Tensor) -> float:
    """Return the unweighted mean of the F1 of each class that there is.

    Args:
        found: classes, [rows].
        right: the true ones, [rows].
    """
    scores = []
    for label in right.unique():
        both = float(((found == label) & (right == label)).sum())
        scores.append(2 * both / float((found == label).sum() + (right == label).sum()))
    return sum(scores) / len(scores)
