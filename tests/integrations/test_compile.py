"""Autocast, GradScaler and torch.compile: each technique works, has no effect, or is refused.

The table of the guide is compared with what is found here by running.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from torch import nn

import shoestring.activations.offload as offload_module
from shoestring.core.errors import NoEffectWarning, RefusedError
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.planner.plan import Plan
from shoestring.planner.profiling import fingerprint
from tests.integrations.planned import (
    ROUNDED,
    SGD,
    TECHNIQUES,
    Weights,
    apart,
    close,
    language_model,
    one_thread,
    plan_of,
    tokens,
    weights,
)

pytest.importorskip("transformers")

Backend: TypeAlias = str | Callable[[torch.fx.GraphModule, object], Callable[..., object]]

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "mixed_precision_and_compile.md"
STEPS = 2
COLUMNS = ("autocast", "GradScaler", "model compiled", "blocks compiled")
ROUNDING = {"autocast": 2**-8, "GradScaler": 1e-5, "model compiled": 1e-5, "blocks compiled": 1e-5}
"""Of how far the weights moved: bfloat16 keeps 8 bits."""

MODELS: Mapping[str, Mapping[str, int]] = {
    "sliced-step": {"vocabulary": 20000},
    "release-gradients": {"width": 128, "layers": 8},
}
"""Models whose peak is the optimizer's step: of one large parameter, of many small ones."""

pytestmark = [
    pytest.mark.timeout(200),
    # torch's compiler looks at the gradients of all that goes into a block.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:the head is compiled together"),
]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch._dynamo.reset()
    with one_thread():
        yield


def compiled(model: nn.Module, column: str, backend: Backend = "aot_eager") -> None:
    """Compile a model in place as a column of the table says."""
    if column == "model compiled":
        model.compile(backend=backend)
    if column == "blocks compiled":
        for layer in model.model.layers:
            layer.compile(backend=backend)


def train(
    plan: Plan,
    column: str,
    *,
    late: bool = False,
    backend: Backend = "aot_eager",
    dropout: float = 0.0,
) -> Weights:
    """Train the small model; plainly with a plan that changes nothing."""
    model = language_model()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    if late:
        compiled(model, column, backend)
    plan.apply(model)
    if not late:
        compiled(model, column, backend)
    optimizer = plan.optimizer(model.parameters(), **SGD.keywords)
    scaler = torch.amp.GradScaler("cpu", enabled=column == "GradScaler")
    torch.manual_seed(1)
    try:
        for step in range(STEPS):
            with plan.context():
                for part, weight in plan.split(tokens(step)):
                    with torch.autocast("cpu", torch.bfloat16, enabled=column == "autocast"):
                        loss = weight * model(**part).loss
                    scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    finally:
        close(optimizer)
    return weights(model)


@functools.cache
def plainly(column: str) -> Weights:
    return train(plan_of(optimizer=SGD), column)


def gradients(name: str, column: str) -> str:
    """Put in the table's words how training with a technique compares."""
    expected = plainly(column)
    try:
        got = train(plan_of(name, optimizer=SGD), column)
    except RefusedError:
        return "refused"
    if all(torch.equal(expected[n], got[n]) for n in expected):
        return "same bits"
    gap = apart(expected, got)
    return "same to rounding" if gap < ROUNDING[column] else f"{gap} apart"


# --- whether memory is saved ---------------------------------------------------------------


