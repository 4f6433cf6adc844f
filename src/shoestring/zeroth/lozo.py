"""Low-rank zeroth-order descent, whose directions share one factor for a while."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.directions import Direction, as_matrix
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.numbers import (
    Product,
    check_interval,
    check_kind,
    draw_matrix,
    plain,
    wide,
)
from shoestring.zeroth.places import DIRECTION
from shoestring.zeroth.sgd import check_momentum

LASTING: Final = 100
"""What the key of V is for."""

_FARTHEST: Final = 33.0
"""Magnitude beyond which lies one product of two normal numbers in 1e15; sums of r such, over
``sqrt(r)``, are nearer."""


class LOZO(ZerothOrder):
    r"""Descent along matrices of low rank, which stay in one subspace for some steps.

    .. math::

        Z_i = \frac{U_i V^\top}{\sqrt r}, \qquad
        X \leftarrow (1 - \gamma \lambda) X - \frac{\gamma}{q} \sum_i \rho_i Z_i, \qquad
        \rho_i = \frac{f(X + \epsilon Z_i) - f(X - \epsilon Z_i)}{2 \epsilon}

    For a weight :math:`X` of m rows and n columns :math:`U_i` is m x r and new for each direction,
    and :math:`V` is n x r and new every :math:`\nu` steps; :math:`\gamma` is the learning rate and
    :math:`\lambda` the weight decay. Vectors and numbers take independent entries. Weights of more
    than two dimensions are matrices ``[out, the rest]``.

    With :math:`1 / \sqrt r` in both places :math:`E[z z^\top] = I` over the draws of both factors,
    so the estimate is unbiased. The paper has :math:`1 / r` in the estimate and moves the weights
    by :math:`\epsilon U V^\top`: the same steps at an :math:`\epsilon` that is :math:`\sqrt r`
    times larger here. The published code leaves :math:`1 / r` out, so its learning rate is to be
    multiplied by r. While :math:`V` lasts, steps in its subspace are n / r times as long as those
    of `ZOSGD` in the mean, and none are made outside of it.

    With momentum :math:`\mu`, LOZO-M keeps an average of the factor :math:`U` only:

    .. math::

        N \leftarrow \mu N + \frac{1 - \mu}{q \sqrt r} \sum_i \rho_i U_i, \qquad
        X \leftarrow (1 - \gamma \lambda) X - \gamma N V^\top

    Where :math:`V` is replaced by :math:`V'`, :math:`N` becomes :math:`N V^\top V' / n`: about
    what of :math:`N V^\top` the new subspace can tell. Vectors keep an average of their estimates.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`. The default suits some hundred weights of curvature about 1, and should
            shrink as ``1 / tr(Hessian)`` does: the paper takes 1e-7 to 1e-6 for models of billions.
        eps: :math:`\epsilon`.
        rank: r.
        interval: :math:`\nu`, in steps.
        directions: what the factors' entries are, ``gaussian`` as in the paper, or ``rademacher``
            for signs, whose products vary less.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        momentum: :math:`\mu`; the buffer N takes m r numbers.
        weight_decay: :math:`\lambda`.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one.

    Raises:
        InputError: an option is outside its range.

    Source: Chen et al., Enhancing zeroth-order fine-tuning for language models with low-rank
    structures (ICLR 2025), arXiv 2410.07698, algorithms 1 and 2.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4, 3))
        >>> opt = LOZO([x], lr=0.01)
        >>> for _ in range(1000):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-2)
        True
    """

    _options = ("rank", "interval")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        eps: float = 1e-3,
        *,
        rank: int = 2,
        interval: int = 50,
        directions: str = "gaussian",
        q: int = 1,
        two_sided: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
    ) -> None:
        check_momentum(momentum)
        check_kind(directions)
        check_interval(interval)
        if rank < 1:
            raise InputError(f"rank={rank} leaves no direction.", hint="take 1 or more.")
        defaults = {"lr": lr, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(
            params,
            {**defaults, "rank": rank, "interval": interval},
            directions=directions,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
        )

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        key = stream_key(self._shared["seed"], DIRECTION, draw, index)
        return [
            self._direction(tensor, group, stream_key(key, k), (draw // group["interval"], k))
            for k, (tensor, group) in enumerate(self._moved())
        ]

    def _direction(
        self, tensor: torch.Tensor, group: Group, key: int, basis: tuple[int, int]
    ) -> Direction:
        directions = self._shared["directions"]
        if tensor.dim() < 2:
            return plain(directions, key)
        return Lasting(directions, key, self._lasting(basis), group["rank"], basis)

    def _lasting(self, basis: tuple[int, int]) -> int:
        """Return the key of a V.

        Args:
            basis: how many there were before, and which of the tensors it is for.
        """
        return stream_key(self._shared["seed"], LASTING, *basis)

    def _needs_gradient(self, group: Group) -> bool:
        return bool(group["momentum"])

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        if not group["momentum"]:
            return {}
        if parameter.dim() < 2:
            return {"momentum_buffer": wide_zeros(parameter)}
        zeros = torch.zeros(
            (len(parameter), group["rank"]), dtype=wide(parameter.dtype), device=parameter.device
        )
        return {"momentum_buffer": zeros, "basis": torch.zeros(2, dtype=torch.int64)}

    def _update_one(
        self, parameter: torch.Tensor, group: Group, terms: Sequence[tuple[Direction, float]]
    ) -> None:
        lasting = [(z, weight) for z, weight in terms if isinstance(z, Lasting)]
        if not (group["momentum"] and lasting):
            super()._update_one(parameter, group, terms)
            return
        matrix = as_matrix(parameter)
        buffer = self._averaged(parameter, group)
        self._carry_over(parameter, buffer, lasting[0][0])
        buffer.mul_(group["momentum"])
        for z, weight in lasting:
            scale = (1 - group["momentum"]) * weight / math.sqrt(z.rank)
            buffer.add_(z.left(matrix), alpha=scale)
        update = (buffer @ lasting[0][0].right(matrix).T).view(parameter.shape)
        self._add(parameter, group, update, -group["lr"])

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        if group["momentum"]:
            gradient = self._averaged(parameter, group).lerp_(gradient, 1 - group["momentum"])
        self._add(parameter, group, gradient, -group["lr"])

    def _averaged(self, parameter: torch.Tensor, group: Group) -> torch.Tensor:
        if "momentum_buffer" not in self.state[parameter]:  # a scheduler has turned it on
            self.state[parameter].update(self._buffers(parameter, group))
        return self._buffer(parameter, "momentum_buffer")

    def _carry_over(self, parameter: torch.Tensor, buffer: torch.Tensor, to: Lasting) -> None:
        """Express the average in the V there is now, where it is of another one."""
        basis = self.state[parameter]["basis"]
        interval, index = basis.tolist()
        if (interval, index) == to.basis:
            return
        basis.copy_(torch.tensor(to.basis))
        key = self._lasting((interval, index))
        before = Lasting(to.directions, to.key, key, to.rank, (interval, index))
        matrix = as_matrix(parameter)
        old, new = before.right(matrix), to.right(matrix)
        buffer.copy_(buffer @ (old.T @ new) / len(new))


class Lasting(Product):
    """``U V^T / sqrt(r)`` with a V that others share.

    Args:
        directions: what the entries are.
        key: of U.
        lasting: key of V.
        rank: r.
        basis: which V it is.
    """

    def __init__(
        self, directions: str, key: int, lasting: int, rank: int, basis: tuple[int, int]
    ) -> None:
        super().__init__(key, rank)
        self.directions, self.lasting, self.basis = directions, lasting, basis
        if directions == "gaussian":
            self.unit, self.reach = False, _FARTHEST

    def left(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return U.

        Args:
            matrix: tells its size, dtype and device.
        """
        return draw_matrix(self.directions, self.key, (matrix.size(0), self.rank), matrix)

    def right(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return V.

        Args:
            matrix: tells its size, dtype and device.
        """
        return draw_matrix(self.directions, self.lasting, (matrix.size(1), self.rank), matrix)

    def factors(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both factors; see `LowRank.factors`."""
        return self.left(matrix), self.right(matrix)
