"""Counts to show and to keep: real ones, and any that hypothesis draws."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import nn

from shoestring.core.trace import Phase, Work
from shoestring.measure.counting.count import count
from shoestring.measure.counting.counts import Count, Counted, Row

WIDTH = 8


class Block(nn.Module):
    def __init__(self, width: int = 2 * WIDTH) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, width), nn.Linear(width, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x).relu())


class Net(nn.Module):
    """Blocks of the given widths between two layers."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.first = nn.Linear(4, WIDTH)
        self.body = nn.Module()
        self.body.layers = nn.ModuleList(Block(width) for width in widths)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.body.layers:
            x = layer(x)
        return self.head(x)


def counted_step(*widths: int, rows: int = 3) -> Count:
    """Return the count of one training step."""
    model = Net(*widths)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    with count(model) as c:
        model(torch.ones(rows, 4)).sum().backward()
        optimizer.step()
    return c


def count_of(*rows: Row, title: str = "made up", **figures: int) -> Count:
    """Return a count of rows."""
    made = Counted(title=title, params=figures.pop("params", 0), rows=rows, **figures)
    return Count(lambda: made)


def row(
    module: str = "",
    op: str = "aten.mm",
    *,
    phase: Phase = Phase.FORWARD,
    known: bool = True,
    calls: int = 1,
    **work: int,
) -> Row:
    """Return a row."""
    return Row(phase, module, op, "float32", known, Work(**work), calls)


AMOUNTS = st.integers(0, 2**40)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORKS = st.builds(Work, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
PATHS = TEXTS | st.text(alphabet="ab01.", max_size=7)
ROWS = st.builds(
    Row, st.sampled_from(Phase), PATHS, TEXTS, TEXTS, st.booleans(), WORKS, st.integers(1, 2**16)
)
COUNTED = st.builds(
    Counted,
    title=TEXTS,
    params=AMOUNTS,
    rows=st.lists(ROWS, max_size=8).map(tuple),
    activation_bytes=AMOUNTS,
    bytes_in=AMOUNTS,
    bytes_out=AMOUNTS,
)
