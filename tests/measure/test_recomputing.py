"""What runs within a backward and repeats a forward is told from what differentiates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    checkpoint,
    create_selective_checkpoint_contexts,
    set_checkpoint_early_stop,
)

from shoestring.measure import _torch

FORWARD, AGAIN, BACKWARD = "forward", "recompute", "backward"
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
UNIT = 16384  # FLOPs of the two products below


class Watch(TorchDispatchMode):
    """FLOPs of matrix products and calls of all operators, by phase."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        node = _torch.current_node()
        phase = FORWARD if node is None else AGAIN if _torch.is_recomputing(node) else BACKWARD
        if func in PRODUCTS:
            left, right = args[-2:]
            assert isinstance(left, torch.Tensor)
            assert isinstance(right, torch.Tensor)
            self.flops[phase] += 2 * left.numel() * right.shape[-1]
        self.calls[phase, func.name()] += 1
        return func(*args, **(kwargs or {}))


def block() -> nn.Sequential:
    """Two products of 8192 FLOPs each at 4 rows."""
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))


def inputs() -> torch.Tensor:
    return torch.randn(4, 32, requires_grad=True)


def stepped(run: Callable[[torch.Tensor], torch.Tensor]) -> Counter[str]:
    x = inputs()
    with Watch() as watch:
        run(x).sum().backward()
    return watch.flops


@pytest.mark.parametrize(
    ("reentrant", "early", "again"),
    [(False, True, UNIT // 2), (False, False, UNIT), (True, True, UNIT)],
)
def test_recompute_stands_apart_from_forward_and_backward(
    reentrant: bool, early: bool, again: int
) -> None:
    inner = block()
    with set_checkpoint_early_stop(early):
        flops = stepped(lambda x: checkpoint(inner, x, use_reentrant=reentrant))
    assert flops == {FORWARD: UNIT, AGAIN: again, BACKWARD: 2 * UNIT}


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_checkpoints_in_checkpoints(outer: bool, inner: bool) -> None:
    layers = block()

    def nested(x: torch.Tensor) -> torch.Tensor:
        return checkpoint(layers, x, use_reentrant=inner) + 1.0

    with set_checkpoint_early_stop(False):
        flops = stepped(lambda x: checkpoint(nested, x, use_reentrant=outer))
    # The outer one repeats the whole, to have the inner one's input; then the inner one does.
    assert flops == {FORWARD: UNIT, AGAIN: 2 * UNIT, BACKWARD: 2 * UNIT}


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_forward_without_gradients_is_recomputed_too(reentrant: bool) -> None:
    frozen, trained = block(), block()

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mask = frozen(x)
        return trained(x * mask)

    with set_checkpoint_early_stop(False):
        flops = stepped(lambda x: checkpoint(forward, x, use_reentrant=reentrant))
    assert flops == {FORWARD: 2 * UNIT, AGAIN: 2 * UNIT, BACKWARD: 2 * UNIT}


def test_a_backward_that_makes_a_graph_recomputes_nothing() -> None:
    inner, x = block(), inputs()
    with Watch() as watch:
        (slope,) = torch.autograd.grad(inner(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert watch.flops[AGAIN] == 0
    assert watch.flops[FORWARD] == UNIT
    assert watch.flops[BACKWARD] > 2 * UNIT  # also that of the first backward


def test_a_checkpoint_recomputes_in_each_of_two_backwards() -> None:
    inner, x = block(), inputs()
    with Watch() as watch, set_checkpoint_early_stop(False):
        y = checkpoint(inner, x, use_reentrant=False).square().sum()
        (slope,) = torch.autograd.grad(y, x, create_graph=True)
        assert watch.flops == {FORWARD: UNIT, AGAIN: UNIT, BACKWARD: UNIT}
        slope.square().sum().backward()
    assert watch.flops[FORWARD] == UNIT
    assert watch.flops[AGAIN] == 2 * UNIT


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True")
def test_a_re_entrant_checkpoint_recomputes_where_a_graph_is_made() -> None:
    inner, x = block(), inputs()
    with Watch() as watch:
        y = checkpoint(inner, x, use_reentrant=True).square().sum()
        y.backward(create_graph=True)
    assert watch.flops == {FORWARD: UNIT, AGAIN: UNIT, BACKWARD: 2 * UNIT}
    x.grad = None  # it refers to the graph, which refers to it
    for parameter in inner.parameters():
        parameter.grad = None


def test_hooks_that_keep_tensors_elsewhere_recompute_nothing() -> None:
    inner = block()
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        flops = stepped(inner)
    assert flops == {FORWARD: UNIT, BACKWARD: 2 * UNIT}


class Own(torch.autograd.Function):
    """A checkpoint of another library's making."""

    @staticmethod
    def forward(ctx, layers, x):  # type: ignore[no-untyped-def]
        ctx.layers = layers
        ctx.save_for_backward(x)
        with torch.no_grad():
            return layers(x)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.layers(x)
        torch.autograd.backward(y, gradient)
        return None, x.grad


def test_checkpoints_of_other_libraries_are_seen() -> None:
    assert stepped(partial(Own.apply, block())) == {
        FORWARD: UNIT,
        AGAIN: UNIT,
        BACKWARD: 2 * UNIT,
    }


class Half(torch.autograd.Function):
    """Its backward multiplies and repeats nothing."""

    @staticmethod
    def forward(ctx, x, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        return gradient @ weight.T, x.T @ gradient


@pytest.mark.parametrize("create_graph", [True, False])
def test_a_function_s_own_backward_is_no_recomputation(create_graph: bool) -> None:
    x, weight = inputs(), torch.randn(32, 32, requires_grad=True)
    with Watch() as watch:
        torch.autograd.grad(Half.apply(x, weight).sum(), (x, weight), create_graph=create_graph)
    assert watch.flops == {FORWARD: UNIT // 2, BACKWARD: UNIT}


def test_selective_checkpoints_recompute_what_was_not_kept() -> None:
    inner = block()
    keep = partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])
    x = inputs()
    with Watch() as watch, set_checkpoint_early_stop(False):
        checkpoint(inner, x, use_reentrant=False, context_fn=keep).sum().backward()
    assert watch.flops == {FORWARD: UNIT, BACKWARD: 2 * UNIT}
    assert watch.calls[AGAIN, "aten::relu"] == 1
