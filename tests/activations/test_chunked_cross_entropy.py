"""Head and cross-entropy in chunks: the plain values and gradients, without the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from shoestring.activations.chunked_cross_entropy import chunked_cross_entropy, rows_per_chunk
from shoestring.core.errors import InputError, RefusedError
from shoestring.measure.tracing.allocator import measure_step
from tests.activations.same import EXACT, assert_same
from tests.oracles import cross_entropy as oracle

Transform = Callable[[torch.Tensor], torch.Tensor]
TRANSFORMS: dict[str, Transform | None] = {
    "none": None,
    "soft cap": lambda logits: 3.0 * torch.tanh(logits / 3.0),
    "scale": lambda logits: logits * 0.25,
    "softplus": F.softplus,
}


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    lead = draw(st.sampled_from([(1,), (5,), (33,), (3, 7), (2, 2, 4), (0,), (3, 0)]))
    width, classes = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    ignored = draw(st.sampled_from([-100, 0, -1]))
    labels = torch.randint(0, classes, lead, generator=generator)
    if draw(st.booleans()):
        labels = labels.masked_fill(torch.rand(lead, generator=generator) < 0.4, ignored)
    return {
        "hidden": normal(*lead, width),
        "weight": normal(classes, width),
        "labels": labels,
        "bias": normal(classes) if draw(st.booleans()) else None,
        "class_weight": normal(classes).abs() + 0.1 if draw(st.booleans()) else None,
        "ignore_index": ignored,
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
        "transform": TRANSFORMS[draw(st.sampled_from(sorted(TRANSFORMS)))],
        "chunk_rows": draw(st.sampled_from([None, 1, 3, 1000])),
    }


def loss_and_gradients(
    function: Callable[..., torch.Tensor], problem: dict[str, Any]
) -> list[torch.Tensor]:
    given_ = dict(problem)
    leaves = []
    for name in ("hidden", "weight", "bias"):
        if given_[name] is not None:
            given_[name] = given_[name].clone().requires_grad_()
            leaves.append(given_[name])
    loss = function(**given_)
    return [loss, *torch.autograd.grad(loss, leaves)]


def plain(*, chunk_rows: int | None, transform: Transform | None, **given_: Any) -> torch.Tensor:
    logits = F.linear(given_.pop("hidden"), given_.pop("weight"), given_.pop("bias"))
    logits = logits if transform is None else transform(logits)
    labels = given_.pop("labels").reshape(-1)
    given_["weight"] = given_.pop("class_weight")
    return F.cross_entropy(logits.reshape(labels.numel(), logits.shape[-1]), labels, **given_)


def by_definition(
    *, chunk_rows: int | None, transform: Transform | None, **given_: Any
) -> torch.Tensor:
    return oracle.cross_entropy(transform=transform or (lambda logits: logits), **given_)


@given(problems())
def test_values_and_gradients_are_those_of_the_plain_computation(problem: dict[str, Any]) -> None:
    got, expected = (loss_and_gradients(f, problem) for f in (chunked_cross_entropy, plain))
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other, EXACT)


@given(problems())
def test_values_and_gradients_are_those_of_the_definition(problem: dict[str, Any]) -> None:
    if not (problem["labels"] != problem["ignore_index"]).any():
        return  # 0 / 0: torch's own answer is tested above
    got, expected = (loss_and_gradients(f, problem) for f in (chunked_cross_entropy, by_definition))
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other, EXACT)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [0, 5])
def test_labels_that_are_all_ignored_give_what_torch_gives(
    reduction: str, smoothing: float, rows: int
) -> None:
    problem: dict[str, Any] = {
        "hidden": torch.randn(rows, 3, dtype=torch.float64),
        "weight": torch.randn(4, 3, dtype=torch.float64),
        "labels": torch.full((rows,), -100),
        "bias": None,
        "class_weight": None,
        "label_smoothing": smoothing,
        "reduction": reduction,
        "transform": None,
        "chunk_rows": None,
    }
    got, expected = (loss_and_gradients(f, problem) for f in (chunked_cross_entropy, plain))
    assert torch.isnan(got[0]) == (reduction == "mean")
    for one, other in zip(got, expected, strict=True):
        assert_same(one, other, 0.0)


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)],
    ids=["float32", "bfloat16", "autocast"],
)
def test_lower_precision_is_as_close_to_float64_as_the_plain_computation(
    dtype: torch.dtype, autocast: bool
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(200, 32), torch.randn(50, 32) / 6
    bias, labels = torch.randn(50), torch.randint(0, 50, (200,))
    problem: dict[str, Any] = {
        "hidden": hidden.to(dtype),
        "weight": weight.to(dtype),
        "bias": bias.to(dtype),
        "labels": labels,
        "class_weight": None,
        "transform": None,
        "chunk_rows": None,
    }
    wide = {k: v.double() if k in ("hidden", "weight", "bias") else v for k, v in problem.items()}
    truth = [t.detach() for t in loss_and_gradients(plain, wide)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = loss_and_gradients(chunked_cross_entropy, problem)
        usual = loss_and_gradients(plain, problem)
    for one, other, exact in zip(got, usual, truth, strict=True):
        assert one.dtype is other.dtype
        error, usual_error = (
            float((x.detach().double() - exact).norm() / exact.norm()) for x in (one, other)
        )
        # Sixteen sums in the gradient's own dtype in place of one.
        assert error <= 3 * usual_error + torch.finfo(torch.float32).eps


def test_the_loss_in_float32_has_the_bits_of_the_plain_one() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(3000, 16), torch.randn(40, 16)
    labels = torch.randint(0, 40, (3000,))
    labels[::7] = -100
    expected = F.cross_entropy(F.linear(hidden, weight), labels)
    assert torch.equal(chunked_cross_entropy(hidden, weight, labels), expected)


def test_input_may_have_any_strides() -> None:
    torch.manual_seed(0)
    base = torch.randn(6, 4, 9, dtype=torch.float64)
    weight = torch.randn(9, 7, dtype=torch.float64).t()
    labels = torch.randint(0, 7, (9, 4)).t()
    hidden = base.permute(1, 2, 0)[..., 1:]
    weight = weight[:, 1:6]
    expected = F.cross_entropy((hidden @ weight.t()).reshape(-1, 7), labels.reshape(-1))
    assert_same(chunked_cross_entropy(hidden, weight, labels), expected, EXACT)


@pytest.mark.parametrize("needed", ["hidden", "weight", "bias"])
def test_nothing_is_computed_for_what_needs_no_gradient(needed: str) -> None:
    tensors = {
        "hidden": torch.randn(40, 8),
        "weight": torch.randn(30, 8),
        "bias": torch.randn(30),
    }
    tensors[needed].requires_grad_()
    loss = chunked_cross_entropy(labels=torch.randint(0, 30, (40,)), chunk_rows=10, **tensors)
    with torch.autograd.profiler.profile() as profiler:
        loss.backward()
    calls = {event.key: event.count for event in profiler.key_averages()}
    products = calls.get("aten::mm", 0) + calls.get("aten::addmm_", 0)
    assert products == {"hidden": 4, "weight": 4, "bias": 0}[needed]
    assert [name for name, tensor in tensors.items() if tensor.grad is not None] == [needed]


def test_the_logits_never_exist_whole() -> None:
    rows, width, classes = 512, 8, 4000
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(classes, width, requires_grad=True)
    labels = torch.randint(0, classes, (rows,))

    def step(function: Callable[[], torch.Tensor]) -> int:
        hidden.grad = weight.grad = None
        run = lambda: function().backward()  # noqa: E731
        return measure_step(run, roots=lambda: [hidden, weight, labels]).peak

    def chunked() -> torch.Tensor:
        return chunked_cross_entropy(hidden, weight, labels)

    step(chunked)
    whole = rows * classes * 4
    assert step(lambda: F.cross_entropy(F.linear(hidden, weight), labels)) > 2 * whole
    inputs = 2 * 4 * width * (rows + classes) + 8 * rows
    assert step(chunked) < inputs + whole * 4.2 / 16


def test_a_second_derivative_is_refused() -> None:
    hidden = torch.randn(4, 3, requires_grad=True)
    loss = chunked_cross_entropy(hidden, torch.randn(5, 3), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(RefusedError, match="differentiated twice"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_wrong_input_is_refused() -> None:
    hidden, weight, labels = torch.randn(4, 3), torch.randn(5, 3), torch.zeros(4, dtype=torch.long)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"weight": torch.randn(5, 2)}, "do not match"),
        ({"weight": torch.randn(5)}, "do not match"),
        ({"weight": weight.double()}, "float64"),
        ({"labels": labels[:3]}, "no class indices"),
        ({"labels": torch.rand(4)}, "no class indices"),
        ({"bias": torch.randn(4)}, "not one number per class"),
        ({"class_weight": torch.randn(5, 1)}, "not one number per class"),
        ({"class_weight": torch.rand(5, requires_grad=True)}, "gradient"),
        ({"reduction": "none"}, "reduction"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"chunk_rows": 0}, "chunk_rows"),
    ]
    for change, message in wrong:
        with pytest.raises(InputError, match=message):
            chunked_cross_entropy(**{"hidden": hidden, "weight": weight, "labels": labels} | change)


@given(st.integers(0, 10**6), st.integers(1, 300_000), st.sampled_from([4, 8]))
def test_chunks_are_small_and_never_empty(rows: int, classes: int, itemsize: int) -> None:
    chunk = rows_per_chunk(rows, classes, itemsize)
    assert 1 <= chunk <= max(1, -(-rows // 16))
    assert chunk <= 256 or 4 * chunk * classes * itemsize <= 64 * 2**20
