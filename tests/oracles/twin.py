"""Losses on both sides of the parameters, asked of copies that were moved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from shoestring.zeroth.directions import Direction


def sides(
    model: nn.Module,
    loss: Callable[[nn.Module], torch.Tensor],
    along: Sequence[Sequence[Direction]],
    radii: Sequence[float],
) -> list[tuple[float, float]]:
    """Return the losses ahead and behind along each direction, under the same random numbers.

    Args:
        model: as it is; it stays so.
        loss: of a model.
        along: the directions, each one of every parameter that needs a gradient.
        radii: how far each of them is moved.
    """
    state = torch.get_rng_state()
    found = []
    for directions in along:
        pair = []
        for sign in (1, -1):
            there = moved(model, directions, [sign * radius for radius in radii])
            torch.set_rng_state(state)
            with torch.no_grad():
                pair.append(float(loss(there).double().mean()))
        found.append((pair[0], pair[1]))
    return found


def moved(model: nn.Module, directions: Sequence[Direction], scales: Sequence[float]) -> nn.Module:
    """Return a copy of a model whose trained parameters are moved.

    Args:
        model: as it is; it stays so.
        directions: one of every parameter that needs a gradient.
        scales: the factor of each; more than there are do no harm.
    """
    found = copy.deepcopy(model)
    trained = [parameter for parameter in found.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, direction, scale in zip(trained, directions, scales, strict=False):
            direction.add_to(parameter, scale)
    return found
