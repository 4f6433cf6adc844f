"""Zeroth-order descent with a curvature for each weight, learnt from a third evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.asking import Asking
from shoestring.zeroth.directions import CHUNK, Direction
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.numbers import FARTHEST, check_kind, draw, in_parts, rounded_
from shoestring.zeroth.places import DIRECTION, ROUNDING
from shoestring.zeroth.sgd import check_momentum

LEAST: Final = 1e-7
"""Curvature that none falls below, though a loss have none. What moves a weight by more than 2^16
times eps cannot be taken back without rounding."""


class HiZOO(ZerothOrder):
    r"""Descent whose directions and steps are scaled by a diagonal estimate of the curvature.

    .. math::

        \rho_i = \frac{f_i^+ - f_i^-}{2 \epsilon}, \quad
        c_i = \frac{|f_i^+ + f_i^- - 2 f|}{2 \epsilon^2}, \quad
        f_i^\pm = f(x \pm \epsilon z_i / \sqrt{h})

        h \leftarrow (1 - \alpha) h + \frac{\alpha}{q} \sum_i c_i \, h \, z_i^2, \qquad
        x \leftarrow (1 - \gamma \lambda) x - \frac{\gamma}{q} \sum_i \rho_i z_i / \sqrt{h}

    With :math:`z_i` of normal numbers, :math:`f` the loss at the parameters, h one at first,
    :math:`\gamma` the learning rate, :math:`\lambda` the weight decay. At :math:`\alpha = 0` it is
    `ZOSGD`. It asks for the loss ``2 q + 1`` times, and keeps a number for each weight. With
    momentum :math:`\mu`, which the paper does not have, what is subtracted from x is a sum
    :math:`m \leftarrow \mu m + \sum`, at another number for each weight.

    This is the rule of the published code, in whose update h is the new one, and which asks for a
    fourth loss only to report it. The paper writes :math:`\Sigma^{-1}` for h, and the diagonal of
    :math:`z z^\top` for :math:`z^2`. The unbiased estimate of the Hessian has :math:`z^2 - 1` in
    that place. Without the 1 what is added is, in the mean and on a convex quadratic of diagonal
    :math:`d_j`, :math:`d_j + h_j T / 2` with :math:`T = \sum_j d_j / h_j`. So all of h grows within
    :math:`1 / \alpha` steps, until T is nearly 2, and the steps shrink with it; to tell the weights
    apart takes many times longer, about :math:`n / (2 \alpha)` steps for n weights, and an
    :math:`\alpha` well below :math:`1 / n`, or else noise covers it.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`. The default suits some hundred weights of curvature about 1, and should
            shrink as ``1 / tr(Hessian)`` does: the published runs take 1e-6 for models of billions.
        eps: :math:`\epsilon`.
        alpha: :math:`\alpha`, from 0 up to 1; the published runs take 1e-10 to 1e-6.
        directions: ``gaussian``; or ``rademacher``, whose squares are all 1, so that all weights
            of a tensor keep one curvature.
        q: directions of a step.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.

    Raises:
        InputError: an option is outside its range.

    Source: Zhao et al., Second-order fine-tuning without pain for LLMs: a Hessian informed
    zeroth-order optimizer (ICLR 2025), arXiv 2402.15173, algorithm 1.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = HiZOO([x], lr=0.1)
        >>> for _ in range(200):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-3)
        True
    """

    _common = ("directions", "q", "seed")
    _options = ("alpha",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        eps: float = 1e-3,
        *,
        alpha: float = 1e-6,
        directions: str = "gaussian",
        q: int = 1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        check_kind(directions)
        check_momentum(momentum)
        if not 0 <= alpha < 1:
            raise InputError(f"alpha={alpha} is no share.", hint="take one from 0 up to 1.")
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(
            params,
            {**defaults, "alpha": alpha},
            directions=directions,
            q=q,
            two_sided=True,
            seed=seed,
            pending=False,  # the loss at the parameters themselves comes first
        )

    def _probe(self, asking: Asking) -> Sequence[float]:
        sides = asking.sides(self._shared["q"])
        here = asking.here()  # last: the first move may settle the parameters
        slopes = [(ahead - behind) / 2 for ahead, behind in sides]
        return [*slopes, *(ahead + behind - 2 * here for ahead, behind in sides)]

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        key = self._drawn_by(draw, index)
        directions = self._shared["directions"]
        return [
            Scaled(directions, stream_key(key, k), self._buffer(tensor, "curvature"))
            for k, tensor in enumerate(tensors)
        ]

    def _drawn_by(self, draw: int, index: int) -> int:
        return stream_key(self._shared["seed"], DIRECTION, draw, index)

    def _needs_gradient(self, group: Group) -> bool:
        return True

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        curvature = wide_zeros(parameter).add_(1)
        if not group["momentum"]:
            return {"curvature": curvature}
        return {"curvature": curvature, "momentum_buffer": wide_zeros(parameter)}

    def _update_along(self, deltas: Sequence[float]) -> None:
        count, now = self._shared["q"], self._shared["draws"]
        for k, (parameter, group) in enumerate(self._moved()):
            radius = float(self.state[parameter]["radius"])
            slopes = [self._weight(delta, parameter) / count for delta in deltas[:count]]
            bends = [abs(bend) / (2 * radius**2) / count for bend in deltas[count:]]
            self._rounding = stream_key(self._shared["seed"], ROUNDING, now, k)
            keys = [stream_key(self._drawn_by(now, index), k) for index in range(count)]
            self._update_scaled(parameter, group, keys, slopes, bends)

    def _update_scaled(
        self,
        parameter: torch.Tensor,
        group: Group,
        keys: Sequence[int],
        slopes: Sequence[float],
        bends: Sequence[float],
    ) -> None:
        """Learn the curvature and make the step, a part of the tensor at a time.

        Args:
            parameter: changed in place.
            group: its options.
            keys: of the directions.
            slopes: along each, over their count.
            bends: half the second derivative along each, over their count.
        """
        alpha, scale = group["alpha"], -group["lr"]
        decay = 1.0 - group["lr"] * group["weight_decay"]
        curvature = self._buffer(parameter, "curvature").view(-1)
        kind, count, momentum = self._shared["directions"], parameter.numel(), group["momentum"]
        buffer = self._buffer(parameter, "momentum_buffer").view(-1) if momentum else None
        drawn = zip(*(draw(kind, key, count, parameter) for key in keys), strict=True)

        def change(start: int, part: torch.Tensor) -> None:
            numbers = next(drawn)
            own = curvature[start : start + CHUNK]
            growth = torch.full_like(own, 1 - alpha)
            gradient = torch.zeros_like(own)
            for z, slope, bend in zip(numbers, slopes, bends, strict=True):
                growth.addcmul_(z, z, value=alpha * bend)
                gradient.add_(z, alpha=slope)
            gradient.div_(own.mul_(growth).clamp_(min=LEAST).sqrt())
            if buffer is not None:
                gradient = buffer[start : start + CHUNK].mul_(momentum).add_(gradient)
            key = stream_key(self._rounding, start // CHUNK)
            add_rounded_(part, gradient, scale=scale, decay=decay, key=key)

        in_parts(parameter, change)
        self._look_at_reach(parameter, group, curvature)

    def _look_at_reach(
        self, parameter: torch.Tensor, group: Group, curvature: torch.Tensor
    ) -> None:
        """Have the tensor settled anew, where its entries may be moved farther by now."""
        state = self.state[parameter]
        if 2 * group["eps"] * _reach(self._shared["directions"], curvature) > state["settled"]:
            state["eps"] = 0.0  # what it is settled for is no eps there is


class Scaled(Direction):
    """Independent entries over the root of a curvature, which stays as it is meanwhile.

    Args:
        directions: what the entries are.
        key: of the entries.
        curvature: for each of them, above 0; in one piece.
    """

    def __init__(self, directions: str, key: int, curvature: torch.Tensor) -> None:
        self.directions, self.key, self.curvature = directions, key, curvature
        self.unit, self.reach = False, _reach(directions, curvature)

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        self.displace(tensor, scale, 0.0)

    def displace(self, tensor: torch.Tensor, scale: float, spacing: float) -> None:
        """Add a multiple of it, rounded to a grid; see `Direction.displace`."""
        curvature = self.curvature.view(-1)
        drawn = draw(self.directions, self.key, tensor.numel(), tensor)

        def change(start: int, part: torch.Tensor) -> None:
            root = curvature[start : start + CHUNK].sqrt()
            part.add_(rounded_(next(drawn).mul_(scale).div_(root), spacing))

        in_parts(tensor, change)


def _reach(directions: str, curvature: torch.Tensor) -> float:
    """Return the largest magnitude of an entry over the root of its curvature."""
    farthest = FARTHEST if directions == "gaussian" else 1.0
    return farthest / math.sqrt(float(curvature.min()))
