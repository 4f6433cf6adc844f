"""Draw the README's picture: memory over one step, plain and planned, from predicted profiles.

Usage: python -m bench.picture [docs/images/step.png]
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import altair as alt
import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

import shoestring
from shoestring.core.profile import Profile
from shoestring.core.trace import Kind
from shoestring.core.units import format_bytes
from shoestring.planner.search import predict

COLOURS = {
    Kind.PARAMETER: "#4c6a92",
    Kind.OPTIMIZER: "#7f9cc0",
    Kind.GRADIENT: "#d99a4e",
    Kind.ACTIVATION: "#5fa777",
    Kind.TEMPORARY: "#c96a6a",
}
MIB = 2**20
POINTS = 180


def rows(prof: Profile) -> list[dict[str, object]]:
    """Return the bytes of each kind over the time of a step, as rows of a table.

    Each of the points is the moment within its share of the time at which most is alive.
    """
    trace, machine = prof.trace, prof.machine
    when = np.cumsum([machine.seconds(op) for op in trace.ops])
    lines = {kind: trace.resident(lambda s, kind=kind: s.kind is kind) for kind in COLOURS}
    total = sum(lines.values())
    found: list[dict[str, object]] = []
    edges = np.searchsorted(when, np.linspace(0, when[-1], POINTS + 1))
    for point, (start, stop) in enumerate(itertools.pairwise(edges)):
        at = start + int(np.argmax(total[start : max(stop, start + 1)]))
        for order, (kind, line) in enumerate(lines.items()):
            found.append(
                {
                    "at": round(when[-1] * point / POINTS * 1e3, 1),
                    "kind": kind.value,
                    "MiB": round(int(line[at]) / MIB, 1),
                    "order": order,
                }
            )
    return found


def panel(prof: Profile, title: str, limit: int, until: float, most: float) -> alt.LayerChart:
    """Return one step's chart: stacked areas and the budget as a dashed line."""
    kinds = [kind.value for kind in COLOURS]
    area = alt.Chart(alt.Data(values=rows(prof))).mark_area(interpolate="step-after").encode(
        x=alt.X("at:Q", title="time in the step, estimated (ms)",
                   scale=alt.Scale(domain=[0, until], nice=False)),
        y=alt.Y("MiB:Q", stack="zero", title="MiB alive",
                   scale=alt.Scale(domain=[0, most])),
        color=alt.Color(
            "kind:N", sort=kinds, title=None,
            scale=alt.Scale(domain=kinds, range=list(COLOURS.values())),
            legend=alt.Legend(orient="bottom", direction="horizontal", columns=5),
        ),
        order="order:Q",
    )  # fmt: skip
    rule = alt.Chart(alt.Data(values=[{"MiB": limit / MIB}])).mark_rule(
        strokeDash=[6, 4], color="#222", size=1.5
    ).encode(y="MiB:Q")  # fmt: skip
    return alt.layer(area, rule).properties(width=360, height=230, title=title)


def draw(target: Path) -> None:
    """Profile MiniLM, plan for 60 % of it, and draw both steps."""
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        num_labels=3,
    )  # fmt: skip
    with torch.device("meta"):
        model = BertForSequenceClassification(config).train()
        tokens = torch.empty(32, 64, dtype=torch.long)
        batch = {"input_ids": tokens, "attention_mask": tokens, "labels": tokens[:, 0]}
    prof = shoestring.profile(model, batch, optimizer=torch.optim.AdamW)
    plan = shoestring.plan(prof, shoestring.Budget(memory="60%"))
    changed = predict(plan.steps, prof)
    assert changed is not None
    assert plan.budget is not None
    until, most = 1e3 * changed.seconds, 1.08 * prof.peak / MIB
    chart = (
        alt.hconcat(
            panel(prof, f"plain: {format_bytes(prof.peak)}", plan.budget, until, most),
            panel(
                changed,
                f"planned, same gradients: {format_bytes(changed.peak)}",
                plan.budget,
                until,
                most,
            ),
        )
        .properties(
            title=alt.Title(
                "MiniLM, batch 32x64, AdamW: what is alive during one training step",
                subtitle=f"dashed: a budget of 60 % of the plain peak, {format_bytes(plan.budget)}",
                anchor="start",
            )
        )
        .configure(background="white", font="sans-serif")
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(target), scale_factor=2)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/step.png"))
