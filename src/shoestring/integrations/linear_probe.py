"""A linear probe: a classifier's last layer, fitted to what the frozen model makes of the texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn
from transformers import PreTrainedModel

from shoestring.core.errors import InputError

_STEPS: Final = 300
_CHUNK: Final = 4096
"""Rows that are in float64 at a time."""


@torch.no_grad()
def fit_last_layer(
    model: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]]
) -> tuple[float, int]:
    r"""Fit the last layer of a classifier by logistic regression; all other weights stay.

    .. math::

        \min_{W, b} \; \frac{1}{n} \sum_i -\log \mathrm{softmax}(W h_i + b)_{y_i}
        + \frac{1}{2 n} \|W\|^2

    with :math:`h_i` the layer's inputs, scaled together to a variance of 1 on the mean, so that
    inputs that hardly vary get no large weights. One forward pass over the data, then L-BFGS from
    zero in float64: the same data give the same weights.

    Args:
        model: for classification; its mode is left as it is.
        batches: of the training data, with ``labels``.

    Returns:
        Accuracy on these batches, and their rows.

    Raises:
        InputError: the model has no such layer, or its output is not that layer's.
    """
    layer, path = _last_layer(model)
    features, labels = _features(model, path, batches)
    if features.dim() != 2 or features.shape[1] != layer.in_features:
        raise InputError(
            f"{type(model).__name__} does more with {path} than return its output.",
            hint="leave out --probe.",
        )
    spread = features.var(0, correction=0).mean().sqrt().clamp_min(1e-12)
    centre = features.mean(0) if layer.bias is not None else torch.zeros(features.shape[1])
    features.sub_(centre).div_(spread)
    weight, bias = _regression(features, labels, layer.out_features, layer.bias is not None)
    right = sum(
        int(((rows.double() @ weight.T + bias).argmax(1) == wanted).sum())
        for rows, wanted in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True)
    )
    weight /= spread.double()
    layer.weight.copy_(weight)
    if layer.bias is not None:
        layer.bias.copy_(bias - weight @ centre.double())
    return right / len(labels), len(labels)


def _last_layer(model: PreTrainedModel) -> tuple[nn.Linear, str]:
    """Return the last layer with an output for each class, and its path."""
    base = f"{model.base_model_prefix}."
    found = [
        (module, path)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and not path.startswith(base)
        if module.out_features == model.config.num_labels
    ]
    if not found:
        raise InputError(
            f"{type(model).__name__} has no linear layer on top with an output for each class.",
            hint="leave out --probe.",
        )
    return found[-1]


def _features(
    model: PreTrainedModel, path: str, batches: Iterable[Mapping[str, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of a layer, as the model picks them for a row, and the labels."""
    features, labels = [], []
    training = model.training
    model.train(False)
    try:
        with _left_out(model, path):
            for batch in batches:
                inputs = {
                    name: tensor.to(model.device)
                    for name, tensor in batch.items()
                    if name != "labels"
                }
                features.append(model(**inputs).logits.float().cpu())
                labels.append(batch["labels"])
    finally:
        model.train(training)
    return torch.cat(features), torch.cat(labels)


@contextmanager
def _left_out(model: nn.Module, path: str) -> Iterator[None]:
    """Let a layer pass on what it is given: the model then returns the layer's inputs."""
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    layer = owner.get_submodule(name)
    setattr(owner, name, nn.Identity())
    try:
        yield
    finally:
        setattr(owner, name, layer)


def _regression(
    features: torch.Tensor, labels: torch.Tensor, classes: int, biased: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=biased)
    trained = [weight, bias] if biased else [weight]
    optimizer = torch.optim.LBFGS(trained, max_iter=_STEPS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for rows, wanted in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True):
            loss = nn.functional.cross_entropy(
                rows.double() @ weight.T + bias, wanted, reduction="sum"
            )
            (loss / len(labels)).backward()
            total += loss.detach() / len(labels)
        penalty = weight.square().sum() / (2 * len(labels))
        penalty.backward()
        return total + penalty.detach()

    optimizer.step(closure)
    return weight.detach(), bias.detach()
