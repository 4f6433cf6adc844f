"""Normalisations at all places: by one kernel, with weights of each place."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F

from shoestring.zeroth.twin.places import Places
from shoestring.zeroth.twin.products import Given, Rules


def layer_norm(places: Places, given: Given) -> torch.Tensor | None:
    """Return normalised rows.

    Args:
        places: of the call.
        given: as to `torch.nn.functional.layer_norm`.
    """
    x, weight, bias = given["input"], given.get("weight"), given.get("bias")
    known = all(places.shift(one) or places.is_plain(one) for one in (weight, bias))
    same = all(one is None or one.dtype is x.dtype for one in (weight, bias))
    wide = x.dtype in {torch.float32, torch.float64}
    if weight is None or not (known and same and wide) or not places.can_lower(x):
        return None
    values, differ = places.lowered(places.input(x, "layer_norm"))
    found = F.layer_norm(values, given["normalized_shape"], eps=given.get("eps", 1e-5))
    if not differ:
        found = found.unsqueeze(0)
    factors = places.every(weight, found.dim(), "layer_norm")
    if bias is None:
        return places.raised(found * factors)
    return places.raised(
        torch.addcmul(places.every(bias, found.dim(), "layer_norm"), found, factors)
    )


NORMS: Final[Rules] = {
    F.layer_norm: (("input", "normalized_shape", "weight", "bias", "eps"), layer_norm),
}
"""Functions, the names of their arguments in their order, and rules."""
