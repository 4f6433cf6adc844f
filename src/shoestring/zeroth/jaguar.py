"""JAGUAR: a momentum that keeps, for each coordinate, what was last seen of it.

A step asks along a few entries of all weights, and only these entries of the momentum change. The
others keep what was learnt of them before; so every weight moves in every step.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.polar import METHODS
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.directions import Coordinates, Direction, as_matrix, choose, family
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.muon import direction_of
from shoestring.zeroth.numbers import in_parts
from shoestring.zeroth.places import DIRECTION, HALF

COORDS: Final = 128
"""Entries that are drawn where nothing else is said."""

REFERENCE: Final = "reference"
"""The block of the published code."""

PART: Final = 10
"""One in so many rows, and one in so many columns, are in that block."""


class _Jaguar(ZerothOrder, abc.ABC):
    """What both rules share: which entries are drawn, and what is kept of them."""

    _common = ("q", "two_sided", "seed")
    _options: ClassVar[tuple[str, ...]] = ("coords", "block")

    def __init__(
        self,
        params: ParamsT,
        defaults: Group,
        *,
        coords: int | None,
        block: str | None,
        q: int,
        two_sided: bool,
        seed: int,
        pending: bool,
    ) -> None:
        beta = defaults["momentum"]
        if not 0 <= beta < 1:
            raise InputError(f"beta={beta} is no share.", hint="take one from 0 up to 1.")
        if block is not None:
            _check_block(coords, block)
        elif coords is None:
            coords = COORDS
        elif coords < 1:
            raise InputError(f"coords={coords} draws nothing.", hint="take 1 or more.")
        super().__init__(
            params,
            {**defaults, "coords": coords, "block": block},
            directions=f"coord:{coords or 1}",
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
        )

    @abc.abstractmethod
    def _step_along(self, parameter: torch.Tensor, group: Group, mean: torch.Tensor) -> None:
        """Change a parameter as its momentum says.

        Args:
            parameter: changed in place.
            group: its options.
            mean: the momentum; not to be changed.
        """

    def _needs_gradient(self, group: Group) -> bool:
        return True

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        return {"momentum_buffer": wide_zeros(parameter)}

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        key = stream_key(self._shared["seed"], DIRECTION, draw, index)
        if self._shared["block"]:
            return [_block(tensor, stream_key(key, k)) for k, tensor in enumerate(tensors)]
        drawn = family(f"coord:{self._shared['coords']}")(tensors, key)
        return [Coordinates(z.places, z.values.sign()) for z in drawn if isinstance(z, Coordinates)]

    def _update_one(
        self, parameter: torch.Tensor, group: Group, terms: Sequence[tuple[Direction, float]]
    ) -> None:
        mean = self._buffer(parameter, "momentum_buffer")
        rows = mean.view(-1)
        for direction, weight in terms:
            assert isinstance(direction, Coordinates)
            slope = weight * len(terms)  # each direction is a visit of its own, and no share of one
            places = direction.places.to(rows.device)
            seen = rows[places].mul_(group["momentum"])
            seen.add_(direction.values.to(rows), alpha=(1 - group["momentum"]) * slope)
            rows.index_copy_(0, places, seen)
        self._step_along(parameter, group, mean)


class JaguarSign(_Jaguar):
    r"""Sign descent on a momentum that remembers each coordinate.

    .. math::

        m_S \leftarrow \beta m_S + (1 - \beta) \rho z_S, \qquad
        x \leftarrow (1 - \gamma \lambda) x - \gamma \, \mathrm{sign}(m), \qquad
        \rho = \frac{f(x + \tau z) - f(x - \tau z)}{2 \tau}

    S are the entries that are drawn, :math:`z` is 1 or -1 on them and 0 elsewhere. Entries of m
    that are not drawn stay; those never drawn are 0, and their weights stay too.

    ``coords=1`` is the paper's: one entry of all d, and :math:`\rho z_i` is its derivative.
    ``coords=k`` draws k entries with signs of their own, so that :math:`E(\rho z_i)` is still the
    derivative, with the squares of the k - 1 others as variance. Nothing is scaled by d / k: m
    estimates the gradient itself.

    ``block="reference"`` draws as the published code does: of each tensor by itself ``max(1, n //
    10)`` entries of a vector, and the crossings of ``max(1, rows // 10)`` rows with ``max(1, cols
    // 10)`` columns of a matrix, all with sign 1. So :math:`\rho` is the sum of the derivatives of
    all drawn entries of all tensors, and each of them takes it for its own: that is biased, and
    cannot tell apart what is drawn together. The published code sets its momentum to zero before
    each step, and moves the drawn entries alone; here m is kept, and moves all, as in the paper.

    Args:
        params: parameters, groups or named parameters. Those of fewer bits than float32 are put
            aside while they are perturbed.
        lr: :math:`\gamma`, the change of each weight in a step.
        eps: :math:`\tau`. Few entries move, so it can be larger than along all; below float32 it
            must be more than half the spacing of floats at a weight, or nothing is seen.
        beta: :math:`\beta`, what the last visits count; in the groups it is ``momentum``.
        coords: k; None for 128, or all where there are fewer.
        block: ``"reference"`` for the published code's blocks.
        q: draws of a step, one after the other at the same weights, each of which changes m.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        weight_decay: :math:`\lambda`.
        seed: of the draws.
        pending: whether the parameters stay perturbed after a step, for the next one: the entries
            that it draws.

    Raises:
        InputError: an option is outside its range, or without effect.

    Source: Petrov et al., Leveraging coordinate momentum in SignSGD and Muon: memory-optimized
    zero-order (2025), arXiv 2506.04430, algorithm 1.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = JaguarSign([x], lr=0.01, coords=2)
        >>> for _ in range(500):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 0.1)
        True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        eps: float = 1e-2,
        *,
        beta: float = 0.7,
        coords: int | None = None,
        block: str | None = None,
        q: int = 1,
        two_sided: bool = True,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "eps": eps, "weight_decay": weight_decay, "momentum": beta},
            coords=coords,
            block=block,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
        )

    def _step_along(self, parameter: torch.Tensor, group: Group, mean: torch.Tensor) -> None:
        if parameter.dtype in HALF:
            self._add(parameter, group, mean.sign(), -group["lr"])
            return
        rows, decay = mean.view(-1), 1.0 - group["lr"] * group["weight_decay"]

        def change(start: int, part: torch.Tensor) -> None:
            signs = rows[start : start + len(part)].sign()
            part.mul_(decay).add_(signs, alpha=-group["lr"])

        in_parts(parameter, change)  # signs of all would take as much as the parameter


