"""Run folders of a small model that was really profiled, planned and trained a few steps."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import torch
from torch import nn

import shoestring
from shoestring.core.profile import Profile
from shoestring.core.run_folder import Entry, Memory, Run, RunFolder, Timeline
from shoestring.core.trace import Kind
from shoestring.measure.counting.profiled import count_of
from shoestring.planner.plan import Plan
from shoestring.report.thin import kept

STEPS = 40
VALUES = ("loss", "lr", "grad_norm", "seconds")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.layers = nn.ModuleList(Block() for _ in range(6))
        self.norm = nn.BatchNorm1d(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def loss(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return (output - batch[:, :4]).square().mean()


@dataclasses.dataclass(frozen=True)
class Made:
    """A real profile and plan, and the profile of the planned step."""

    plain: Profile
    planned: Profile
    plan: Plan

    @property
    def timeline(self) -> Timeline:
        modules = [dataclasses.asdict(cost) for cost in self.plain.modules.values()]
        return Timeline(memory(self.plain), memory(self.planned), modules)


def made() -> Made:
    torch.manual_seed(0)
    prof = shoestring.profile(
        Net(), torch.randn(512, 16), optimizer=torch.optim.AdamW, loss=loss, machine="this"
    )
    plan = shoestring.plan(prof, shoestring.Budget(memory="60%"))
    planned = prof
    for technique in plan.steps:
        planned = technique.predict(planned)
    return Made(prof, planned, plan)


def memory(prof: Profile) -> Memory:
    """Return the memory of a profile's step, thinned to a hundred points."""
    trace = prof.widest
    points = kept([int(size) for size in trace.timeline()], 100)
    by_kind = [trace.by_kind(i) for i in points]
    kinds = {kind.value: [sizes[kind] for sizes in by_kind] for kind in Kind}
    return Memory([trace.ops[i].phase.value for i in points], kinds, trace.peak)


def entries() -> list[Entry]:
    """Return the log of a few real steps."""
    torch.manual_seed(0)
    model, found = Net(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, STEPS + 1):
        batch = torch.randn(64, 16)
        value = loss(model(batch), batch)
        optimizer.zero_grad()
        value.backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), math.inf))
        optimizer.step()
        numbers = {"loss": value.item(), "lr": 1e-2, "grad_norm": norm, "seconds": 0.004}
        found.append(Entry(step, "train", numbers))
        if step % 10 == 0:
            with torch.no_grad():
                held = torch.randn(64, 16)
                error = float(loss(model(held), held))
            found.append(Entry(step, "eval", {"loss": error, "error": math.sqrt(error)}))
    return found


def run_of(source: Made, **changes: object) -> Run:
    plan = source.plan
    run = Run(
        model="tests.report.runs:Net",
        task="classification",
        command="shoestring train tests.report.runs:Net --data rows.csv --memory 60%",
        seed=0,
        started="2026-01-31T12:00:00Z",
        status="finished",
        steps=STEPS,
        step=STEPS,
        machine=plan.machine,
        versions=dict(plan.versions),
        data={"train": "2,560 rows of rows.csv", "evaluation": "64 rows of rows.csv"},
        budget=plan.budget,
        plan=json.loads(plan.to_json()),
        measured={
            "peak": 1.004 * plan.predicted.peak,
            "resident": 300 * 2.0**20,
            "seconds": 1.2 * plan.predicted.seconds,
        },
    )
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def write(path: Path, source: Made, log: list[Entry], **changes: object) -> Path:
    """Write a whole run folder, and return it."""
    folder = RunFolder(path)
    folder.write(run_of(source, **changes))
    for entry in log:
        folder.append(entry)
    folder.write_timeline(source.timeline)
    count_of(source.planned).save(folder.count)
    return path
