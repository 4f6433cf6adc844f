"""Draw accuracy against forward passes and against time, for every method that has been run.

Usage: python -m bench.zeroth.finetune.picture [docs/images/zeroth.png]

Accuracy is that on the rows to choose by, at six places of each run, the mean of the seeds. Time is
in that of ZOSGD's run of the same mode. A forward with its backward counts as three passes.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Final

import altair as alt

from bench.harness import RESULTS
from bench.zeroth.finetune.methods import METHODS
from bench.zeroth.finetune.table import MODES, whole
from shoestring.report.figure import BLUE, GREEN, GREY, OCHRE, ORANGE, PINK, PURPLE

COLOURS: Final = (BLUE, GREY, ORANGE, GREEN, OCHRE, PINK, PURPLE, "#222222")
SIDES: Final = {"passes": "forward passes", "time": "time, in ZOSGD's"}
BACKWARD: Final = 3
"""Forward passes that a forward and its backward count as."""


def places(results: Path = RESULTS) -> list[dict[str, object]]:
    """Return accuracy, passes and time at each place where runs were scored.

    Args:
        results: folder of all results.
    """
    found: list[dict[str, object]] = []
    for mode, title in MODES.items():
        runs = {name: whole(results, mode, name, "loss") for name in METHODS}
        if not runs["zosgd"]:
            continue
        unit = statistics.fmean(float(str(run["seconds"])) for run in runs["zosgd"])
        for name, of_seeds in runs.items():
            curves = [curve for run in of_seeds if isinstance(curve := run["curve"], list)]
            for points in zip(*curves, strict=True):
                step = points[0][0]
                found.append(
                    {
                        "mode": title,
                        "method": METHODS[name].title,
                        "passes": step * (METHODS[name].evaluations or BACKWARD),
                        "time": statistics.fmean(point[1] for point in points) / unit,
                        "accuracy": 100 * statistics.fmean(point[3] for point in points),
                    }
                )
    return found


def chart(rows: list[dict[str, object]]) -> alt.VConcatChart:
    """Return the chart: a line of panels for each mode.

    Args:
        rows: of `places`.
    """
    titles = [method.title for method in METHODS.values()]
    used = [
        (t, c) for t, c in zip(titles, COLOURS, strict=True) if any(r["method"] == t for r in rows)
    ]
    colour = alt.Color(
        "method:N",
        title=None,
        scale=alt.Scale(domain=[t for t, _ in used], range=[c for _, c in used]),
        legend=alt.Legend(orient="right", symbolStrokeWidth=2),
    )

    def panel(mode: str, side: str) -> alt.Chart:
        return (
            alt.Chart(alt.Data(values=[row for row in rows if row["mode"] == mode]))
            .mark_line(point=alt.OverlayMarkDef(size=24), strokeWidth=1.6)
            .encode(
                x=alt.X(f"{side}:Q", title=SIDES[side], axis=alt.Axis(grid=False, tickCount=5)),
                y=alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=False, nice=True)),
                color=colour,
            )
            .properties(width=320, height=200, title=mode if side == "passes" else "")
        )

    modes = dict.fromkeys(str(row["mode"]) for row in rows)
    lines = [alt.hconcat(*(panel(mode, side) for side in SIDES)) for mode in modes]
    return alt.vconcat(*lines).configure_view(stroke=None).configure_axis(gridColor="#e4e4e4")


def draw(target: Path) -> None:
    """Draw what has been run.

    Args:
        target: PNG.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    chart(places()).save(str(target), scale_factor=2)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/zeroth.png"))