class JaguarMuon(_Jaguar):
    r"""Muon on a momentum that remembers each coordinate.

    .. math::

        M_S \leftarrow \beta M_S + (1 - \beta) \rho Z_S, \qquad
        X \leftarrow (1 - \gamma \lambda) X - \gamma \, \mathrm{polar}(M)

    With :math:`\mathrm{polar}(U S V^\top) = U V^\top` on the singular vectors that M has; M has few
    until many entries were drawn. Vectors and numbers step as in `JaguarSign`, which also says what
    is drawn. Weights of more than two dimensions are matrices ``[out, the rest]``.

    Args:
        params: parameters, groups or named parameters, as for `JaguarSign`.
        lr: :math:`\gamma`, the length of each singular vector's part in a step.
        eps: :math:`\tau`.
        beta: :math:`\beta`, what the last visits count; in the groups it is ``momentum``.
        coords: entries that are drawn; None for 128, or all where there are fewer.
        block: ``"reference"`` for the published code's blocks.
        method: of the polar factor, as `kernels.polar.polar` takes it.
        q: draws of a step, each of which changes M.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        weight_decay: :math:`\lambda`.
        seed: of the draws.
        pending: whether the parameters stay perturbed after a step, for the next one.

    Raises:
        InputError: an option is outside its range, or without effect.

    Source: Petrov et al., Leveraging coordinate momentum in SignSGD and Muon: memory-optimized
    zero-order (2025), arXiv 2506.04430, algorithm 2.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4, 3))
        >>> opt = JaguarMuon([x], lr=0.01, coords=4)
        >>> for _ in range(500):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 0.1)
        True
    """

    _options = ("coords", "block", "method")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 5e-3,
        eps: float = 1e-2,
        *,
        beta: float = 0.7,
        coords: int | None = None,
        block: str | None = None,
        method: str = "newton-schulz",
        q: int = 1,
        two_sided: bool = True,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
    ) -> None:
        if method not in METHODS:
            raise InputError(
                f"there is no polar factor by {method!r}.",
                hint=f"take one of {', '.join(METHODS)}.",
            )
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "momentum": beta}
        super().__init__(
            params,
            {**defaults, "method": method},
            coords=coords,
            block=block,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
        )

    def _step_along(self, parameter: torch.Tensor, group: Group, mean: torch.Tensor) -> None:
        self._add(parameter, group, direction_of(mean, group["method"]), -group["lr"])


def _check_block(coords: int | None, block: str) -> None:
    if block != REFERENCE:
        raise InputError(f"there is no block called {block!r}.", hint=f"take {REFERENCE!r}.")
    if coords is not None:
        raise InputError(
            f"coords={coords} has no effect beside a block.", hint="give the one or the other."
        )


def _block(tensor: torch.Tensor, key: int) -> Coordinates:
    """Draw a block of a tensor, as the published code does, but of any number of dimensions."""
    if tensor.dim() < 2:
        places = choose(tensor.numel(), max(1, tensor.numel() // PART), key)
    else:
        rows, cols = as_matrix(tensor).shape
        down, across = (
            choose(size, max(1, size // PART), stream_key(key, side))
            for side, size in enumerate((rows, cols))
        )
        places = (down[:, None] * cols + across).flatten()
    return Coordinates(places, torch.ones(len(places)))
