"""Attention at all places: the places are laid into the batch, which every kernel takes."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F

from shoestring.zeroth.twin.places import Places
from shoestring.zeroth.twin.products import Given

_OPTIONS: Final = {"dropout_p", "is_causal", "scale", "enable_gqa"}
NAMES: Final = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def attention(places: Places, given: Given) -> torch.Tensor | None:
    """Return scaled dot-product attention; `torch.vmap` alone would call it place by place.

    Args:
        places: of the call.
        given: as to `torch.nn.functional.scaled_dot_product_attention`.
    """
    inputs = [given["query"], given["key"], given["value"]]
    mask = given.get("attn_mask")
    every = inputs if mask is None else [*inputs, mask]
    if given.get("dropout_p", 0.0) > 0:  # the same numbers for all places: as vmap draws them
        return None
    if any(places.is_moved(x) or not places.can_lower(x) for x in every):
        return None
    if min(x.dim() for x in inputs) != max(x.dim() for x in inputs) or inputs[0].dim() < 3:
        return None
    if all(places.is_plain(x) for x in every):
        return None
    rows = max(x.size(0) for x in inputs)
    query, key, value = (_folded(places, x, rows) for x in inputs)
    if mask is not None:
        mask = _mask(places, mask, rows, inputs[0].dim())
    options = {name: given[name] for name in _OPTIONS & given.keys()}
    found = F.scaled_dot_product_attention(query, key, value, mask, **options)
    return places.raised(found.unflatten(0, (len(places), -1)))


def _folded(places: Places, x: torch.Tensor, rows: int) -> torch.Tensor:
    """Return ``[places * rows, ...]``."""
    values, differ = places.lowered(x)
    if not differ:
        values = values.expand(len(places), *values.shape)
    return values.expand(len(places), rows, *values.shape[2:]).flatten(0, 1)


def _mask(places: Places, mask: torch.Tensor, rows: int, dims: int) -> torch.Tensor:
    """Return a mask for all places: as it is where it is the same for all rows of a batch."""
    values, differ = places.lowered(mask)
    if not differ and (mask.dim() < dims or mask.size(0) == 1):
        return values
    if not differ:
        values = values.expand(len(places), *values.shape)
    while values.dim() < dims + 1:
        values = values.unsqueeze(1)
    return values.expand(len(places), rows, *values.shape[2:]).flatten(0, 1)
