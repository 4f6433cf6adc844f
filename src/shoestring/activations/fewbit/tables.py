"""Tables of torch's own activations, computed when first asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from shoestring.activations.fewbit.fitting import best_tables
from shoestring.activations.fewbit.functions import Parameters, function
from shoestring.activations.fewbit.integrals import samples
from shoestring.activations.fewbit.options import DOMAIN
from shoestring.activations.fewbit.quantizer import Quantizer, from_table
from shoestring.activations.fewbit.weights import as_weight

_TOGETHER: Final = (1, 2, 3, 4)


def builtin(
    name: str,
    bits: int = 3,
    *,
    weight: str = "uniform",
    sharing: bool = True,
    parameters: Mapping[str, float] | None = None,
) -> Quantizer:
    """Return the table of an activation, as `quantizer.Quantizer.fit` finds it.

    The widths from 1 to 4 are found together, in about 40 ms, and kept for the life of the process.

    Args:
        name: as in `torch.nn.functional`, and ``gelu_tanh``.
        bits: from 1 to 8; 1 for functions of straight pieces.
        weight: ``uniform`` or ``normal``.
        sharing: whether intervals may share a level.
        parameters: those that are not at torch's defaults.

    Raises:
        InputError: as `quantizer.Quantizer.fit` does.

    Example:
        >>> len(builtin("tanh", 2).borders), len(builtin("tanh", 2, sharing=False).borders)
        (6, 3)
    """
    known = function(name, parameters)
    if bits not in _TOGETHER or known.pieces is not None:
        return _wide(name, bits, weight, sharing, known.parameters)
    return _family(name, weight, sharing, known.parameters)[bits]


@functools.cache
def _wide(name: str, bits: int, weight: str, sharing: bool, parameters: Parameters) -> Quantizer:
    given = function(name, dict(parameters))
    return Quantizer.fit(given, bits, weight=weight, sharing=sharing)


@functools.cache
def _family(
    name: str, weight: str, sharing: bool, parameters: Parameters
) -> Mapping[int, Quantizer]:
    given = function(name, dict(parameters))
    sampled = samples(given, as_weight(weight), DOMAIN)
    found = best_tables(sampled, _TOGETHER, sharing=sharing)
    return {bits: from_table(table, given, bits) for bits, table in found.items()}
