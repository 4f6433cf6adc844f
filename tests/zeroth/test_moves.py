"""Moves in one pass have the bits of one thing after the other, whatever stands between them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.kernels.stages import Stages
from shoestring.kernels.streams import add_signs_
from shoestring.zeroth.directions import family
from shoestring.zeroth.moves import Move, move

SPACING = 2.0**-12


@given(
    names=st.lists(st.sampled_from(["rademacher", "rank1", "lowrank:3"]), max_size=3),
    decay=st.sampled_from([1.0, 0.9]),
    radius=st.sampled_from([0.0, 0.25]),
    data=st.data(),
)
def test_several_moves_are_one_after_the_other(
    names: list[str], decay: float, radius: float, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(shape, generator=generator) for shape in ((5, 70), (9,), (3, 4, 5))]
    expected = [x.clone() for x in found]
    before = data.draw(st.integers(0, len(names)))
    stages = Stages(decay, before, radius, data.draw(st.integers(0, len(names) - before)))
    moves = [
        Move(family(name)(found, key), [0.5 * key + 0.25] * 3, [SPACING] * 3)
        for key, name in enumerate(names)
    ]
    move(found, moves, stages=[stages] * 3)
    for k, x in enumerate(expected):
        for index in range(len(moves) + 1):
            if index == stages.before:
                x.mul_(decay)
            if index == len(moves) - stages.after and radius:
                add_signs_(x, [], [], stages=Stages(radius=radius))
            if index < len(moves):
                moves[index].directions[k].displace(x, moves[index].scales[k], SPACING)
        assert torch.equal(x, found[k])
