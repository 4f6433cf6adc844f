"""Profiles and plans as a notebook shows them."""

from __future__ import annotations

import html.parser
import re

import torch
from torch import nn

import shoestring
from shoestring.core.markup import bar, table
from shoestring.core.units import format_bytes


class Cells(html.parser.HTMLParser):
    """Collects the texts of cells, and notes tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


class Script(nn.Sequential):
    """A model whose name must do no harm."""


Script.__name__ = "<script>alert(1)</script>"


def test_profile_and_plan() -> None:
    blocks = [nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)) for _ in range(3)]
    prof = shoestring.profile(
        Script(*blocks),
        torch.zeros(64, 8),
        optimizer=torch.optim.AdamW,
        loss=lambda y, x: y.square().mean(),
    )
    text = prof._repr_html_()
    assert "<script>" not in text
    rows = Cells(text).rows
    kinds = prof.trace.by_kind(prof.trace.peak_index)
    for kind, size in kinds.items():
        if size:
            assert [kind.value, format_bytes(size)] in [row[:2] for row in rows]
    plan = shoestring.plan(prof, shoestring.Budget(memory="85%"))
    text = plan._repr_html_()
    rows = Cells(text).rows
    for row in plan.rows:
        assert [row.label, format_bytes(row.figures.footprint)] in [cells[:2] for cells in rows]
    bold = re.findall(r'<tr class="marked" style="font-weight:bold"><th[^>]*>([^<]*)', text)
    assert [html.unescape(label) for label in bold] == [r.label for r in plan.rows if r.planned]


def test_what_comes_from_outside_is_escaped() -> None:
    text = table("<b>", ["<i>", "n"], [("a&b", bar(0.5))])
    assert Cells(text).rows == [["<i>", "n"], ["a&b", ""]]
    assert "<b>" not in text
