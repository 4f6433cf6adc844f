"""Steps that are taken only where they pay: forward, backward, or not at all."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, overload

import torch
from torch.optim.optimizer import ParamsT

from shoestring.zeroth.asking import Closure, Loss, number
from shoestring.zeroth.found import Found, mean_of
from shoestring.zeroth.kept import Group
from shoestring.zeroth.moves import Move
from shoestring.zeroth.same_numbers import SameNumbers
from shoestring.zeroth.sgd import Descent

_WORST: Final = float(torch.finfo(torch.float32).max)
"""Rise of a loss that is not finite; the log keeps numbers of float32."""

_FORWARD, _BACKWARD = (-1.0, 0.0), (0.0, -1.0)
"""Rises of the losses for which the first candidate is kept, and for which the second."""


class _Part(NamedTuple):
    """A part of the batch, to be asked for again.

    Attributes:
        ask: returns its loss, under the random numbers that it met first.
        weight: what it counts among the parts.
    """

    ask: Callable[[], Loss]
    weight: float


class ZOConservative(Descent):
    r"""Gradient descent that looks before it leaps: the best of a step, its opposite, and none.

    .. math::

        x \leftarrow \mathrm{argmin} \{ f(y) : y \in \{ x, \; D(x) - \gamma g, \;
        D(x) + \gamma g \} \}, \qquad g = \frac{1}{q} \sum_i \rho_i z_i

    With :math:`\gamma` the learning rate, :math:`\rho_i` the slope along direction :math:`z_i` as
    for `ZOSGD`, :math:`D(x) = (1 - \gamma \lambda) x` and :math:`\lambda` the weight decay. All
    losses are of one batch, under the same random numbers. Where none is lower than f(x) the
    parameters stay, to the last bit. With momentum :math:`\mu`, g is replaced by
    :math:`m \leftarrow \mu m + g`, which goes on where the parameters stay, too.

    A step takes ``2 q + 3`` evaluations. While it judges its candidates it keeps a copy of what is
    trained, and of the momentum: what was added to floats cannot be taken away again without loss,
    once it is larger than they are.

    With several estimates before a step, or several workers, all candidates are judged by all of
    them: ``estimate`` asks ``2 q`` times and keeps its closure, ``step`` calls each closure three
    times more, and ``exchange`` is called twice in a step, with ``q + 2`` numbers each.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`. Too high a rate costs steps that are not taken, and no more.
        eps: how far apart the loss is asked for.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.

    Raises:
        InputError: an option is outside its range.

    Source: Zhang et al., Revisiting zeroth-order optimization for memory-efficient LLM fine-tuning:
    a benchmark (2024), arXiv 2402.11592, ZO-SGD-Cons; it draws normal numbers and has ``q=1``.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ZOConservative([x], lr=0.1)
        >>> for _ in range(100):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-3)
        True
    """

    _common = ("directions", "q", "seed")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-6,
        eps: float = 1e-3,
        *,
        directions: str = "rademacher",
        q: int = 1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            lr,
            eps,
            directions=directions,
            q=q,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
        )

    def _begin(self) -> None:
        super()._begin()
        self._parts: list[_Part] = []
        self._judged: list[float] = []
        self._side = 0.0

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure) -> float: ...

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> float | None:
        """Make the best of a step, its opposite and none; see `ZerothOrder.step`.

        Args:
            closure: returns the loss of one batch, without backward. Called ``2 q + 3`` times; or
                ``2 q`` times, where those losses are not finite.

        Returns:
            The mean of the losses; None without a closure.
        """
        self._judged = []
        if closure is None:
            return super().step()
        count = 2 * int(self._shared["q"])
        loss = super().step(closure)
        return (count * loss + sum(self._judged)) / (count + len(self._judged))

    def _evaluate(self, closure: Closure, weight: float | None) -> float:
        ask = functools.partial(SameNumbers().call, closure)
        loss = super()._evaluate(ask, weight)
        found = self._estimates[-1]
        # All that is exchanged is of one length; the candidates are not judged yet.
        self._estimates[-1] = found._replace(deltas=(*found.deltas, 0.0, 0.0))
        self._parts.append(_Part(ask, found.weight))
        return loss

    def _update(self, deltas: tuple[float, ...]) -> None:
        parts, self._parts = self._parts, []
        if parts and all(map(math.isfinite, deltas)):  # none: the step is made from its log
            deltas = (*deltas[: self._shared["q"]], *self._judge(parts, deltas))
        super()._update(deltas)

    def _updates(self, deltas: Sequence[float]) -> list[Move]:
        side = self._side_of(deltas)
        moves = super()._updates(deltas) if side else []
        return [Move(z.directions, [side * scale for scale in z.scales]) for z in moves]

    def _update_along(self, deltas: Sequence[float]) -> None:
        self._side = self._side_of(deltas)
        super()._update_along(deltas)

    def _add(
        self, parameter: torch.Tensor, group: Group, update: torch.Tensor, scale: float
    ) -> None:
        if self._side:
            super()._add(parameter, group, update, self._side * scale)

    def _side_of(self, deltas: Sequence[float]) -> float:
        """Return 1 for a step, -1 for its opposite, 0 for none."""
        forward, backward = deltas[self._shared["q"] :]
        if min(forward, backward) >= 0:
            return 0.0
        return 1.0 if forward <= backward else -1.0

    def _judge(self, parts: Sequence[_Part], deltas: tuple[float, ...]) -> tuple[float, float]:
        """Return by how much the loss rises by the step, and by its opposite.

        Args:
            parts: of the batch.
            deltas: half the differences along the directions, of all parts and workers.
        """
        self._go(None)
        slopes = deltas[: self._shared["q"]]
        tensors, states = self._changed(), [self.state[p] for p, _ in self._moved()]
        kept, bounds = [tensor.clone() for tensor in tensors], [s["largest"] for s in states]
        with _generators_as_they_are():
            losses = [self._ask(parts)]
            for candidate in (_FORWARD, _BACKWARD):
                try:
                    self._take_step((*slopes, *candidate))
                    losses.append(self._ask(parts))
                finally:
                    for tensor, value in zip(tensors, kept, strict=True):
                        tensor.copy_(value)
                    for state, bound in zip(states, bounds, strict=True):
                        state["largest"] = bound
        here, forward, backward = losses
        zeros = (0.0,) * len(slopes)
        rises = zip(parts, map(_rise, forward, here), map(_rise, backward, here), strict=True)
        found = [Found(part.weight, (*zeros, *pair)) for part, *pair in rises]
        if self.exchange:
            found = list(self.exchange(mean_of(found)))
        first, second = map(_kept, mean_of(found).deltas[len(slopes) :])
        return first, second

    def _changed(self) -> list[torch.Tensor]:
        """Return what a step changes."""
        moved = self._moved()
        kept = [self._buffer(p, "momentum_buffer") for p, group in moved if group["momentum"]]
        return [parameter.detach() for parameter, _ in moved] + kept

    def _take_step(self, deltas: Sequence[float]) -> None:
        """Change the parameters as `ZerothOrder` does when it makes the step."""
        if any(map(self._needs_gradient, self.param_groups)):
            self._update_along(deltas)
            self._settle()
        else:
            self._go(None, self._updates(deltas))

    def _ask(self, parts: Sequence[_Part]) -> list[float]:
        """Return the loss of each part where the parameters are."""
        losses = [number(part.ask()) for part in parts]
        self._judged += losses
        return losses


def _rise(there: float, here: float) -> float:
    """Return by how much a loss is higher; what is not finite is higher than all else."""
    if not math.isfinite(there):
        return math.inf
    return there - here if math.isfinite(here) else -math.inf


def _kept(rise: float) -> float:
    """Return a rise as the log keeps it; of parts that disagree without bounds, the worst."""
    if math.isnan(rise):
        return _WORST
    return float(torch.tensor(max(-_WORST, min(_WORST, rise))))


@contextlib.contextmanager
def _generators_as_they_are() -> Iterator[None]:
    """Leave torch's generators as they stand before: the losses were asked for already."""
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=cuda):
        yield
