"""Steps of one length along random directions."""

from __future__ import annotations

import math

import torch

from shoestring.zeroth.sgd import Descent


def sign(number: float) -> float:
    """Return 1, -1, or 0 for zero.

    Args:
        number: any that is finite.
    """
    return math.copysign(1.0, number) if number else 0.0


class ZOSign(Descent):
    r"""Steps of one length along random directions: only the sign of each slope counts.

    .. math::

        x \leftarrow (1 - \gamma \lambda) x - \frac{\gamma}{q} \sum_i \mathrm{sign}(\rho_i) z_i

    With :math:`\gamma` the learning rate, :math:`\lambda` the weight decay and :math:`\rho_i` the
    slope along direction :math:`z_i`; along no slope there is no step. So the scale of the loss
    does not matter, and a single outlying batch does no more harm than another.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`, the change of each weight in a step.
        eps: how far apart the loss is asked for.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        momentum: :math:`\mu`; the sum is replaced by :math:`m \leftarrow \mu m + \sum`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.
        pending: whether the parameters stay perturbed after a step, for the next one.
        noise: as for `ZOSGD`.
        model: as for `ZOSGD`.
        forward: as for `ZOSGD`.

    Raises:
        InputError: an option is outside its range.

    Source: Zhang et al., Revisiting zeroth-order optimization for memory-efficient LLM fine-tuning:
    a benchmark (2024), ZO-SGD-Sign; it draws normal numbers.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ZOSign([x], lr=0.01)
        >>> for _ in range(1000):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-2)
        True
    """

    _options = ("noise",)

    def _weight(self, delta: float, parameter: torch.Tensor) -> float:
        return sign(delta)
