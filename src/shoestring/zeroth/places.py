"""Where an optimizer's parameters are: at their own values, or off them along a direction.

Going somewhere, all that is to be done to a tensor is done in one pass over its memory: it is put
back, updated, settled and moved on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from shoestring.core.errors import InputError
from shoestring.kernels.stages import Stages, grid, largest, room
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.directions import Direction, family
from shoestring.zeroth.kept import Group, Keeping
from shoestring.zeroth.moves import Move, move

if TYPE_CHECKING:
    from shoestring.zeroth.scratch import ScratchForward
    from shoestring.zeroth.twin import TwinForward

SNAPPED: Final = 256
"""Draws after which radii are fitted anew to weights that may have grown."""

DIRECTION, ROUNDING, TWIN = 0, 1, 2
"""What a key of a stream is for, beside seed and draw."""

HALF: Final = (torch.bfloat16, torch.float16)
_UNKNOWN: Final = dict.fromkeys(("radius", "spacing", "settled", "eps", "largest", "room"), 0.0)
"""How far a tensor is moved, on which grid, what it is settled for, and for which eps; a bound of
its largest magnitude, and the magnitude up to which the grid is good."""


class Place(NamedTuple):
    """Where the parameters are: off their own values, along a direction.

    Attributes:
        draw: of the step.
        which: of the directions of the step.
        sign: 1 or -1.
    """

    draw: int
    which: int
    sign: int


class Placed(Keeping):
    """An optimizer that moves its parameters along directions, and back."""

    def _begin(self) -> None:
        """Set what lasts no longer than a step."""
        self._place: Place | None = None
        self._known: list[tuple[torch.Tensor, Group]] | None = None
        self._bases: dict[torch.Tensor, torch.Tensor] = {}
        self._drawn: dict[tuple[int, int], list[Direction]] = {}
        self._beside: TwinForward | ScratchForward | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin()
        super().__setstate__(state)
        self._place = Place(self._shared["draws"], 0, 1) if self._shared["perturbed"] else None

    def _buffers(self, parameter: torch.Tensor, group: Group) -> dict[str, torch.Tensor]:
        """Return what is kept of a parameter from step to step, as it is at first.

        Args:
            parameter: one that is trained.
            group: its options.
        """
        return {}

    @property
    def _shared(self) -> Group:
        """The options that are the same in every group."""
        return self.param_groups[0]

    def _moved(self) -> list[tuple[torch.Tensor, Group]]:
        """Return what is trained with its options, as it was when this call of a user began."""
        if self._known is None:
            self._known = self._look_up()
        return self._known

    def _look_again(self) -> None:
        """Take note of what a user has frozen, thawed or added since the last call."""
        known, found = self._known, self._look_up()
        if known and [id(p) for p, _ in known] != [id(p) for p, _ in found]:
            self._go(None)  # as it was perturbed
            self._drawn, self._beside = {}, None
        self._known = found

    @property
    def keeps_state(self) -> bool:
        """Whether its steps depend on more than the parameters and what the log has."""
        return any(self.state[parameter].keys() - _UNKNOWN for parameter, _ in self._moved())

    def _state_of(self, parameter: torch.Tensor, group: Group) -> dict[str, Any]:
        return {**_UNKNOWN, **self._buffers(parameter, group)}

    def _directions(self, draw: int, index: int) -> list[Direction]:
        if (draw, index) not in self._drawn:
            if len(self._drawn) > self._shared["q"]:
                self._drawn = {k: d for k, d in self._drawn.items() if k[0] >= draw - 1}
            tensors = [parameter for parameter, _ in self._moved()]
            self._drawn[draw, index] = self._draw(tensors, draw, index)
        return self._drawn[draw, index]

    def _draw(self, tensors: Sequence[torch.Tensor], draw: int, index: int) -> list[Direction]:
        """Return a direction of each tensor.

        Args:
            tensors: what is trained.
            draw: of the step.
            index: of the direction among those of the step.
        """
        key = stream_key(self._shared["seed"], DIRECTION, draw, index)
        return family(self._shared["directions"])(tensors, key)

    def _move_to(self, place: Place, factor: float = 1.0) -> Move:
        """Return the move from the parameters' own values to a place, times a number."""
        radii = [self.state[parameter]["radius"] for parameter, _ in self._moved()]
        scales = [place.sign * factor * radius for radius in radii]
        spacings = [self.state[parameter]["spacing"] for parameter, _ in self._moved()]
        return Move(self._directions(place.draw, place.which), scales, spacings)

    def _is_due(self, draw: int) -> bool:
        """Whether the radii are to be fitted before some draw."""
        if draw % SNAPPED == 0:
            return True
        for parameter, group in self._moved():
            state = self.state[parameter]
            if state["eps"] != group["eps"] or state["largest"] > state["room"]:
                return True
        return False

    def _fit(self) -> None:
        """Choose how far each tensor is moved; the parameters have their own values."""
        directions = self._directions(self._shared["draws"], 0)
        for (parameter, group), direction in zip(self._moved(), directions, strict=True):
            eps = float(group["eps"])
            if not 0 < eps < math.inf:
                raise InputError(
                    f"eps={eps} is no distance to ask for the loss at.", hint="take 1e-3, say."
                )
            spacing = grid(eps, parameter, reach=direction.reach)
            radius = round(eps / spacing) * spacing if spacing and direction.unit else eps
            # By a power of two that holds all entries, where they are not of one size.
            most = 2.0 ** math.ceil(math.log2(2 * eps * direction.reach))
            settled = radius if direction.unit else most
            most_of_it = largest(parameter)
            good = room(spacing, parameter.dtype) - 4 * eps * direction.reach
            self.state[parameter].update(
                eps=eps,
                radius=radius,
                spacing=spacing,
                settled=settled,
                largest=most_of_it,
                # Where even the coarsest grid is too fine for it, another fit is no better.
                room=good if most_of_it <= good else math.inf,
            )

    def _measure(self) -> None:
        """Take note of how large the parameters are now."""
        for parameter, _ in self._moved():
            if self.state[parameter]["room"] < math.inf:
                self.state[parameter]["largest"] = largest(parameter)

    def _go(self, place: Place | None, updates: Sequence[Move] = ()) -> None:
        """Bring the parameters to a place, and update them on the way."""
        here, self._place = self._place, place
        if here == place and not updates:
            return
        if here is None and place is not None and self._is_due(place.draw):
            self._fit()
        before = [] if here is None else [self._move_to(here, -1.0)]
        after = [] if place is None else [self._move_to(place)]
        across = here and place and here[:2] == place[:2] and not updates
        if across and all(z.unit for z in after[0].directions):
            self._shift([Move(after[0].directions, [2 * scale for scale in after[0].scales])], None)
        else:
            self._shift([*before, *updates, *after], (len(before), len(after)), bool(updates))
        self._shift_half(updates, after)

    def _shift(
        self, moves: Sequence[Move], around: tuple[int, int] | None, decaying: bool = False
    ) -> None:
        """Move what is moved in place.

        Args:
            moves: all of them, in their order.
            around: how many of them come before and after the update; None settles nothing.
            decaying: whether weights decay in the update.
        """
        moved = self._moved()
        full = [k for k, (parameter, _) in enumerate(moved) if parameter.dtype not in HALF]
        stages = None
        if around is not None:
            before, after = around
            stages = []
            for k in full:
                parameter, group = moved[k]
                decay = 1.0 - group["lr"] * group["weight_decay"] if decaying else 1.0
                stages.append(Stages(decay, before, self.state[parameter]["settled"], after))
        move([moved[k][0] for k in full], [m.only(full) for m in moves], stages=stages)

    def _shift_half(self, updates: Sequence[Move], after: Sequence[Move]) -> None:
        """Move what cannot be moved in place without loss: a copy keeps its values meanwhile."""
        moved = self._moved()
        half = [k for k, (parameter, _) in enumerate(moved) if parameter.dtype in HALF]
        if half and self._shared["pending"]:
            raise InputError(
                "parameters of fewer bits than float32 cannot stay perturbed.",
                hint="drop pending=True.",
            )
        for k in half:
            parameter, group = moved[k]
            base = self._bases.pop(parameter, None)
            if base is not None:
                parameter.copy_(base)
            if updates:
                stages = Stages(1.0 - group["lr"] * group["weight_decay"])
                key = stream_key(self._shared["seed"], ROUNDING, self._shared["draws"], k)
                move([parameter], [m.only([k]) for m in updates], stages=[stages], rounding=key)
            if after:
                self._bases[parameter] = parameter.clone() if base is None or updates else base
                move([parameter], [m.only([k]) for m in after])

    def _settle(self) -> None:
        """Round the parameters so that their radius rounds nothing."""
        self._shift([], (0, 0))
