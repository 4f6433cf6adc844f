"""What autograd alone holds is told from what the step itself holds."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from shoestring.core.trace import Phase, Storage, Trace
from shoestring.measure.tracing.tracer import Tracer
from shoestring.planner.profiling import profile
from tests.zoo import ZOO, Case

WIDTH = 64


class Keeping(nn.Module):
    """Keeps one value in a list, another in a cache, lets go of a third, and returns a fourth."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.listed: list[torch.Tensor] = []
        self.cache: dict[str, tuple[torch.Tensor, ...]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        self.listed = [y.exp()]
        temporary = (self.listed[0] * y).tanh()
        self.cache = {"keys": (temporary.sigmoid(),)}
        result: torch.Tensor = (self.cache["keys"][0] * temporary).sin()
        return result


def mean_square(output: torch.Tensor, batch: object) -> torch.Tensor:
    return (output.cos() * 2).square().mean()


def step(model: nn.Module, batch: torch.Tensor, optimizer: object) -> None:
    mean_square(model(batch), batch).backward()
    assert isinstance(model, Keeping)
    model.listed.clear()
    model.cache.clear()


def traced() -> Trace:
    return profile(Keeping(), torch.ones(32, WIDTH), step=step).trace


def index_of(trace: Trace, name: str) -> int:
    found = [
        i
        for i, op in enumerate(trace.ops)
        if op.name == f"aten.{name}.default" and op.phase is Phase.FORWARD
    ]
    return found[0]


def made_by(trace: Trace, name: str) -> Storage:
    (found,) = [s for s in trace.storages if s.birth == index_of(trace, name)]
    return found


@pytest.mark.parametrize("name", ["exp", "sigmoid"], ids=["in a list", "in a cache"])
def test_what_the_model_holds_is_not_released_in_the_forward(name: str) -> None:
    trace = traced()
    border = next(i for i, op in enumerate(trace.ops) if op.phase is not Phase.FORWARD)
    storage = made_by(trace, name)
    assert storage.death is not None
    assert storage.death >= border
    assert storage.released is None or storage.released >= border


def test_a_temporary_is_released_once_the_forward_has_left_it() -> None:
    trace = traced()
    storage = made_by(trace, "tanh")
    assert storage.death is not None
    assert trace.ops[storage.death].phase is Phase.BACKWARD
    assert storage.released == index_of(trace, "sin")


def test_an_output_is_held_until_the_loss_is_there() -> None:
    trace = traced()
    sine, cosine = made_by(trace, "sin"), made_by(trace, "cos")
    assert sine.released == index_of(trace, "mean")
    assert cosine.released is None  # multiplied by a number, it is not kept
    assert cosine.death == index_of(trace, "cos") + 1


def test_calls_span_the_model_s_own_forward() -> None:
    trace = traced()
    assert trace.calls == ((0, index_of(trace, "sin") + 1),)
    assert trace.ops[trace.calls[0][1]].name == "aten.cos.default"


def test_a_model_that_is_called_twice_has_two_calls() -> None:
    def twice(model: nn.Module, batch: torch.Tensor, optimizer: object) -> None:
        (model(batch).sum() + model(batch * 2).sin().sum()).backward()

    trace = profile(nn.Linear(WIDTH, WIDTH), torch.ones(32, WIDTH), step=twice).trace
    names = [[op.name for op in trace.ops[start:stop]] for start, stop in trace.calls]
    assert names == [["aten.addmm.default"]] * 2


SOME = [case for case in ZOO if case.name in ("bert", "resnet", "fno")]


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
def test_following_what_is_saved_changes_nothing_else(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = case.batch(case.rows[0])
    found = []
    for following in (True, False):
        if not following:
            monkeypatch.setattr(Tracer, "following_saved", lambda self: contextlib.nullcontext())
        torch.manual_seed(0)
        trace = profile(case.build(), batch, loss=case.loss).trace
        seen = any(s.released is not None for s in trace.storages)
        assert seen is following
        lives = [(s.birth, s.death, s.nbytes, s.kind) for s in trace.storages]
        found.append((lives, [(op.name, op.reads, op.writes) for op in trace.ops]))
    assert found[0] == found[1]
