"""A few layers tell the trace of many, to the last storage."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

from shoestring.core.deepen import TEMPLATES, deepen
from shoestring.core.trace import Op, Phase, Trace
from shoestring.planner.adapters import add_adapters
from shoestring.planner.profiling import profile
from shoestring.planner.tracing import Retracer

transformers = pytest.importorskip("transformers")

DEEP = 11
WORDS = {"input_ids": torch.ones(4, 16, dtype=torch.int64)}
LABELLED = {**WORDS, "labels": torch.ones(4, 16, dtype=torch.int64)}
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99}

pytestmark = pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning")


def llama(layers: int) -> nn.Module:
    config = transformers.LlamaConfig(num_hidden_layers=layers, num_key_value_heads=2, **SIZES)
    return transformers.LlamaForCausalLM(config)


def gpt2(layers: int) -> nn.Module:
    config = transformers.GPT2Config(
        n_layer=layers, n_embd=32, n_head=4, vocab_size=99, bos_token_id=1, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config)


def bert(layers: int) -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(num_hidden_layers=layers, **SIZES))


class Block(nn.Module):
    def __init__(self, *, extra: bool = False) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)
        self.extra = extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.norm(x))
        return x + (y.tanh() if self.extra else y)


def perceptron(layers: int, every: int = 0) -> nn.Module:
    return nn.Sequential(
        *[Block(extra=every > 0 and i % every == every - 1) for i in range(layers)]
    )


MODELS = {
    "llama": (llama, LABELLED),
    "gpt2": (gpt2, LABELLED),
    "bert": (bert, WORDS),
    "perceptron": (perceptron, torch.ones(4, 8)),
}


def traced(
    build: Callable[[int], nn.Module],
    layers: int,
    batch: object,
    machine: str,
    change: Callable[[nn.Module], None] | None,
    **options: object,
) -> Trace:
    retrace = profile(build(layers), batch, machine=machine).retrace
    assert isinstance(retrace, Retracer)
    retrace.__dict__["_is_deep"] = False  # the whole, layer by layer
    return retrace(optimizer=False, change=change, **options)


CHANGES: dict[str, tuple[Callable[[nn.Module], None] | None, dict[str, object]]] = {
    "plain": (None, {}),
    "forward": (None, {"backward": False}),
    "autocast": (None, {"autocast": torch.bfloat16}),
    "adapters": (functools.partial(add_adapters, rank=2), {}),
    "4-bit": (functools.partial(add_adapters, rank=2, nf4=True), {}),
}


@pytest.mark.parametrize("machine", ["this", "rtx-4090"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_trace_of_the_deep_model(name: str, change: str, machine: str) -> None:
    build, batch = MODELS[name]
    changed, options = CHANGES[change]
    few = traced(build, TEMPLATES, batch, machine, changed, **options)
    whole = traced(build, DEEP, batch, machine, changed, **options)
    assert deepen(few, DEEP) == whole
    assert deepen(few, TEMPLATES) == few


def test_layers_that_differ_are_not_repeated() -> None:
    batch = torch.ones(4, 8)
    for every in (2, 3, 4):
        build = functools.partial(perceptron, every=every)
        assert deepen(traced(build, TEMPLATES, batch, "this", None), DEEP) is None
    assert deepen(traced(perceptron, TEMPLATES - 1, batch, "this", None), DEEP) is None


def test_an_optimizer_step_is_not_repeated() -> None:
    few = traced(perceptron, TEMPLATES, torch.ones(4, 8), "this", None)
    last = Op("step", Phase.OPTIMIZER, "")
    changed = Trace((*few.ops, last), few.storages, few.blocks, few.rows, few.accumulated)
    assert deepen(changed, DEEP) is None


@pytest.mark.parametrize("every", [0, 7])
def test_a_profile_uses_it_only_where_it_gives_the_whole_trace(every: int) -> None:
    model = perceptron(DEEP, every=every)
    prof = profile(model, torch.ones(4, 8), optimizer=torch.optim.AdamW)
    retrace = prof.retrace
    assert isinstance(retrace, Retracer)
    assert retrace._is_deep is (every == 0)
    again = retrace(optimizer=False)
    assert again.peak_at(4) == again.peak
    assert [op.name for op in again.ops] == [op.name for op in prof.trace.ops[: len(again.ops)]]


def test_sizes_by_row_come_with_it() -> None:
    prof = profile(llama(DEEP), LABELLED, optimizer=torch.optim.AdamW)
    retrace = prof.retrace
    assert isinstance(retrace, Retracer)
    deep = retrace(optimizer=False, by_row=True)
    retrace.__dict__["_is_deep"] = False
    whole = retrace(optimizer=False, by_row=True)
    assert deep == whole
    assert deep.peak_at(2) == retrace(rows=2, optimizer=False).peak