@functools.cache
def above(names: tuple[str, ...], of: str, column: str, late: bool = False) -> int:
    """The measured peak of a step, above what stands throughout, on the model of a technique."""
    torch._dynamo.reset()
    model = language_model(**MODELS.get(of, {}))
    plan = dataclasses.replace(plan_of(*names), fingerprint=fingerprint(model))
    batch = tokens(rows=1, length=4) if of in MODELS else tokens()
    if late:
        compiled(model, column)
    plan.apply(model)
    if not late:
        compiled(model, column)
    optimizer = plan.optimizer(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        with plan.context():
            for part, weight in plan.split(batch):
                (weight * model(**part).loss).backward()
        optimizer.step()

    step()
    step()
    found = measure_step(step, roots=lambda: standing(model, batch, optimizer))
    close(optimizer)
    return found.peak - found.static


def saving(name: str, column: str, late: bool = False) -> float:
    """The share of a step's memory, above what stands, that a technique saves."""
    of = name if name in MODELS else ""
    return 1 - above((name,), of, column, late) / above((), of, column)


def saves(name: str, column: str, late: bool = False) -> bool:
    """Whether a technique saves at least half of what it saves without the compiler."""
    return saving(name, column, late) >= saving(name, "eager") / 2


def has_effect(name: str, column: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    if name != "offload":
        return saves(name, column)
    # On a CPU nothing is saved by it; what it moves is counted.
    moved: list[int] = []
    plain = offload_module._Moved.back

    def counted(self: offload_module._Moved) -> torch.Tensor:
        moved.append(1)
        return plain(self)

    monkeypatch.setattr(offload_module._Moved, "back", counted)
    train(plan_of(name, optimizer=SGD), column)
    return bool(moved)


# --- the table -----------------------------------------------------------------------------


def table() -> Mapping[tuple[str, str], str]:
    """Return (technique, column) -> cell of the guide's table."""
    text = GUIDE.read_text(encoding="utf-8").split("<!-- table: works -->")[1]
    header, _, *rows = text.strip().split("\n\n")[0].splitlines()
    columns = [words.strip() for words in header.split("|")[2:-1]]
    assert tuple(columns) == COLUMNS
    return {
        (parts[1].strip(), column): words.strip()
        for parts in (row.split("|") for row in rows)
        for column, words in zip(columns, parts[2:-1], strict=True)
    }


def test_the_table_has_every_technique() -> None:
    assert set(table()) == {(name, column) for name in TECHNIQUES for column in COLUMNS}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_cell_is_what_is_found(name: str, column: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = gradients(name, column)
    assert cell in ("refused", "same bits", "same to rounding")
    assert cell != "same to rounding" or name in ROUNDED
    if "compiled" in column and not has_effect(name, column, monkeypatch):
        cell = "no effect"
    assert cell == table()[name, column]


@pytest.mark.parametrize("column", ["model compiled", "blocks compiled"])
@pytest.mark.parametrize("name", ["remat", "chunked-loss"])
def test_the_order_of_applying_and_compiling_does_not_matter(name: str, column: str) -> None:
    plan = plan_of(name, optimizer=SGD)
    early, late = train(plan, column), train(plan, column, late=True)
    assert all(torch.equal(early[n], late[n]) for n in early)
    assert saves(name, column, late=True) == saves(name, column)


# --- beside the table ----------------------------------------------------------------------


@pytest.mark.parametrize("column", ["model compiled", "blocks compiled"])
def test_dropout_in_compiled_blocks_that_run_again_draws_the_same_numbers(column: str) -> None:
    plain = train(plan_of(optimizer=SGD), column, dropout=0.5)
    assert apart(plain, plainly(column)) > 0.01, "dropout did nothing"
    got = train(plan_of("remat", optimizer=SGD), column, dropout=0.5)
    assert all(torch.equal(plain[n], got[n]) for n in plain)


@pytest.mark.parametrize("column", ["model compiled", "blocks compiled"])
def test_a_step_that_computes_again_runs_operator_by_operator(column: str) -> None:
    compiled_graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        compiled_graphs.append(graph)
        return graph.forward

    train(plan_of("remat", optimizer=SGD), column, backend=backend)
    assert not compiled_graphs
    torch._dynamo.reset()  # it remembers which code it left alone
    train(plan_of(optimizer=SGD), column, backend=backend)
    assert compiled_graphs


def test_a_plan_is_applied_to_the_model_inside_what_torch_compile_returns() -> None:
    model = language_model()
    wrapped = torch.compile(model, backend="aot_eager")
    plan = plan_of("remat")
    plan.apply(wrapped)
    assert plan.applied(model)
    assert plan.applied(wrapped)
    wrapped(**tokens()).loss.backward()
    plan.remove(wrapped)
    assert not plan.applied(model)


def test_grad_scaler_is_refused_by_name_where_gradients_are_used_in_backward() -> None:
    with pytest.raises(RefusedError, match="used in backward and are gone"):
        train(plan_of("release-gradients", optimizer=SGD), "GradScaler")


def test_a_loss_that_is_not_taken_in_chunks_when_compiled_is_warned_of() -> None:
    with pytest.warns(NoEffectWarning):
        train(plan_of("chunked-loss", optimizer=SGD), "model compiled")


def test_blocks_that_are_compiled_by_themselves_are_not_said_to_be_idle() -> None:
    model = language_model()
    plan_of("remat").apply(model)
    compiled(model, "blocks compiled")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model(**tokens()).loss.backward()
    assert not [warning for warning in seen if warning.category is NoEffectWarning]
