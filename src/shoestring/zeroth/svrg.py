"""Variance reduction: a batch tells only how the slope has changed since the last look at all."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Final, overload

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.zeroth.asking import Asking, Closure
from shoestring.zeroth.directions import Direction
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.kept import Group, wide_zeros
from shoestring.zeroth.moves import Move
from shoestring.zeroth.sgd import check_momentum

_NONE: Final = -1
"""Draw of the anchor where there is none."""

_CHUNK: Final = 1 << 18
"""Entries that are swapped at a time."""


class ZOSVRG(ZerothOrder):
    r"""Gradient descent whose batches correct a slope over all data, and so add less noise.

    Every ``interval`` steps the parameters are kept as an anchor a, and the slopes
    :math:`\bar\rho_j` along :math:`\bar q` directions are found over all data. That step and those
    until the next anchor take

    .. math::

        \bar g = \frac{1}{\bar q} \sum_j \bar\rho_j \bar z_j, \qquad
        g = \frac{1}{q} \sum_i \left(\rho_i(x) - \rho_i(a)\right) z_i + \bar g, \qquad
        x \leftarrow (1 - \gamma \lambda) x - \gamma g

    With :math:`\gamma` the learning rate, :math:`\lambda` the weight decay, :math:`\rho_i(x)` the
    slope along direction :math:`z_i` at x as for `ZOSGD`. Both slopes of a difference are of one
    batch, along one direction and under the same random numbers. At the anchor itself the step is
    :math:`\bar g` times `anchor_scale`. With momentum :math:`\mu` each g is replaced by
    :math:`m \leftarrow \mu m + g`.

    An anchor takes ``2 anchor_q`` evaluations of all data and none of a batch, any other step
    ``4 q`` of its batch; one-sided, ``anchor_q + 1`` and ``2 (q + 1)``. It keeps one copy of the
    parameters; the slope over all data is kept as numbers, and its directions are drawn again.

    The directions of an anchor serve ``interval`` steps: beyond them the slope over all data is not
    seen. So with few of them and many steps the error of those directions is followed far; a
    learning rate of about ``1 / (interval tr(Hessian))`` times `anchor_q` is safe.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`.
        eps: how far apart the loss is asked for.
        interval: steps from an anchor to the next.
        anchor_q: :math:`\bar q`, directions of an anchor.
        anchor_scale: what the learning rate is multiplied with at an anchor.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        two_sided: whether the loss is asked for on both sides.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.

    Raises:
        InputError: an option is outside its range.

    Source: Gautam et al., Variance-reduced zeroth-order methods for fine-tuning language models
    (2024), arXiv 2404.08080, MeZO-SVRG; it has ``anchor_q=1``, draws normal numbers, and has a
    learning rate of its own for the anchors.

    Example:
        >>> x, rows = torch.nn.Parameter(torch.ones(4)), torch.eye(4)
        >>> opt = ZOSVRG([x], lr=0.2, interval=4, anchor_q=4)
        >>> for step in range(400):
        ...     batch = rows[step % 4]
        ...     loss = opt.step(lambda: (batch @ x) ** 2, full=lambda: (rows @ x).square().mean())
        >>> bool(x.abs().max() < 1e-3)
        True
    """

    _options = ("interval", "anchor_q", "anchor_scale")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-6,
        eps: float = 1e-3,
        *,
        interval: int = 10,
        anchor_q: int = 8,
        anchor_scale: float = 1.0,
        directions: str = "rademacher",
        q: int = 1,
        two_sided: bool = True,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        if interval < 2 or anchor_q < 1:
            raise InputError(
                f"interval={interval} and anchor_q={anchor_q} leave no step to a batch, or none to "
                "all data.",
                hint="take interval=10 and anchor_q=8, say, or ZOSGD without anchors.",
            )
        if not 0 <= anchor_scale < math.inf:
            raise InputError(f"anchor_scale={anchor_scale} is no factor.", hint="take 1, say.")
        check_momentum(momentum)
        own: Group = {"interval": interval, "anchor_q": anchor_q, "anchor_scale": anchor_scale}
        own |= {"anchor": _NONE, "anchor_deltas": (0.0,) * anchor_q}
        super().__init__(
            params,
            {"lr": lr, "eps": eps, "momentum": momentum, "weight_decay": weight_decay, **own},
            directions=directions,
            q=q,
            two_sided=two_sided,
            seed=seed,
            pending=False,  # the anchor is kept of the parameters' own values
        )

    def _begin(self) -> None:
        super()._begin()
        self._away = False
        self._numbers: dict[torch.Tensor, int] = {}

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        radius = torch.zeros((), dtype=torch.float64)
        kept = {"anchor": parameter.detach().clone(), "anchor_radius": radius}
        return kept | ({"momentum_buffer": wide_zeros(parameter)} if group["momentum"] else {})

    def _needs_gradient(self, group: Group) -> bool:
        return bool(group["momentum"])

    def _rule(self, parameter: torch.Tensor, group: Group, gradient: torch.Tensor) -> None:
        buffer = self._buffer(parameter, "momentum_buffer").mul_(group["momentum"]).add_(gradient)
        self._add(parameter, group, buffer, -group["lr"])

    # --- what a user calls -----------------------------------------------------------------------

    @property
    def anchor_due(self) -> bool:
        """Whether the next step is an anchor, which takes the loss over all data."""
        since = self._shared["draws"] - self._shared["anchor"]
        return bool(self._shared["anchor"] == _NONE or since >= self._shared["interval"])

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure, *, full: Closure | None = None) -> float: ...

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *, full: Closure | None = None) -> float | None:
        """Make a step from losses, or from estimates; see `ZerothOrder.step`.

        Args:
            closure: returns the loss of one batch, without backward. Called ``4 q`` times, and not
                where an anchor is due.
            full: returns the loss over all data. Called ``2 anchor_q`` times where an anchor is
                due, and else not.

        Returns:
            The mean of the losses around the parameters; None without a closure.

        Raises:
            InputError: an anchor is due, and there is no way to ask for the loss over all data.
        """
        if closure is None:
            return super().step()
        self._look_again()
        if self.anchor_due and full is None:
            raise InputError(
                "an anchor is due, and there is no loss over all data.",
                hint="give step(closure, full=...), or call estimate_full and step().",
            )
        return super().step(full if full is not None and self.anchor_due else closure)

    def estimate(self, closure: Closure, *, weight: float | None = None) -> float:
        """Ask for the losses of a batch; see `ZerothOrder.estimate`.

        Args:
            closure: as for `step`.
            weight: what this part of a batch counts.

        Returns:
            The mean of the losses around the parameters.

        Raises:
            InputError: an anchor is due.
        """
        self._look_again()
        if self.anchor_due:
            raise InputError(
                "an anchor is due, which takes the loss over all data.",
                hint="call estimate_full for each part of the data where anchor_due.",
            )
        return super().estimate(closure, weight=weight)

    def estimate_full(self, closure: Closure, *, weight: float | None = None) -> float:
        """Ask for the losses of all data, or of a part; `step` without a closure follows.

        Args:
            closure: returns the loss of the part. Called ``2 anchor_q`` times.
            weight: what the part counts; as for `estimate`.

        Returns:
            The mean of the losses.

        Raises:
            InputError: no anchor is due.
        """
        self._look_again()
        if not self.anchor_due:
            raise InputError(
                "no anchor is due.", hint="call estimate for the next batch until anchor_due."
            )
        return super().estimate(closure, weight=weight)

    # --- what a step is made of ------------------------------------------------------------------

    def _look_again(self) -> None:
        known = self._known
        super()._look_again()
        if known and [id(p) for p, _ in known] != [id(p) for p, _ in self._moved()]:
            self._set(anchor=_NONE)  # its directions were of other tensors

    def _probe(self, asking: Asking) -> Sequence[float]:
        count = self._shared["q"]
        if self.anchor_due:
            return [0.0] * (count + 1) + self._halves(asking, self._shared["anchor_q"])
        here = self._halves(asking, count)
        asked = len(asking.losses)
        asking.leave()
        with self._at_anchor():
            there = self._halves(asking, count)
            asking.leave()
        del asking.losses[asked:]  # nothing is learnt of the parameters from the anchor's losses
        asking.errors.clear()  # of differences whose difference is taken
        changes = [mine - other for mine, other in zip(here, there, strict=True)]
        age = self._shared["draws"] - self._shared["anchor"]
        return [*changes, float(age), *self._shared["anchor_deltas"]]

    def _halves(self, asking: Asking, count: int) -> list[float]:
        """Return half the difference of the losses along each direction."""
        if self._shared["two_sided"]:
            return [(ahead - behind) / 2 for ahead, behind in asking.sides(count)]
        here = asking.here()
        return [asking.ahead(index) - here for index in range(count)]

    def _update(self, deltas: tuple[float, ...]) -> None:
        count = self._shared["q"]
        if all(map(math.isfinite, deltas)):
            age = self._shared["draws"] - self._shared["anchor"]
            if not deltas[count]:
                self._drop_anchor(deltas[count + 1 :])
            elif self._shared["anchor"] == _NONE or age != deltas[count]:
                raise InputError(
                    "the log begins between two anchors, and does not know the first.",
                    hint="take the log of a run from its start, or from a step with an anchor.",
                )
        super()._update(deltas)

    def _updates(self, deltas: Sequence[float]) -> list[Move]:
        draw = self._shared["anchor"]
        moves = [] if draw == self._shared["draws"] else super()._updates(deltas)
        moved = self._moved()
        weights = [self._anchor_weights(parameter) for parameter, _ in moved]
        for index in range(self._shared["anchor_q"]):
            directions, scales = self._directions(draw, index), []
            for (parameter, group), z, weight in zip(moved, directions, weights, strict=True):
                scales.append(-group["lr"] * weight[index])
                self.state[parameter]["largest"] += abs(scales[-1]) * z.reach
            moves.append(Move(directions, scales))
        return moves

    def _update_along(self, deltas: Sequence[float]) -> None:
        self._numbers = {parameter: k for k, (parameter, _) in enumerate(self._moved())}
        super()._update_along(deltas)

    def _update_one(
        self, parameter: torch.Tensor, group: Group, terms: Sequence[tuple[Direction, float]]
    ) -> None:
        draw, k = self._shared["anchor"], self._numbers[parameter]
        weights = enumerate(self._anchor_weights(parameter))
        lasting = [(self._directions(draw, index)[k], weight) for index, weight in weights]
        super()._update_one(parameter, group, [*terms, *lasting])

    def _anchor_weights(self, parameter: torch.Tensor) -> list[float]:
        """Return what each direction of the anchor counts in this step."""
        scale = 1.0 / self._shared["anchor_q"] / float(self.state[parameter]["anchor_radius"])
        if self._shared["anchor"] == self._shared["draws"]:
            scale *= self._shared["anchor_scale"]
        return [delta * scale for delta in self._shared["anchor_deltas"]]

    # --- the anchor ------------------------------------------------------------------------------

    def _set(self, **values: object) -> None:
        for group in self.param_groups:
            group.update(values)

    def _drop_anchor(self, deltas: tuple[float, ...]) -> None:
        """Keep the parameters as the anchor, and the slopes over all data there."""
        self._go(None)
        for parameter, _ in self._moved():
            self._anchor(parameter).copy_(parameter)
            self.state[parameter]["anchor_radius"].fill_(self.state[parameter]["radius"])
        self._set(anchor=self._shared["draws"], anchor_deltas=deltas)

    def _anchor(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the anchor of a parameter, where the parameter is by now and of its dtype."""
        kept: torch.Tensor = self.state[parameter]["anchor"]
        if kept.device != parameter.device or kept.dtype != parameter.dtype:
            kept = self.state[parameter]["anchor"] = kept.to(parameter)
        return kept

    @contextlib.contextmanager
    def _at_anchor(self) -> Iterator[None]:
        """In this context the parameters are at the anchor, and wait in its place."""
        self._swap()
        self._away = True
        try:
            yield
        finally:
            self._go(None)
            self._away = False
            self._swap()

    def _swap(self) -> None:
        for parameter, _ in self._moved():
            swap(parameter.detach(), self._anchor(parameter))

    def _is_due(self, draw: int) -> bool:
        return not self._away and super()._is_due(draw)  # one radius for both places


def swap(left: torch.Tensor, right: torch.Tensor) -> None:
    """Exchange the values of two tensors, a little at a time.

    Args:
        left: of any shape and layout.
        right: of the same shape and dtype.

    Example:
        >>> x, y = torch.ones(2), torch.zeros(2)
        >>> swap(x, y)
        >>> x.tolist(), y.tolist()
        ([0.0, 0.0], [1.0, 1.0])
    """
    pieces = [(left, right)]
    if left.is_contiguous() and right.is_contiguous():
        pieces = list(zip(left.view(-1).split(_CHUNK), right.view(-1).split(_CHUNK), strict=True))
    for one, other in pieces:
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)
