"""Orthogonalised steps within random subspaces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.polar import METHODS, polar
from shoestring.kernels.semiorthogonal import semiorthogonal
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.directions import Direction, Normal, as_matrix
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.numbers import FARTHEST, Product, check_interval, draw_matrix, wide
from shoestring.zeroth.places import DIRECTION
from shoestring.zeroth.sgd import check_momentum

NORMAL: Final = "gaussian"

SUBSPACE: Final = 101
"""What the key of P is for."""


class SubspaceZOMuon(ZerothOrder):
    r"""Muon on estimates of the gradient within a random subspace, which lasts for some steps.

    .. math::

        G = \frac{1}{q} \sum_i \rho_i \Psi_i, \qquad
        X \leftarrow (1 - \gamma \lambda) X - \gamma P \, \mathrm{polar}(G), \qquad
        \rho_i = \frac{f(X + \epsilon \sqrt{m / r} P \Psi_i) - f(X)}{\epsilon}

    For a weight :math:`X` of m rows and n columns :math:`P` is m x r with orthonormal columns, and
    new every :math:`\nu` steps; :math:`\Psi_i` is r x n of normal numbers, and
    :math:`\mathrm{polar}(U S V^\top) = U V^\top`; :math:`\gamma` is the learning rate and
    :math:`\lambda` the weight decay. Where a weight has fewer than r rows, r is their number.
    Vectors and numbers descend along their estimates, at a rate of their own. Weights of more than
    two dimensions are matrices ``[out, the rest]``.

    With :math:`\sqrt{m / r}` a weight is moved by about :math:`\epsilon` whatever the rank, and
    :math:`E[z z^\top] = I`; the paper moves the weights by :math:`\epsilon P \Psi`. The size of
    :math:`G` does not matter to a matrix; but with ``q=1`` its slope says no more than which way to
    go along the polar factor of :math:`\Psi`.

    With momentum :math:`\mu`, which the paper does not have, :math:`M \leftarrow \mu M + G` of r n
    numbers takes the place of :math:`G`; where :math:`P` is replaced by :math:`P'`, :math:`M`
    becomes :math:`P'^\top P M`. Vectors keep such a sum of their estimates.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`, the length of each singular vector's part in a step. The published runs
            take 1e-2 for models of billions; the default suits some hundred weights that are a unit
            away from where they belong.
        eps: :math:`\epsilon`.
        rank: r.
        interval: :math:`\nu`, in steps.
        vector_ratio: what the learning rate is multiplied with for vectors and numbers. The default
            suits small problems; the published code takes 1e-7 for them beside 1e-2, a ratio of
            1e-5, for models of billions.
        method: of the polar factor, as `kernels.polar.polar` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or as in the
            paper at the parameters and on one side, ``q + 1`` times.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.

    Raises:
        InputError: an option is outside its range.

    Source: Lang et al., Powering up zeroth-order training via subspace gradient orthogonalization
    (2026), arXiv 2602.17155, ZO-Muon.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4, 3))
        >>> opt = SubspaceZOMuon([x], lr=0.02, rank=2)
        >>> for _ in range(1000):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 0.1)
        True
    """

    _common = ("q", "two_sided", "seed")
    _options = ("rank", "interval", "vector_ratio", "method")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 3e-2,
        eps: float = 1e-3,
        *,
        rank: int = 64,
        interval: int = 100,
        vector_ratio: float = 0.1,
        method: str = "newton-schulz",
        q: int = 4,
        two_sided: bool = False,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        check_momentum(momentum)
        check_interval(interval)
        if rank < 1:
            raise InputError(f"rank={rank} leaves no direction.", hint="take 1 or more.")
        if not 0 <= vector_ratio < math.inf:
            raise InputError(f"vector_ratio={vector_ratio} is no factor.", hint="take 0 or more.")
        if method not in METHODS:
            raise InputError(
                f"there is no polar factor by {method!r}.",
                hint=f"take one of {', '.join(METHODS)}.",
            )
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        own = {"rank": rank, "interval": interval, "vector_ratio": vector_ratio, "method": method}
        super().__init__(
            params,
            {**defaults, **own},
            directions=NORMAL,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=False,  # it would save no pass: a step needs all estimates first
        )

    def _begin(self) -> None:
        super()._begin()
        self._spans: dict[int, tuple[tuple[int, int], torch.Tensor]] = {}

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        key = stream_key(self._shared["seed"], DIRECTION, draw, index)
        return [
            Within(
                stream_key(key, k), self._held(tensor, group, draw, k), draw // group["interval"], k
            )
            if tensor.dim() > 1
            else Normal(stream_key(key, k))
            for k, (tensor, group) in enumerate(self._moved())
        ]

    def _held(self, tensor: torch.Tensor, group: Group, draw: int, k: int) -> torch.Tensor:
        """Return P, which is held while it lasts; a checkpoint needs no more than its key."""
        basis = (draw // group["interval"], k)
        size = (len(tensor), min(group["rank"], len(tensor)))
        held = self._spans.get(k)
        if held is None or held[0] != basis or held[1].shape != size:
            self._spans[k] = basis, self._spanning(tensor, size, basis)
        return self._spans[k][1]

    def _spanning(
        self, tensor: torch.Tensor, size: tuple[int, int], basis: tuple[int, int]
    ) -> torch.Tensor:
        key = stream_key(self._shared["seed"], SUBSPACE, *basis)
        return semiorthogonal("haar", *size, key).dense(wide(tensor.dtype), tensor.device)

    def _needs_gradient(self, group: Group) -> bool:
        return True

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        if not group["momentum"]:
            return {}
        if parameter.dim() < 2:
            return {"momentum_buffer": wide_zeros(parameter)}
        matrix = as_matrix(parameter)
        size = (min(group["rank"], matrix.size(0)), matrix.size(1))
        zeros = torch.zeros(size, dtype=wide(parameter.dtype), device=parameter.device)
        return {"momentum_buffer": zeros, "basis": torch.zeros(2, dtype=torch.int64)}

    def _update_one(
        self, parameter: torch.Tensor, group: Group, terms: Sequence[tuple[Direction, float]]
    ) -> None:
        within = [(z, weight) for z, weight in terms if isinstance(z, Within)]
        if not within:
            super()._update_one(parameter, group, terms)
            return
        matrix, (first, _) = as_matrix(parameter), within[0]
        total = torch.stack([z.inner(matrix) * weight for z, weight in within]).sum(0)
        if group["momentum"]:
            self._carry_over(parameter, self._kept(parameter, group), first)
            total = self._kept(parameter, group).mul_(group["momentum"]).add_(total)
        update = first.spanning.to(total) @ polar(total, method=group["method"])
        self._add(parameter, group, update.view(parameter.shape), -group["lr"])

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        if group["momentum"]:
            gradient = self._kept(parameter, group).mul_(group["momentum"]).add_(gradient)
        self._add(parameter, group, gradient, -group["lr"] * group["vector_ratio"])

    def _kept(self, parameter: torch.Tensor, group: Group) -> torch.Tensor:
        if "momentum_buffer" not in self.state[parameter]:  # a scheduler has turned it on
            self.state[parameter].update(self._buffers(parameter, group))
        return self._buffer(parameter, "momentum_buffer")

    def _carry_over(self, parameter: torch.Tensor, buffer: torch.Tensor, to: Within) -> None:
        """Express the sum in the P there is now, where it is of another one."""
        basis = self.state[parameter]["basis"]
        interval, k = basis.tolist()
        if (interval, k) == to.basis:
            return
        basis.copy_(torch.tensor(to.basis))
        rows, rank = to.spanning.shape
        before = self._spanning(parameter, (rows, rank), (interval, k))
        buffer.copy_(to.spanning.to(buffer).T @ (before.to(buffer) @ buffer))


class Within(Product):
    """``sqrt(m / r) P Psi``, in the subspace that the columns of P span.

    Args:
        key: of Psi.
        spanning: P, of m rows and r columns.
        interval: how many P there were before.
        which: of the tensors it is for.
    """

    def __init__(self, key: int, spanning: torch.Tensor, interval: int, which: int) -> None:
        rows, rank = spanning.shape
        super().__init__(key, rank)
        self.spanning, self.basis = spanning, (interval, which)
        # No row of P is longer than 1, so that no entry of P Psi varies more than one of Psi.
        self.unit, self.reach = False, FARTHEST * math.sqrt(rows / rank)

    def inner(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return Psi.

        Args:
            matrix: tells its size, dtype and device.
        """
        return draw_matrix(NORMAL, self.key, (self.rank, matrix.size(1)), matrix)

    def factors(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``sqrt(m) P`` and the transpose of Psi; see `LowRank.factors`."""
        return self.spanning.to(matrix) * math.sqrt(matrix.size(0)), self.inner(matrix).T
