"""Zeroth-order stochastic gradient descent: MeZO, and its forms with momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.zeroth.directions import Direction
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.published import published


def check_momentum(momentum: float) -> None:
    """Refuse a momentum that is no share.

    Args:
        momentum: from 0 up to 1.

    Raises:
        InputError: it is outside.
    """
    if not 0 <= momentum < 1:
        raise InputError(f"momentum={momentum} is no share.", hint="take one from 0 to 1.")


class Descent(ZerothOrder):
    """What descends along its estimate of the gradient, with or without momentum.

    Args:
        params: parameters, groups or named parameters.
        lr: learning rate.
        eps: how far apart the loss is asked for.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides.
        momentum: what the last steps count.
        weight_decay: share of a weight that is lost in a step, over the learning rate.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step.
        noise: ``hash``, or ``torch`` for the numbers of MeZO's published program.
        model: whose parameters these are.
        forward: ``inplace`` or ``twin``.
    """

    def __init__(  # noqa: PLR0913  # every option of a step is one
        self,
        params: ParamsT,
        lr: float = 1e-6,
        eps: float = 1e-3,
        *,
        directions: str = "rademacher",
        q: int = 1,
        two_sided: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
        noise: str = "hash",
        model: nn.Module | None = None,
        forward: str = "inplace",
    ) -> None:
        check_momentum(momentum)
        _check_noise(noise, directions)
        defaults = {"lr": lr, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(
            params,
            {**defaults, "noise": noise},
            directions=directions,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
            model=model,
            forward=forward,
        )

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        if self._shared["noise"] == "hash":
            return super()._draw(tensors, draw, index)
        place = draw * int(self._shared["q"]) + index
        return published(tensors, int(self._shared["seed"]), place)

    def _needs_gradient(self, group: Group) -> bool:
        return bool(group["momentum"])

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        return {"momentum_buffer": wide_zeros(parameter)} if group["momentum"] else {}

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        buffer = self._buffer(parameter, "momentum_buffer")
        buffer.mul_(group["momentum"]).add_(gradient)
        self._add(parameter, group, buffer, -group["lr"])


def _check_noise(noise: str, directions: str) -> None:
    if noise not in ("hash", "torch"):
        raise InputError(f"there is no noise called {noise!r}.", hint="take hash or torch.")
    if noise == "torch" and directions != "gaussian":
        raise InputError(
            f"noise='torch' is of normal numbers, and directions={directions!r} are not.",
            hint="say directions='gaussian', too.",
        )


class ZOSGD(Descent):
    r"""Gradient descent along random directions, at the memory of inference.

    .. math::

        x \leftarrow (1 - \gamma \lambda) x - \frac{\gamma}{q} \sum_i \rho_i z_i, \qquad
        \rho_i = \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon}

    With :math:`\gamma` the learning rate, :math:`\lambda` the weight decay, :math:`z_i` the
    directions. With momentum :math:`\mu` the sum is replaced by :math:`m \leftarrow \mu m + \sum`,
    which takes a buffer of the parameters' size.

    Args:
        params: parameters, groups or named parameters. Those of fewer bits than float32 are put
            aside while they are perturbed, which takes their size in memory, and their updates are
            rounded at random.
        lr: :math:`\gamma`. It must shrink as the number of parameters grows: to about
            ``1 / tr(Hessian)``.
        eps: :math:`\epsilon`.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one, which saves a
            pass over them.
        noise: ``hash``, or ``torch`` for the very numbers that MeZO's published program draws, seed
            by seed; with ``directions="gaussian"``. It takes memory for the largest tensor.
        model: whose parameters these are. With it those of fewer bits than float32 are copied for
            one function at a time, not all at once.
        forward: ``inplace`` moves the parameters and calls the closure at each place. ``twin``
            calls it once for all places of a step and writes to none, with directions ``rank1`` or
            ``lowrank:r`` and a model; see `twin.TwinForward`.

    Raises:
        InputError: an option is outside its range.

    Source: Malladi et al., Fine-tuning language models with just forward passes (2023), algorithm
    1; it draws normal numbers.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ZOSGD([x], lr=0.1)
        >>> for _ in range(100):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-3)
        True
    """

    _options = ("noise",)
