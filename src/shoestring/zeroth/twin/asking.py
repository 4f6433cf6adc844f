"""Asks for the losses on both sides of the parameters in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch
from torch import nn

from shoestring.zeroth.asking import Asking, Closure, InPlace, Loss
from shoestring.zeroth.directions import Direction
from shoestring.zeroth.twin._torch import eagerly, level_of
from shoestring.zeroth.twin.mode import AtAllPlaces
from shoestring.zeroth.twin.places import Places
from shoestring.zeroth.twin.shifts import shifts_of
from shoestring.zeroth.twin.watch import Beside, TwinWarning, Watch

Directions: TypeAlias = Callable[[int], Sequence[Direction]]
"""Returns a direction of a step by its index: one of each trained parameter."""

_TOLD: Final = 0.01
"""Share of the trained numbers that are copied without a word."""


class TwinForward:
    r"""Makes what asks for a step's losses in one call for all places, without writing.

    The plain closure is called once, under `torch.vmap` over the places :math:`W \pm \epsilon Z_k`,
    with the same random numbers at all of them. A product with a trained matrix is made for all
    places at once, from W itself and the two factors of each direction:

    .. math::

        x (W + s \epsilon U V^T)^T = x W^T + s \epsilon\, (x V) U^T

    With x the input and s the sign. So W is read once, and nothing of its size is made; likewise
    for embeddings and convolutions. Any other function gets copies of the trained parameters that
    it is given, one for every place; a `TwinWarning` says so where they are large.

    A closure that cannot be called so, because it asks for a number (``.item()``), or its model has
    BatchNorm in training or is compiled, is called with the parameters moved in place: from then
    on, and a `TwinWarning` says why.

    Args:
        model: whose parameters are trained.
        parameters: those that are, in the order of the directions.

    Attributes:
        watch: what is known of the closure; ``watch.reason`` tells why the parameters are moved in
            place.
        copied: names of the matrices that were copied for every place, and the function each was
            copied for.

    Example:
        >>> model = nn.Linear(3, 1).requires_grad_(False)
        >>> forward = TwinForward(model, list(model.parameters()))
        >>> forward.watch.reason is None
        True
    """

    def __init__(self, model: nn.Module, parameters: Sequence[torch.Tensor]) -> None:
        self.watch: Final = Watch(model, parameters)
        self.copied: dict[str, str] = {}

    def asking(
        self,
        closure: Closure,
        directions: Directions,
        radii: Sequence[float],
        in_place: InPlace,
        *,
        key: int = 0,
    ) -> Asking:
        """Return what asks for the losses of one step.

        Args:
            closure: returns the loss.
            directions: of the step, of low rank for matrices.
            radii: how far each parameter is moved.
            in_place: what is asked where the closure cannot be called at all places at once.
            key: of the random numbers that results in half precision are rounded by.
        """
        if not self.watch.is_fit(statistics=False):
            return in_place
        return Twin(self, closure, directions, radii, in_place, key)

    def places(
        self,
        along: Sequence[Sequence[Direction]],
        radii: Sequence[float],
        signs: Sequence[int],
        key: int,
    ) -> Places:
        """Return the places along some directions.

        Args:
            along: the directions, each one of every parameter.
            radii: how far each parameter is moved.
            signs: of the places along each direction.
            key: of the random numbers that results in half precision are rounded by.
        """
        shifts = shifts_of(self.watch.parameters, along, radii, signs)
        return Places(shifts, self.watch.known, signs, len(along), key)

    def tell(self, copied: dict[int, str]) -> None:
        """Say which matrices were copied, where they are large and were not told of before.

        Args:
            copied: name of the function, by the index of the parameter.
        """
        found = {self.watch.name(index): name for index, name in copied.items()}
        new = found.keys() - self.copied.keys()
        self.copied |= found
        share = sum(self.watch.parameters[index].numel() for index in copied)
        if new and share > _TOLD * sum(p.numel() for p in self.watch.parameters):
            listed = ", ".join(f"{name} ({self.copied[name]})" for name in sorted(new)[:5])
            words = f"{len(copied)} matrices are copied for every place: {listed}"
            warnings.warn(f"{words}{', ...' * (len(new) > 5)}.", TwinWarning, stacklevel=2)


class Twin(Beside):
    """Asks for the losses of one step in one call; see `TwinForward`.

    Args:
        forward: that it is of.
        closure: returns the loss.
        directions: of the step.
        radii: how far each parameter is moved.
        in_place: what is asked where the closure cannot be called at all places at once.
        key: of the random numbers that results in half precision are rounded by.
    """

    def __init__(
        self,
        forward: TwinForward,
        closure: Closure,
        directions: Directions,
        radii: Sequence[float],
        in_place: InPlace,
        key: int,
    ) -> None:
        super().__init__(forward.watch, closure, in_place)
        self._forward, self._directions, self._radii = forward, directions, radii
        self._key = key

    def _losses(
        self, indices: Sequence[int], signs: Sequence[int]
    ) -> tuple[Sequence[Loss], set[int]]:
        along = [self._directions(index) for index in indices]
        places = self._forward.places(along, self._radii, signs, self._key)
        losses = self._same.call(lambda: self._run(places))
        self._forward.tell(places.copied)
        return losses.unbind(), places.seen

    def _run(self, places: Places) -> torch.Tensor:
        """Call the closure once for all places."""

        def at(place: torch.Tensor) -> torch.Tensor:
            places.level = level_of(place)
            with AtAllPlaces(places):
                loss = self._closure()
            if not isinstance(loss, torch.Tensor):
                raise TypeError("the closure returns a number that is no tensor")
            return loss

        with eagerly():
            found: torch.Tensor = torch.vmap(at, randomness="same")(torch.arange(len(places)))
        return found
