"""A changed model of transformers generates, saves and loads as before, and keeps its keys."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import shoestring
from shoestring.planner.planning import explore

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def llama() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=3000, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).train()


def batch() -> dict[str, torch.Tensor]:
    tokens = torch.arange(8 * 32).reshape(8, 32) % 2990 + 3
    return {"input_ids": tokens, "labels": tokens}


@functools.cache
def least() -> shoestring.Plan:
    prof = shoestring.profile(llama(), batch(), optimizer=torch.optim.AdamW)
    plan, _ = explore(prof, shoestring.Budget(memory=1))
    assert {"remat", "chunked-loss"} <= {step.name for step in plan.steps}
    return plan


def test_a_changed_model_generates_saves_and_loads(tmp_path: Path) -> None:
    model, plan = llama(), least()
    prompt = batch()["input_ids"][:2, :8]
    keys = list(model.state_dict())
    model.eval()
    expected = model.generate(prompt, max_new_tokens=8, do_sample=False)
    plan.apply(model)
    assert torch.equal(model.generate(prompt, max_new_tokens=8, do_sample=False), expected)
    assert list(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert torch.equal(again.generate(prompt, max_new_tokens=8, do_sample=False), expected)


def test_a_changed_model_gives_the_same_loss_and_logits() -> None:
    model, plan = llama(), least()
    plain = model(**batch())
    plan.apply(model)
    changed = model(**batch())
    assert type(changed) is type(plain)
    assert changed.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6)
    torch.testing.assert_close(changed.logits[:, -1], plain.logits[:, -1])
    plan.remove(model)
    assert torch.equal(model(**batch()).loss, plain.loss)


def test_what_is_free_can_be_the_budget() -> None:
    model = llama()
    prof = shoestring.profile(model, batch(), optimizer=torch.optim.AdamW)
    plan = shoestring.plan(prof, shoestring.Budget(memory="auto"))
    assert plan.steps == ()
    assert plan.budget is not None
    card = shoestring.profile(model, batch(), optimizer=torch.optim.AdamW, machine="l4")
    assert shoestring.plan(card, shoestring.Budget(memory="auto")).budget == card.machine.memory
