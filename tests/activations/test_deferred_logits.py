"""Deferred logits: every use of them gives what the real logits give."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.deferred_logits import defer_logits
from shoestring.core.errors import NoEffectWarning, RefusedError
from tests.activations.same import EXACT, assert_same

Transform = Callable[[torch.Tensor], torch.Tensor]
Y = torch.randint(0, 11, (2, 6), generator=torch.Generator().manual_seed(1))
CAP = torch.linspace(-1, 1, 11, dtype=torch.float64)[None]
CHUNKED: dict[str, Transform] = {
    "view": lambda z: F.cross_entropy(z.view(-1, 11), Y.view(-1)),
    "module": lambda z: nn.CrossEntropyLoss(label_smoothing=0.1)(
        z.view(12, z.size(-1)), Y.view(-1)
    ),
    "float": lambda z: F.cross_entropy(z.float().view(-1, 11), Y.view(-1)),
    "shift": lambda z: F.cross_entropy(
        z[..., :-1, :].contiguous().view(-1, 11), Y[..., 1:].contiguous().view(-1)
    ),
    "other shift": lambda z: F.cross_entropy(z[:, :-1].reshape(-1, 11), Y[:, 1:].reshape(-1)),
    "row": lambda z: F.cross_entropy(z[1], Y[1], reduction="sum"),
    "flatten": lambda z: F.cross_entropy(z.flatten(0, 1), Y.flatten(), ignore_index=3),
    "transpose": lambda z: F.cross_entropy(z.transpose(1, 2), Y),
    "permute": lambda z: F.cross_entropy(z.permute(0, 2, 1), Y, weight=CAP[0].abs()),
    "soft cap": lambda z: F.cross_entropy((torch.tanh(z / 3) * 3).view(-1, 11), Y.view(-1)),
    "class vector": lambda z: F.cross_entropy((1 - 2 * z + CAP).view(-1, 11), Y.view(-1)),
    "log-softmax": lambda z: F.nll_loss(F.log_softmax(z, -1).view(-1, 11), Y.view(-1)),
}


def in_place(z: torch.Tensor) -> torch.Tensor:
    row, shifted = z[0], z[:, 1:] + 1
    z *= 2
    z[..., 3] = -5.0
    return row.sum() + shifted.square().sum() + F.cross_entropy(z.view(-1, 11), Y.view(-1))


class Square(torch.autograd.Function):
    """Code that torch does not show to tensor subclasses."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


SCALE = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
WHOLE: dict[str, Transform] = {
    "no reduction": lambda z: F.cross_entropy(z.view(-1, 11), Y.view(-1), reduction="none").sum(),
    "softmax": lambda z: F.softmax(z, -1).square().sum(),
    "in place": in_place,
    "autograd function": lambda z: Square.apply(torch.tanh(z)).sum(),
    "stack": lambda z: torch.stack([z, z]).square().sum(),
    "product": lambda z: (z * z).sum(),
    "trained scale": lambda z: F.cross_entropy((z * SCALE).view(-1, 11), Y.view(-1)),
    "classes sliced": lambda z: F.cross_entropy(z[..., :10].reshape(-1, 10), Y.view(-1) % 10),
    "classes not last": lambda z: F.cross_entropy(z, Y[:, :1].expand(2, 11) % 6),
    "probabilities": lambda z: F.cross_entropy(
        z.view(-1, 11), F.one_hot(Y, 11).double().view(-1, 11)
    ),
    "gather": lambda z: z.log_softmax(-1).gather(-1, Y[..., None]).sum(),
    "masked": lambda z: F.cross_entropy(z[Y > 3], Y[Y > 3]),
    "loop": lambda z: sum((row.square().sum() for row in z), torch.zeros(())),
}


