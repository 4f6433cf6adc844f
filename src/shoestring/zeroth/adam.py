"""Adam on estimates of the gradient."""

from __future__ import annotations

import math

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros


class ZOAdam(ZerothOrder):
    r"""AdamW, fed with the estimate :math:`g = \frac{1}{q} \sum_i \rho_i z_i`.

    .. math::

        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,
        \quad x \leftarrow (1 - \gamma \lambda) x
        - \gamma \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon_v}

    It keeps two numbers for each weight. With directions of signs every entry of one estimate has
    the same square, so v tells weights apart only through q and through time.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`.
        eps: how far apart the loss is asked for.
        betas: :math:`\beta_1, \beta_2`.
        eps_root: :math:`\epsilon_v`, what is added to the root.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        weight_decay: :math:`\lambda`.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one.

    Raises:
        InputError: an option is outside its range.

    Source: Chen et al., ZO-AdaMM: zeroth-order adaptive momentum method for black-box optimization
    (2019), without its greatest second moment.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ZOAdam([x], lr=0.05)
        >>> for _ in range(300):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-2)
        True
    """

    _options = ("eps_root",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        eps: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps_root: float = 1e-8,
        directions: str = "rademacher",
        q: int = 1,
        two_sided: bool = True,
        weight_decay: float = 0.0,
        seed: int = 0,
        pending: bool = False,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"betas={betas} are no shares.", hint="take each from 0 to 1.")
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params,
            {**defaults, "betas": tuple(betas), "eps_root": eps_root},
            directions=directions,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=pending,
        )

    def _needs_gradient(self, group: Group) -> bool:
        return True

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        zeros = {name: wide_zeros(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return {"step": torch.zeros((), dtype=torch.float64), **zeros}

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        first, second = group["betas"]
        state = self.state[parameter]
        state["step"] += 1
        mean = self._buffer(parameter, "exp_avg").lerp_(gradient, 1 - first)
        square = self._buffer(parameter, "exp_avg_sq")
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        step = float(state["step"])
        root = math.sqrt(1 - second**step)
        update = torch.div(mean, square.sqrt().div_(root).add_(group["eps_root"]), out=gradient)
        self._add(parameter, group, update, -group["lr"] / (1 - first**step))
