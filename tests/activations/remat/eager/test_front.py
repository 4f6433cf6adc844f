"""Choices along the front say what the changed step says."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from shoestring.activations.remat.eager.front import front
from shoestring.activations.remat.eager.predict import recomputed
from shoestring.core.machine import Machine
from shoestring.core.trace import Kind, Phase, Trace
from shoestring.planner.profiling import profile
from tests.activations.remat.eager.traces import MACHINE, traces

FIXED = (Kind.PARAMETER, Kind.BUFFER, Kind.OPTIMIZER, Kind.BATCH, Kind.GRADIENT)


def seconds_again(trace: Trace, machine: Machine) -> float:
    return sum(machine.seconds(op) for op in trace.ops if op.phase is Phase.RECOMPUTE)


def assert_as_the_changed_step(trace: Trace, machine: Machine) -> int:
    choices = front(trace, machine)
    for choice in choices:
        changed = recomputed(trace, choice.sites)
        seconds = seconds_again(changed, machine) - seconds_again(trace, machine)
        assert choice.seconds == pytest.approx(seconds, rel=1e-9, abs=0)
        assert choice.peak == changed.peak
        spaces = [op.workspace for op in changed.ops]
        assert choice.alone == (changed.resident(lambda s: s.kind not in FIXED) + spaces).max()
    for one, next_one in itertools.pairwise(choices):
        assert one.seconds <= next_one.seconds
        assert next_one.peak < one.peak or next_one.alone < one.alone
    return len(choices)


@given(traces())
@settings(max_examples=40, deadline=None)
def test_figures_on_drawn_steps(trace: Trace) -> None:
    assert_as_the_changed_step(trace, MACHINE)


def test_figures_on_a_network() -> None:
    layers = [nn.Sequential(nn.Linear(32, 96), nn.GELU(), nn.Linear(96, 32)) for _ in range(5)]
    model = nn.Sequential(*layers)
    prof = profile(model, torch.ones(64, 32), loss=lambda output, batch: output.square().mean())
    assert assert_as_the_changed_step(prof.trace, prof.machine) >= 2
