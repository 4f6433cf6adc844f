"""Zeroth-order descent of the smallest weights only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.directions import CHUNK, Direction
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.numbers import check_interval, check_kind, in_parts, plain, wide
from shoestring.zeroth.places import DIRECTION
from shoestring.zeroth.sgd import check_momentum

_BYTE: Final = 8
_DIGIT: Final = 16
"""Bits of a magnitude that are looked at in one pass."""
_PASS: Final = 1 << 18
"""Weights whose magnitudes are counted at a time."""
_PATTERNS: Final = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
}


class SparseZO(ZerothOrder):
    r"""Descent along random directions of the smallest weights; the others stay as they are.

    .. math::

        m_j = [\, |x_j| \le h \,], \qquad
        x \leftarrow x - \gamma m \odot \Big( \lambda x + \frac{1}{q} \sum_i \rho_i z_i \Big),
        \qquad \rho_i = \frac{f(x + \epsilon \, m \odot z_i) - f(x - \epsilon \, m \odot z_i)}
        {2 \epsilon}

    With :math:`\gamma` the learning rate, :math:`\lambda` the weight decay, and h of each tensor
    the magnitude that a share of ``1 - sparsity`` of its weights does not exceed, one weight at
    least. The mask m is of the weights' own values, not of the perturbed ones, and is kept with one
    bit for each weight, so that all of a step has the same. h is found anew with each mask, so the
    share stays what was asked for. The paper finds h once before training: there a weight that has
    outgrown it is never moved again. Weights of the same magnitude, as of a tensor of zeros, are
    taken together, and may be more.

    With momentum :math:`\mu`, which the paper does not have, masked weights take a sum
    :math:`v \leftarrow \mu v + \frac{1}{q} \sum_i \rho_i z_i` in place of the mean. It takes a
    buffer of the parameters' size, where what is not masked waits.

    Small weights bear the noise of the estimate better than large ones, says the paper. It is no
    estimate of the whole gradient: of what is not masked nothing is learnt.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`. The default suits some hundred weights of curvature about 1, and should
            shrink as ``1 / tr(Hessian)`` of the masked weights does: 1e-6 or so for models of
            billions.
        eps: :math:`\epsilon`.
        sparsity: share of each tensor's weights that is left alone, from 0 up to 1; the paper finds
            0.5 to 0.8 to do best. At 0.9 a tenth is moved.
        interval: steps that a mask is used for. At 1 there is a new one in each step, as in the
            paper, at the cost of a few passes over the weights.
        directions: ``rademacher``, or ``gaussian`` as in the paper.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides, ``2 q`` times in all, or at the
            parameters and on one side, ``q + 1`` times.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`, of masked weights only.
        seed: of the directions.

    Raises:
        InputError: an option is outside its range.

    Source: Liu et al., Sparse MeZO: less parameters for better performance in zeroth-order LLM
    fine-tuning (NeurIPS 2025), arXiv 2402.15751, algorithm 1.

    Example:
        >>> x = torch.nn.Parameter(torch.linspace(-2, 2, 10))
        >>> opt = SparseZO([x], lr=0.1, sparsity=0.8, interval=1000)
        >>> for _ in range(100):
        ...     loss = opt.step(lambda: (x - 3).square().sum())
        >>> [round(value) for value in x.tolist()]
        [-2, -2, -1, -1, 3, 3, 1, 1, 2, 2]
    """

    _options = ("sparsity", "interval")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-3,
        eps: float = 1e-3,
        *,
        sparsity: float = 0.75,
        interval: int = 1,
        directions: str = "rademacher",
        q: int = 1,
        two_sided: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        check_kind(directions)
        check_interval(interval)
        check_momentum(momentum)
        if not 0 <= sparsity < 1:
            raise InputError(f"sparsity={sparsity} is no share.", hint="take one from 0 up to 1.")
        defaults = {"lr": lr, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(
            params,
            {**defaults, "sparsity": sparsity, "interval": interval},
            directions=directions,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=False,  # the next mask needs the parameters' own values
        )

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        key = stream_key(self._shared["seed"], DIRECTION, draw, index)
        directions = self._shared["directions"]
        return [
            Masked(directions, stream_key(key, k), self._mask(tensor, group, draw))
            for k, (tensor, group) in enumerate(self._moved())
        ]

    def _mask(self, parameter: torch.Tensor, group: Group, draw: int) -> torch.Tensor:
        """Return the mask of a step; the first one who asks finds the parameters unperturbed."""
        state = self.state[parameter]
        mask, since = self._buffer(parameter, "mask"), draw - draw % group["interval"]
        if int(state["since"]) != since:
            state["since"].fill_(since)
            taken = max(1, round((1 - group["sparsity"]) * parameter.numel()))
            mask.copy_(below(parameter, pattern_of(parameter, taken)))
        return mask

    def _needs_gradient(self, group: Group) -> bool:
        return True

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        size = -(-parameter.numel() // _BYTE)
        mask = torch.zeros(size, dtype=torch.uint8, device=parameter.device)
        buffers = {"mask": mask, "since": torch.tensor(-1)}
        if group["momentum"]:
            buffers["momentum_buffer"] = wide_zeros(parameter)
        return buffers

    def _update_one(
        self, parameter: torch.Tensor, group: Group, terms: Sequence[tuple[Direction, float]]
    ) -> None:
        masked = [(z, weight) for z, weight in terms if isinstance(z, Masked)]
        decay, momentum = 1.0 - group["lr"] * group["weight_decay"], group["momentum"]
        buffer = self._buffer(parameter, "momentum_buffer").view(-1) if momentum else None

        def change(start: int, part: torch.Tensor) -> None:
            places = masked[0][0].places(start, part)
            gradient = torch.zeros(len(places), dtype=wide(part.dtype), device=part.device)
            for z, weight in masked:
                z.of_part(start).add_to(gradient, weight)
            if buffer is not None:
                gradient.add_(buffer[places + start], alpha=momentum)
                buffer[places + start] = gradient
            taken = part[places]
            key = stream_key(self._rounding, start // CHUNK)
            add_rounded_(taken, gradient, scale=-group["lr"], decay=decay, key=key)
            part[places] = taken

        in_parts(parameter, change)


class Masked(Direction):
    """Independent entries in some places, zero elsewhere.

    Args:
        directions: what the entries are.
        key: of the entries.
        mask: one bit for each place, row by row, the lowest first.
    """

    def __init__(self, directions: str, key: int, mask: torch.Tensor) -> None:
        self.directions, self.key, self.mask = directions, key, mask
        entries = plain(directions, key)
        self.unit, self.reach = entries.unit, entries.reach

    def places(self, start: int, part: torch.Tensor) -> torch.Tensor:
        """Return which entries of a part are moved.

        Args:
            start: where the part starts.
            part: of a tensor's rows.
        """
        held = self.mask[start // _BYTE : -(-(start + len(part)) // _BYTE)].to(part.device)
        bits = torch.arange(_BYTE, dtype=torch.uint8, device=part.device)
        spread = (held.unsqueeze(1) >> bits).bitwise_and_(1).view(-1)
        return spread[: len(part)].nonzero().view(-1)

    def of_part(self, start: int) -> Direction:
        """Return the entries in the places of a part; each part has a stream of its own.

        Args:
            start: where the part starts.
        """
        return plain(self.directions, stream_key(self.key, start // CHUNK))

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        self.displace(tensor, scale, 0.0)

    def displace(self, tensor: torch.Tensor, scale: float, spacing: float) -> None:
        """Add a multiple of it, rounded to a grid; see `Direction.displace`."""

        def change(start: int, part: torch.Tensor) -> None:
            places = self.places(start, part)
            taken = part[places]
            self.of_part(start).displace(taken, scale, spacing)
            part[places] = taken

        in_parts(tensor, change)


def pattern_of(tensor: torch.Tensor, count: int) -> int:
    """Return the largest of the smallest magnitudes of a tensor, as the bits that it is stored in.

    Magnitudes are in the order of their bits. These are counted sixteen at a time, from the highest
    on, so that nothing of a large tensor's size is made.

    Args:
        tensor: of floating dtype.
        count: how many are the smallest.
    """
    if tensor.numel() <= CHUNK:
        return int(_bits(tensor.detach().reshape(-1)).kthvalue(count).values)
    left, found = count, 0
    width = 8 * tensor.element_size()
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64, device=tensor.device)
        for part in tensor.detach().reshape(-1).split(_PASS):
            bits = _bits(part)
            if shift + _DIGIT < width:
                bits = bits[(bits >> (shift + _DIGIT)) == found]
            digits = (bits >> shift) & ((1 << _DIGIT) - 1)
            counts += torch.bincount(digits, minlength=1 << _DIGIT)
        sums = counts.cumsum(0)
        digit = int(torch.searchsorted(sums, left))
        left -= int(sums[digit - 1]) if digit else 0
        found = found << _DIGIT | digit
    return found


def below(tensor: torch.Tensor, pattern: int) -> torch.Tensor:
    """Return one bit for each entry of a tensor: whether its magnitude does not exceed another.

    Args:
        tensor: of floating dtype.
        pattern: of `pattern_of`.
    """
    flat = tensor.detach().reshape(-1)
    powers = torch.tensor([1 << bit for bit in range(_BYTE)], device=tensor.device)
    packed = torch.empty(-(-flat.numel() // _BYTE), dtype=torch.uint8, device=tensor.device)
    for start in range(0, flat.numel(), _PASS):
        within = _bits(flat[start : start + _PASS]) <= pattern
        padded = torch.nn.functional.pad(within, (0, -len(within) % _BYTE)).view(-1, _BYTE)
        packed[start // _BYTE :][: len(padded)] = (padded * powers).sum(1)
    return packed


def _bits(part: torch.Tensor) -> torch.Tensor:
    return part.abs().view(_PATTERNS[part.dtype]).long()
