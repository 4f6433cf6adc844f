"""What the tests of trainers share: a small model, its batches, and plans of one technique."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import nn

from shoestring.activations import ChunkedLoss, MicroBatches, Offload, Rematerialisation
from shoestring.core.budget import Budget
from shoestring.core.technique import Technique
from shoestring.optim import ReleaseGradients, SlicedStep
from shoestring.planner.plan import Plan
from shoestring.planner.planning import explore
from shoestring.planner.profiling import profile

Weights: TypeAlias = dict[str, torch.Tensor]
Batch: TypeAlias = dict[str, torch.Tensor]


def again_in(layer: int) -> tuple[str, ...]:
    """What is computed again in one layer: the norms, attention and most of the perceptron."""
    path = f"model.layers.{layer}"
    norm = "aten.pow.Tensor_Scalar 0, aten.mul.Tensor 0 1"
    return (
        f"{path}.input_layernorm: {norm}",
        f"{path}.self_attn: aten._scaled_dot_product_flash_attention_for_cpu.default 0",
        f"{path}.post_attention_layernorm: {norm}",
        f"{path}.mlp.gate_proj: aten.mm.default 0",
        f"{path}.mlp.up_proj: aten.mm.default 0",
        f"{path}.mlp.act_fn: aten.silu.default 0",
        f"{path}.mlp: aten.mul.Tensor 0",
    )


TECHNIQUES: Mapping[str, Technique] = {
    technique.name: technique
    for technique in (
        Rematerialisation(again=tuple(line for n in range(2) for line in again_in(n))),
        ChunkedLoss(head="lm_head"),
        SlicedStep(),
        ReleaseGradients(),
        MicroBatches(parts=2, weight_by="shifted-labels"),
        Offload(min_bytes=0),
    )
}
ROUNDED = {"chunked-loss", "micro-batches"}
"""Techniques that promise the plain gradients to rounding; the others promise the same bits."""

ADAMW = functools.partial(torch.optim.AdamW, lr=1e-3)
# For what differs by rounding: AdamW turns a tiny difference of a tiny gradient into a large one.
SGD = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def language_model(vocabulary: int = 2000, width: int = 64, layers: int = 2) -> nn.Module:
    """A Llama without dropout."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=160, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def tokens(seed: int = 0, rows: int = 8, length: int = 31) -> Batch:
    """A batch of the language model, unequally padded at the end of the last row.

    Of an odd length: sums over a power of two are cut in halves by some processors as by us.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2000, (rows, length), generator=generator)
    labels = ids.clone()
    labels[-1, length // 2 :] = -100
    return {"input_ids": ids, "labels": labels}


@functools.cache
def plain_plan(optimizer: Callable[..., torch.optim.Optimizer] = ADAMW) -> Plan:
    """A plan that changes nothing."""
    prof = profile(language_model(), tokens(), optimizer=optimizer)
    found, reason = explore(prof, Budget(memory="100%"))
    assert reason is None
    assert found.steps == ()
    return found


def plan_of(*names: str, optimizer: Callable[..., torch.optim.Optimizer] = ADAMW) -> Plan:
    """A plan of named techniques; its figures are those of the plain step."""
    steps = sorted((TECHNIQUES[name] for name in names), key=lambda t: t.slot)
    return dataclasses.replace(plain_plan(optimizer), steps=tuple(steps))


def weights(model: nn.Module) -> Weights:
    """A copy of the parameters, whole where they are sharded."""
    found = {}
    for name, parameter in model.named_parameters():
        full = getattr(parameter.detach(), "full_tensor", parameter.detach)()
        found[name.replace("_orig_mod.", "").removeprefix("module.")] = full.clone()
    return found


def apart(one: Weights, other: Weights, start: Weights | None = None) -> float:
    """How far two runs are apart, against how far they came from the start."""
    assert one.keys() == other.keys()
    beginning = weights(language_model()) if start is None else start

    def size(a: Weights, b: Weights) -> float:
        return sum(float((a[n] - b[n]).double().square().sum()) for n in a) ** 0.5

    moved = size(one, beginning)
    assert moved > 0, "nothing was trained"
    return size(one, other) / moved


def close(optimizer: object) -> None:
    """Remove the hooks of an optimizer that has some."""
    getattr(optimizer, "close", lambda: None)()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Bits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
