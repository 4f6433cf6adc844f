"""The best tables of a derivative, at several widths at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from shoestring.activations.fewbit import optimum, polish
from shoestring.activations.fewbit.integrals import Samples

_EQUAL: Final = 1e-9


def best_tables(
    sampled: Samples, bits: Sequence[int], *, sharing: bool
) -> Mapping[int, polish.Table]:
    """Return the best table of each width; one dynamic program serves them all.

    Args:
        sampled: the derivative and the weight.
        bits: the widths.
        sharing: whether intervals may share a level.
    """
    counts = [2**width for width in bits]
    runs = optimum.contiguous(sampled, counts)
    found = {width: polish.polished_contiguous(sampled, runs[2**width]) for width in bits}
    if not sharing:
        return found
    levels = optimum.shared(sampled, counts)
    for width, separate in found.items():
        shared = polish.polished_shared(sampled, levels[2**width])
        fewer = len(shared.borders) < len(separate.borders)
        slack = _EQUAL * separate.error
        if shared.error < separate.error - slack or (fewer and shared.error <= separate.error):
            found[width] = shared
    return found
