"""Rows of few-bit backward."""

from __future__ import annotations

from typing import Final

from shoestring.catalog import papers
from shoestring.catalog.row import Row

ROWS: Final = (
    Row(
        name="fewbit.Quantizer",
        path="shoestring.activations.fewbit.quantizer:Quantizer",
        kind="record",
        summary="the best table of a few bits for the derivative of an activation",
        paper=papers.NOVIKOV,
    ),
)