@pytest.fixture
def inputs() -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = ((2, 6, 8), (11, 8), (11,))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("name", [*CHUNKED, *WHOLE])
def test_every_use_of_deferred_logits_gives_the_plain_result(
    name: str, inputs: list[torch.Tensor]
) -> None:
    use = (CHUNKED | WHOLE)[name]
    expected = use(F.linear(*inputs) + 0)
    slopes = torch.autograd.grad(expected, inputs)
    logits = defer_logits(*inputs)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = use(logits)
    assert any(w.category is NoEffectWarning for w in said) == (name in WHOLE)
    assert (logits.deferral.values is None) == (name in CHUNKED)
    assert_same(got, expected, EXACT)
    for one, other in zip(torch.autograd.grad(got, inputs), slopes, strict=True):
        assert_same(one, other, EXACT)


@pytest.mark.filterwarnings("ignore:the logits of a chunked loss")
def test_deferred_logits_look_like_logits(inputs: list[torch.Tensor]) -> None:
    expected, logits = F.linear(*inputs), defer_logits(*inputs)
    assert isinstance(logits, torch.Tensor)
    assert (logits.shape, logits.dtype, logits.device, len(logits), logits.dim()) == (
        expected.shape,
        expected.dtype,
        expected.device,
        len(expected),
        3,
    )
    assert logits.requires_grad
    assert not logits.is_leaf
    assert logits.stride() == expected.stride()
    assert logits.deferral.values is None
    assert logits.tolist() == expected.tolist()
    assert (logits.detach().numpy() == expected.detach().numpy()).all()
    assert torch.equal(logits.argmax(-1), expected.argmax(-1))
    assert torch.equal(copy.deepcopy(logits.detach()), expected)
    assert repr(logits[0, 0].detach()) == repr(expected[0, 0].detach())


@pytest.mark.filterwarnings("ignore:the logits of a chunked loss")
def test_logits_read_under_no_grad_keep_their_graph(inputs: list[torch.Tensor]) -> None:
    logits = defer_logits(*inputs)
    with torch.inference_mode():
        logits.argmax(-1)
    logits.sum().backward()
    assert inputs[0].grad is not None


@pytest.mark.filterwarnings("ignore:the logits of a chunked loss")
def test_logits_of_weights_that_changed_since_are_refused(inputs: list[torch.Tensor]) -> None:
    logits = defer_logits(*inputs)
    with torch.no_grad():
        inputs[1].add_(1.0)
    with pytest.raises(RefusedError, match="changed since"):
        logits.argmax(-1)


def test_logits_of_weights_that_were_freed_since_are_refused(inputs: list[torch.Tensor]) -> None:
    hidden, weight, _ = (t.detach() for t in inputs)
    logits = defer_logits(hidden, weight.requires_grad_())
    weight.untyped_storage().resize_(0)
    with pytest.raises(RefusedError, match="changed since"):
        CHUNKED["view"](logits)


def test_watching_a_gradient_that_never_comes_is_refused(inputs: list[torch.Tensor]) -> None:
    logits = defer_logits(*inputs)
    CHUNKED["shift"](logits)
    with pytest.raises(RefusedError, match="would see no gradient"):
        logits.retain_grad()
    other = defer_logits(*inputs)
    with pytest.warns(NoEffectWarning, match="retain_grad"):
        other.retain_grad()
    CHUNKED["view"](other).backward()
    assert other.grad is not None


def test_the_state_of_autocast_at_the_head_counts() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 8, requires_grad=True), torch.randn(11, 8, requires_grad=True)
    labels = torch.randint(0, 11, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        expected, logits = F.linear(hidden, weight), defer_logits(hidden, weight)
    assert logits.dtype is expected.dtype is torch.bfloat16
    got = F.cross_entropy(logits.float(), labels)
    assert torch.equal(got, F.cross_entropy(expected.float(), labels))
    assert torch.equal(logits, expected)
    with torch.autocast("cpu", torch.bfloat16):
        got = F.cross_entropy(defer_logits(hidden.double(), weight.double()), labels)
    assert got.dtype is torch.float64
