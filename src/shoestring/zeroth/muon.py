"""Orthogonalised steps: for a matrix only the directions of its update count, not their lengths."""

from __future__ import annotations

import math

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.polar import METHODS, polar
from shoestring.zeroth.directions import as_matrix
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.sgd import Descent, check_momentum
from shoestring.zeroth.sign import sign


class ZOMuon(ZerothOrder):
    r"""Muon, fed with the estimate :math:`G = \frac{1}{q} \sum_i \rho_i Z_i` of a matrix.

    .. math::

        M \leftarrow \mu M + G, \qquad
        X \leftarrow (1 - \gamma \lambda) X - \gamma \, \mathrm{polar}(M)

    With :math:`\mathrm{polar}(U S V^\top) = U V^\top`. Vectors and numbers take
    :math:`x \leftarrow (1 - \gamma \lambda) x - \gamma \, \mathrm{sign}(m)`. Weights of more than
    two dimensions are matrices ``[out, the rest]``. Without momentum and with ``q=1`` the slope's
    size does not matter, and `SamplingMuon` does as well for less.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`, the length of each singular vector's part in a step.
        eps: how far apart the loss is asked for.
        momentum: :math:`\mu`; the buffer M takes the parameters' size.
        method: of the polar factor, as `kernels.polar.polar` takes it.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        weight_decay: :math:`\lambda`.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one.

    Raises:
        InputError: an option is outside its range.

    Source: Petrov et al., Leveraging coordinate momentum in SignSGD and Muon: memory-optimized
    zero-order (2025), arXiv 2506.04430, ZO-Muon; it has no momentum and draws normal numbers.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4, 3))
        >>> opt = ZOMuon([x], lr=0.01)
        >>> for _ in range(500):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 0.1)
        True
    """

    _options = ("method",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        eps: float = 1e-3,
        *,
        momentum: float = 0.9,
        method: str = "newton-schulz",
        directions: str = "rademacher",
        q: int = 1,
        two_sided: bool = True,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
    ) -> None:
        check_momentum(momentum)
        if method not in METHODS:
            raise InputError(
                f"there is no polar factor by {method!r}.",
                hint=f"take one of {', '.join(METHODS)}.",
            )
        defaults = {"lr": lr, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(
            params,
            {**defaults, "method": method},
            directions=directions,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
        )

    def _needs_gradient(self, group: Group) -> bool:
        return True

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        return {"momentum_buffer": wide_zeros(parameter)} if group["momentum"] else {}

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        if group["momentum"]:
            buffer = self._buffer(parameter, "momentum_buffer")
            gradient = buffer.mul_(group["momentum"]).add_(gradient)
        self._add(parameter, group, direction_of(gradient, group["method"]), -group["lr"])


def direction_of(gradient: torch.Tensor, method: str) -> torch.Tensor:
    """Return the polar factor of a matrix, and the signs of a vector.

    Args:
        gradient: of any shape.
        method: of the polar factor.
    """
    if gradient.dim() < 2:
        return gradient.sign()
    return polar(as_matrix(gradient), method=method).view(gradient.shape)


class SamplingMuon(Descent):
    r"""Steps along matrices that are orthogonal as they are drawn: Muon without polar factors.

    .. math::

        X \leftarrow (1 - \gamma \lambda) X
        - \frac{\gamma}{q} \sum_i \mathrm{sign}(\rho_i) E_i, \qquad E_i^\top E_i = I

    (or :math:`E_i E_i^\top = I`, whichever side is shorter). Vectors and numbers take signs in
    place of :math:`E`. Nothing is kept from step to step. The loss is asked for at
    :math:`X \pm \epsilon \sqrt{N} E`, N the longer side, so that a weight moves by about
    :math:`\epsilon` whatever the shape.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`.
        eps: :math:`\epsilon`.
        directions: ``semiortho:`` and how matrices are drawn, as `kernels.semiorthogonal` lists.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        momentum: :math:`\mu`; the sum is replaced by :math:`M \leftarrow \mu M + \sum`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one.

    Raises:
        InputError: an option is outside its range.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4, 3))
        >>> opt = SamplingMuon([x], lr=0.01)
        >>> for _ in range(1000):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 0.1)
        True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        eps: float = 1e-3,
        *,
        directions: str = "semiortho:hadamard",
        q: int = 1,
        two_sided: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
    ) -> None:
        if not directions.startswith("semiortho:"):
            raise InputError(
                f"directions={directions!r} are not orthogonal.",
                hint="take semiortho:hadamard, or ZOSign for other directions.",
            )
        super().__init__(
            params,
            lr,
            eps,
            directions=directions,
            q=q,
            two_sided=two_sided,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
            pending=pending,
        )

    def _weight(self, delta: float, parameter: torch.Tensor) -> float:
        longer = max(as_matrix(parameter).shape) if parameter.dim() > 1 else 1
        return sign(delta) / math.sqrt(longer)
