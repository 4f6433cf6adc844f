"""The attack: one loop for all methods, which counts every query of every image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from shoestring.core.errors import InputError
from shoestring.zeroth.attacks.asking import (
    Margins,
    Model,
    check_images,
    check_indices,
    check_labels,
    check_model,
    check_numbers,
)
from shoestring.zeroth.attacks.ball import Ball
from shoestring.zeroth.attacks.draws import Draws
from shoestring.zeroth.attacks.jaguar import Jaguar
from shoestring.zeroth.attacks.method import Method, Problem
from shoestring.zeroth.attacks.nes import NES
from shoestring.zeroth.attacks.record import Attack
from shoestring.zeroth.attacks.signhunter import SignHunter
from shoestring.zeroth.attacks.spsa import SPSA
from shoestring.zeroth.attacks.square import Square
from shoestring.zeroth.attacks.zoo import ZOO

METHODS: Final[tuple[type[Method], ...]] = (Square, NES, SPSA, SignHunter, ZOO, Jaguar)


@torch.no_grad()
def attack(
    model_fn: Model,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    method: str | Method = "square",
    norm: str = "linf",
    eps: float = 8 / 255,
    queries: int = 1000,
    targeted: bool = False,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
    batch_size: int | None = None,
    indices: Sequence[int] | None = None,
) -> Attack:
    r"""Look for images near given ones that a model takes for others, by its answers alone.

    .. math::

        \text{find } x' \text{ with } \|x' - x\|_p \le \epsilon \text{ and }
        f_y(x') < \max_{k \ne y} f_k(x')

    With :math:`f_k` the logit of class k. The method searches for a low margin
    :math:`f_y - \max_{k \ne y} f_k`; with a target t it is :math:`\max_{k \ne t} f_k - f_t`.

    Every query is an allowed image, and the first one whose margin is below zero ends the search
    for its image. Each pass asks for one image of each that is left, and every forward of an image
    counts, that of the unchanged one included: an image that is misclassified as it is succeeds at
    one query. To floating point's rounding the results are within the ball.

    Args:
        model_fn: takes images, returns logits ``[images, classes]``; a module in evaluation mode or
            any function. No gradients are asked of it.
        x: images ``[images, channels, height, width]``, of floating dtype.
        y: their labels, or their targets.
        method: ``square``, ``nes``, ``spsa``, ``signhunter``, ``zoo`` or ``jaguar``, or such an
            object with its settings.
        norm: ``linf`` or ``l2``.
        eps: :math:`\epsilon`, in units of a pixel.
        queries: most queries of an image.
        targeted: whether `y` are targets.
        seed: of what is random.
        bounds: least and largest value of a pixel.
        batch_size: most images of a call of the model; None for all that are left.
        indices: numbers that name the images, by default their places. What is random depends on
            the seed and on these, so that an image's result is the same in any batch, as far as
            its logits are.

    Returns:
        Images, success and queries of each; `Attack.curve` has the success within any number of
        queries.

    Raises:
        InputError: an argument or an answer of the model cannot be used.

    Source: of each method, at its class.

    Example:
        >>> def model_fn(images):
        ...     bright = images.mean(dim=(1, 2, 3))
        ...     return torch.stack([0.5 - bright, bright - 0.5], dim=1)
        >>> x, y = torch.full((2, 1, 8, 8), 0.49), torch.tensor([0, 0])
        >>> found = attack(model_fn, x, y, method="signhunter", eps=0.03, queries=100)
        >>> found.success.tolist(), found.queries.tolist()
        ([True, True], [2, 2])
    """
    check_numbers(norm, eps, queries, batch_size)
    check_model(model_fn)
    check_images(x, bounds)
    check_labels(y, len(x))
    chosen = _method(method)
    draws = Draws(seed, check_indices(indices, len(x)), x.device)
    x, y = x.detach(), y.detach().to(x.device, torch.int64)
    ask = Margins(model_fn, targeted=targeted, batch_size=batch_size)
    best, margins = x.clone(), ask(x, y)
    asked = torch.ones(len(x), dtype=torch.int64, device=x.device)
    unchanged = margins < 0
    left = (~unchanged).nonzero().squeeze(1)
    draws.keep(~unchanged)
    problem = Problem(Ball(x[left], norm, eps, bounds), draws, margins[left], queries)
    search = chosen.start(problem)
    for _ in range(queries - 1):
        if not len(left):
            break
        proposed = search.propose()
        found = ask(proposed, y[left])
        asked[left] += 1
        better = found < margins[left]
        best[left[better]], margins[left[better]] = proposed[better], found[better]
        search.told(found)
        going = found >= 0
        if not going.all():
            left = left[going]
            search.keep(going)
    return Attack(
        best, margins < 0, asked, margins, unchanged, chosen.name, norm, eps, queries, targeted
    )


def _method(method: str | Method) -> Method:
    if isinstance(method, Method):
        return method
    for kind in METHODS:
        if kind.name == method:
            return kind()
    raise InputError(
        f"there is no method {method!r}.",
        hint=f"take one of {', '.join(kind.name for kind in METHODS)}.",
    )
