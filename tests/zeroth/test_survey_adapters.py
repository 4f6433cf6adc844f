"""Adapters take rates a hundred and a thousand times those of whole models: they are measured."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.zeroth import ZOSGD, suggest

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

LENGTH, WORDS = 12, 64


def counting(rows: int, stride: int, seed: int) -> torch.Tensor:
    """Return rows of words, each word `stride` after the last."""
    first = torch.randint(WORDS, (rows, 1), generator=torch.Generator().manual_seed(seed))
    return (first + stride * torch.arange(LENGTH)) % WORDS


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A language model that counts in threes."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for seed in range(100):
        optimizer.zero_grad()
        rows = counting(32, 3, seed)
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    return model.eval()


def asking(model: nn.Module) -> Callable[[], torch.Tensor]:
    """Return the losses of rows that count in fives."""
    rows = counting(64, 5, seed=1000)

    def losses() -> torch.Tensor:
        logits = model(input_ids=rows).logits[:, -LENGTH:-1]
        found = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        return found.view(64, -1).mean(1)

    return losses


def fall(model: nn.Module, lr: float, eps: float) -> float:
    """Return by how much the loss falls in 300 steps."""
    model = copy.deepcopy(model)
    losses = asking(model)
    opt = ZOSGD([p for p in model.parameters() if p.requires_grad], lr, eps)
    found = [float(opt.step(losses)) for _ in range(300)]
    return found[0] - found[-1]


@pytest.mark.parametrize(
    ("config", "least"),
    [
        (peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"), 30),
        (peft.PrefixTuningConfig(num_virtual_tokens=8, task_type="CAUSAL_LM"), 1000),
    ],
    ids=["lora", "prefix"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_no_thousandfold_surprise(trained: nn.Module, config: object, least: float) -> None:
    whole, _ = suggest(trained, asking(trained), steps=300)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(copy.deepcopy(trained), config).eval()
    lr, eps = suggest(adapted, asking(adapted), steps=300)
    assert lr > least * whole
    assert fall(adapted, lr, eps) > 0.4
    assert fall(adapted, whole, eps) < 0.05
