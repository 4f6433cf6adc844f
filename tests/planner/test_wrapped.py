"""Models that torch has wrapped: profiled as what is inside, or refused by name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import shoestring
from shoestring.core.errors import InputError, RefusedError
from shoestring.core.profile import Profile
from shoestring.core.trace import Kind
from shoestring.optim import ReleaseGradients
from shoestring.planner.wrapped import COMPILED

BATCH = torch.zeros(4, 16)
TRAINABLE = 4 * (16 * 64 + 64 + 64 * 16 + 16)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))


def loss(output: object, batch: object) -> torch.Tensor:
    assert isinstance(output, torch.Tensor)
    return output.square().mean()


profiled = functools.partial(
    shoestring.profile, batch=BATCH, optimizer=torch.optim.AdamW, loss=loss
)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[None]:
    """One process by itself, which is enough for a wrapper."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("torch was built without gloo")
    store = (tmp_path / "store").as_uri()
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def gradients(prof: Profile) -> int:
    return sum(s.nbytes for s in prof.trace.storages if s.kind is Kind.GRADIENT)


def test_copies_stand_beside_the_gradients_for_the_whole_step() -> None:
    plain, copies = profiled(network()), profiled(network(), ddp="copies")
    assert copies.peak == plain.peak + TRAINABLE
    assert copies.static == plain.static + TRAINABLE
    assert gradients(copies) == 2 * gradients(plain)
    assert copies.modules[""].gradients == 2 * plain.modules[""].gradients


def test_views_stand_too_and_cost_nothing_where_all_gradients_are_there() -> None:
    plain, views = profiled(network()), profiled(network(), ddp="views")
    assert views.static == plain.static + TRAINABLE
    assert plain.trace.ops[plain.trace.peak_index].phase == "optimizer"
    assert views.peak == plain.peak


def test_a_wrapper_says_by_itself_what_its_gradients_are(process: None) -> None:
    for views, word in ((False, "copies"), (True, "views")):
        wrapped = DistributedDataParallel(network(), gradient_as_bucket_view=views)
        found = profiled(wrapped)
        assert found.step.ddp == word
        assert found.trace == profiled(network(), ddp=word).trace
        assert found.step.fingerprint == profiled(network()).step.fingerprint
        assert profiled(torch.compile(wrapped, backend="eager")).step.ddp == word


def test_gradients_that_are_averaged_are_not_used_in_backward(process: None) -> None:
    assert "averaged" in ReleaseGradients().refuse(profiled(network(), ddp="copies"))
    # What was planned without a word of it raises, though a single process averages nothing.
    wrapped = DistributedDataParallel(network())
    optimizer = ReleaseGradients().make_optimizer(torch.optim.AdamW(wrapped.parameters()))
    with pytest.raises(RefusedError, match="used in backward and are gone"):
        wrapped(BATCH).square().mean().backward()
    optimizer.step()


def test_a_plan_for_several_processes_is_kept_and_not_verified_by_one(tmp_path: Path) -> None:
    model = network()
    plan = shoestring.plan(profiled(model, ddp="views"), shoestring.Budget(memory="1GiB"))
    plan.save(tmp_path / "plan.json")
    assert shoestring.Plan.load(tmp_path / "plan.json").ddp == "views"
    with pytest.raises(InputError, match="one process cannot verify"):
        plan.verify(model, BATCH, loss=loss)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="ddp='buckets' is not known"):
        profiled(network(), ddp="buckets")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="step of your own"):
        shoestring.profile(
            network(), BATCH, optimizer=torch.optim.SGD, step=lambda *a: None, ddp="copies"
        )


def test_a_step_of_the_user_s_own_has_no_buckets_to_count(process: None) -> None:
    wrapped = DistributedDataParallel(network())
    with pytest.raises(InputError, match="step of your own"):
        shoestring.profile(wrapped, BATCH, optimizer=torch.optim.SGD, step=lambda *a: None)


def test_a_compiled_model_is_profiled_as_it_runs_without_the_compiler() -> None:
    plain = profiled(network())
    model = network()
    returned = torch.compile(model, backend="eager")
    by_itself, inside = network(), network()
    by_itself.compile(backend="eager")
    inside[0].compile(backend="eager")
    for compiled in (returned, by_itself, inside):
        found = profiled(compiled)
        assert found.trace == plain.trace
        assert COMPILED in found.assumptions
    assert COMPILED not in profiled(model).assumptions
    torch.compiler.reset()
    calls: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        calls.append(1)
        return graph.forward

    again = torch.compile(network(), backend=counting)
    profiled(again)
    again(BATCH)
    assert calls, "profiling has switched the compiler off"


def test_a_model_that_is_spread_is_refused_by_name(process: None) -> None:
    from torch.distributed.fsdp import fully_shard

    sharded = network()
    fully_shard(sharded)
    with pytest.raises(RefusedError, match="the model is sharded"):
        profiled(sharded)
    with pytest.raises(RefusedError, match="DataParallel copies"):
        profiled(DataParallel(network()))
