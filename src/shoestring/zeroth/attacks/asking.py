"""Asks a model for margins, and refuses what cannot be attacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth.attacks.ball import NORMS

Model: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Takes images, returns logits ``[images, classes]``."""


class Margins:
    r"""Margins of a model's answers.

    .. math::

        f_y - \max_{k \ne y} f_k, \qquad \max_{k \ne t} f_k - f_t

    The first for labels y, the second for targets t; below 0 is a success.

    Args:
        model: takes images, returns logits.
        targeted: whether the labels are targets.
        batch_size: most images of a call; None for all.
    """

    def __init__(self, model: Model, *, targeted: bool, batch_size: int | None) -> None:
        self._model, self._targeted, self._batch_size = model, targeted, batch_size

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the margins in float64, on the images' device.

        Args:
            images: ``[images, channels, height, width]``.
            labels: one for each.

        Raises:
            InputError: the answer is no finite tensor ``[images, classes]``, or lacks a label.
        """
        size = self._batch_size or len(images)
        parts = zip(images.split(size), labels.split(size), strict=True)
        return torch.cat([self._part(*part) for part in parts])

    def _part(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # A copy: models that normalise in place would change the image that is kept.
        logits = self._model(images.clone())
        _check_logits(logits, len(images))
        logits = logits.detach().to(images.device, torch.float64, copy=True)
        if labels.max() >= logits.shape[1]:
            raise InputError(
                f"there is a label {int(labels.max())}, and {logits.shape[1]} classes.",
                hint="give labels from 0 up to the number of classes.",
            )
        places = labels.unsqueeze(1)
        own = logits.gather(1, places).squeeze(1)
        other = logits.scatter_(1, places, -torch.inf).amax(dim=1)
        return other - own if self._targeted else own - other


def _check_logits(logits: object, images: int) -> None:
    if not isinstance(logits, torch.Tensor):
        raise InputError(
            f"the model returns {type(logits).__name__}, not a tensor.",
            hint="wrap it in a function that returns the logits.",
        )
    if logits.ndim != 2 or len(logits) != images or logits.shape[1] < 2:
        raise InputError(
            f"the model returns {list(logits.shape)} for {images} images.",
            hint="it must return logits of the shape [images, classes], of two classes at least.",
        )
    if not logits.isfinite().all():
        raise InputError(
            "the model returns logits that are not finite.",
            hint="an attack compares them: make sure that they are, or look at the model.",
        )


def check_model(model: Model) -> None:
    """Refuse a module whose answers change from call to call.

    Args:
        model: what is attacked.

    Raises:
        InputError: it is in training mode.
    """
    if isinstance(model, nn.Module) and model.training:
        raise InputError(
            "the model is in training mode, where dropout and batch norms change its answers.",
            hint="call model.eval() first.",
        )


def check_images(images: torch.Tensor, bounds: tuple[float, float]) -> None:
    """Refuse what are no images within the bounds.

    Args:
        images: to be attacked.
        bounds: least and largest value of a pixel.

    Raises:
        InputError: the shape, dtype or values are wrong, or there are none.
    """
    if images.ndim != 4 or images.numel() == 0 or not images.is_floating_point():
        raise InputError(
            f"images of shape {list(images.shape)} and {images.dtype} cannot be attacked.",
            hint="give at least one, as floats [images, channels, height, width].",
        )
    if not bounds[0] < bounds[1]:
        raise InputError(f"bounds={bounds} hold no values.", hint="give the lower one first.")
    if not ((images >= bounds[0]) & (images <= bounds[1])).all():
        raise InputError(
            f"some pixels are outside {bounds[0]:g} to {bounds[1]:g}, or not numbers.",
            hint="attack images before normalisation, or give their bounds=.",
        )


def check_labels(labels: torch.Tensor, images: int) -> None:
    """Refuse what are no labels.

    Args:
        labels: of the images.
        images: how many there are.

    Raises:
        InputError: shape, dtype or values are wrong.
    """
    whole = not labels.is_floating_point() and labels.dtype is not torch.bool
    if labels.shape != (images,) or not whole or labels.is_complex() or (labels < 0).any():
        raise InputError(
            f"labels of shape {list(labels.shape)} and {labels.dtype} do not fit {images} images.",
            hint="give one whole number from 0 for each image.",
        )


def check_numbers(norm: str, eps: float, queries: int, batch_size: int | None) -> None:
    """Refuse a ball that is none, and a budget that allows nothing.

    Args:
        norm: of the ball.
        eps: its radius.
        queries: the budget.
        batch_size: most images of a call.

    Raises:
        InputError: one of them is outside its range.
    """
    if norm not in NORMS:
        raise InputError(f"there is no norm {norm!r} here.", hint=f"take {' or '.join(NORMS)}.")
    if not 0 < eps < float("inf"):
        raise InputError(f"eps={eps} is no radius.", hint="take a number above 0, such as 8 / 255.")
    if queries < 1:
        raise InputError(f"queries={queries} allows no query.", hint="take at least one.")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size} is no size.", hint="take at least one, or None.")


def check_indices(indices: Sequence[int] | None, images: int) -> Sequence[int]:
    """Return the numbers that name images, by default their places.

    Args:
        indices: as given.
        images: how many there are.

    Raises:
        InputError: they are not one for each image.
    """
    if indices is None:
        return range(images)
    if len(indices) != images:
        raise InputError(
            f"{len(indices)} indices do not name {images} images.", hint="give one for each."
        )
    return indices
