"""Draw the front of peak against time, and what torch offers beside it.

Usage: python -m bench.remat.picture [docs/images/remat.png]

The front is found now, for the GPT of the comparisons with torch; what torch offers is taken from
the results of those.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.harness import one_thread
from bench.remat.peers import COMPARISONS
from bench.remat.records import Record, read_part
from bench.remat.steps import SCALARS, fresh_cache
from shoestring.activations.remat.fitting import pareto
from shoestring.report.remat_front import Other, remat_front_chart

CELL = "budget-gpt-50"
"""A comparison on the model that is drawn."""


def others(results: list[Record]) -> list[Other]:
    """Return what is drawn beside the front.

    Args:
        results: of all comparisons; those on another model are left out.
    """
    model = COMPARISONS[CELL].model
    return [
        Other(
            str(record.figures["peer"]).replace("torch.utils.checkpoint", "checkpoint"),
            int(record.number("peer_peak")) - SCALARS,
            record.number("peer_overhead"),
        )
        for record in results
        if record.figures["model"] == model and "error" not in record.figures
    ]


def draw(target: Path) -> None:
    """Find the front and draw it.

    Args:
        target: PNG.
    """
    one_thread()
    compared = COMPARISONS[CELL]
    with fresh_cache():
        front = pareto(compared.build(), compared.batch())
    chart = remat_front_chart(front, others=others(read_part("peers")))
    target.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(target), scale_factor=2)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/remat.png"))
