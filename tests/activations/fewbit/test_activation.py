"""Activations that keep a code or their output: torch's values, and the table's gradients."""

from __future__ import annotations

import copy
import pickle

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import nn

from shoestring.activations import fewbit
from shoestring.activations.fewbit import functional
from shoestring.activations.fewbit.activation import activate
from shoestring.activations.fewbit.branches import BRANCHED, branches
from shoestring.activations.fewbit.functions import CURVED, NAMES, STRAIGHT, function
from shoestring.activations.fewbit.tables import builtin
from shoestring.core.errors import InputError
from tests.activations.fewbit.saved_bytes import saved_bytes

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NAMED = sorted(
    name
    for name, value in vars(fewbit).items()
    if isinstance(value, type) and fewbit.Activation in value.__bases__
)
GIVEN = {"Threshold": (0.1, 20.0)}
FROM_OUTPUT = [n for n in NAMES if n in BRANCHED or function(n).output_slope is not None]


def gradient(y: torch.Tensor, x: torch.Tensor, above: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(y, x, above)
    return found


def inputs(dtype: torch.dtype, *size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(size))
    return (3 * torch.randn(size, generator=generator)).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CURVED)
def test_a_code_gives_torchs_values_and_the_tables_gradients(name: str, dtype: torch.dtype) -> None:
    x, known, table = inputs(dtype, 7, 19), function(name), builtin(name, 3)
    above = torch.linspace(-1, 1, x.numel()).view_as(x).to(dtype)
    y = activate(x, name, 3)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    levels = table.derivative(x.detach()).to(wide)  # a level of few bits is rounded once only
    exact = torch.tensor(table.levels, dtype=wide)
    levels = exact[(levels.unsqueeze(-1) - exact).abs().argmin(-1)]
    assert torch.equal(y, known(x))
    assert torch.equal(gradient(y, x, above), (levels * above.to(wide)).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", STRAIGHT)
def test_one_bit_of_straight_pieces_is_exact(name: str, dtype: torch.dtype) -> None:
    x = inputs(dtype, 5, 40)
    with torch.no_grad():
        x[0] = torch.linspace(-5, 5, 41)[:40].to(dtype)  # kinks among them
    above = torch.linspace(-1, 1, x.numel()).view_as(x).to(dtype)
    y, plain = activate(x, name), function(name)(x)
    assert torch.equal(y, plain)
    assert torch.equal(gradient(y, x, above), gradient(plain, x, above))


@pytest.mark.parametrize("name", FROM_OUTPUT)
def test_the_output_gives_almost_exact_gradients(name: str) -> None:
    x, known = inputs(torch.float32, 4000), function(name)
    y = activate(x, name, mode="from_output")
    found = gradient(y, x, torch.ones_like(y))
    assert torch.equal(y, known(x))
    slope = known.derivative(x.detach().double()).float()
    error = (found - slope).abs()
    assert error.square().mean().sqrt() < 3e-6
    assert error.max() < 4e-4


@pytest.mark.parametrize("name", BRANCHED)
def test_both_sides_of_a_minimum_are_told_apart(name: str) -> None:
    low = branches(name).minimum
    x = torch.tensor([low - 0.2, low, low + 0.2], dtype=torch.float64, requires_grad=True)
    y = activate(x, name, mode="from_output")
    found = gradient(y, x, torch.ones_like(y))
    expected = function(name).derivative(x.detach())
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert found[0] < 0 < found[2]


@pytest.mark.parametrize("name", ["gelu", "hardtanh"])
@hypothesis.given(count=st.integers(0, 200), bits=st.integers(1, 4))
def test_a_code_takes_as_few_bytes_as_said(name: str, count: int, bits: int) -> None:
    x = torch.linspace(-3, 3, count).requires_grad_()
    width = bits if name == "gelu" else 1
    kept = saved_bytes(lambda: activate(x, name, bits))
    assert kept == 8 * width * -(-count // 64)


def test_an_output_that_a_linear_layer_keeps_costs_one_bit_an_element() -> None:
    layer = nn.Linear(64, 8)
    x = torch.randn(16, 64, requires_grad=True)
    plain = saved_bytes(lambda: layer(nn.functional.gelu(x)))
    lean = saved_bytes(lambda: layer(activate(x, "gelu", mode="from_output")))
    assert plain - lean == 4 * x.numel() - x.numel() // 8


@pytest.mark.parametrize("name", NAMED)
def test_a_module_stands_in_for_torchs(name: str) -> None:
    made, plain = (
        getattr(fewbit, name)(*GIVEN.get(name, ())),
        getattr(nn, name)(*GIVEN.get(name, ())),
    )
    x = inputs(torch.float32, 3, 11)
    for module in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(module(x), plain(x))
        assert module.state_dict() == {}
    assert str(made).startswith(f"{name}(")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("mode", ["code", "from_output"])
def test_compiled_code_has_the_same_gradients(mode: str) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(8, 16), fewbit.GELU(mode=mode), nn.Linear(16, 2))
    x = torch.randn(5, 8)
    grads = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        run(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_run_it_again(reentrant: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 16), fewbit.SiLU(rounding="stochastic"))
    x = torch.randn(5, 8, requires_grad=True)
    grads = []
    for checkpointed in (False, True):
        torch.manual_seed(1)
        y = (
            torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
            if checkpointed
            else model(x)
        )
        grads.append(gradient(y.sum(), x, torch.tensor(1.0)) if not reentrant else _grad(y, x))
    assert torch.equal(*grads)


def _grad(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    x.grad = None
    y.sum().backward()
    assert x.grad is not None
    return x.grad.clone()


def test_autocast_keeps_the_dtype_of_the_activation() -> None:
    model = nn.Sequential(nn.Linear(8, 16), fewbit.GELU())
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(4, 8))
    assert y.dtype is torch.bfloat16
    y.sum().backward()
    assert model[0].weight.grad.dtype is torch.float32


@pytest.mark.parametrize("mode", ["code", "from_output"])
def test_strides_do_not_change_a_gradient(mode: str) -> None:
    x = torch.randn(2, 3, 4, 5)
    table = builtin("gelu", 3)
    for given in (
        x.to(memory_format=torch.channels_last),
        x.transpose(0, 3),
        x[:, ::2],
        x[0].t() if x[0].dim() == 2 else x[0].transpose(0, 1),
    ):
        leaf = given.detach().requires_grad_()
        above = torch.randn(given.shape)
        found = gradient(activate(leaf, "gelu", mode=mode), leaf, above)
        if mode == "code":
            assert torch.equal(found, table.derivative(given) * above)
        else:
            expected = function("gelu").derivative(given) * above
            assert torch.allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["gelu", "tanh", "softsign"])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_drawn_codes_are_right_in_the_mean(name: str, bits: int) -> None:
    point = torch.linspace(-4, 4, 9)
    count = 20_000
    x = point.repeat(count, 1).requires_grad_()
    y = activate(x, name, bits, rounding="stochastic", generator=torch.Generator().manual_seed(3))
    found = gradient(y, x, torch.ones_like(y)).double()
    slope = function(name).derivative(point.double())
    error = (found.mean(0) - slope).abs()
    bound = 4 * found.std(0) / count**0.5 + 2e-5
    assert (error < bound).all()
    assert found.std(0).max() > 0


def test_drawn_codes_leave_the_generator_of_others_alone() -> None:
    x = inputs(torch.float32, 50)
    state = torch.get_rng_state()
    activate(x, "gelu", rounding="stochastic", generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_second_derivative_is_refused() -> None:
    x = inputs(torch.float32, 5)
    for mode in ("code", "from_output"):
        (grad,) = torch.autograd.grad(activate(x, "silu", mode=mode).sum(), x, retain_graph=True)
        assert grad.shape == x.shape
        with pytest.raises(RuntimeError, match="few-bit silu cannot be differentiated twice"):
            torch.autograd.grad(activate(x, "silu", mode=mode).sum(), x, create_graph=True)


def test_a_changed_output_is_noticed() -> None:
    x = inputs(torch.float32, 5)
    y = activate(x, "silu", mode="from_output")
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_transforms_see_torchs_own() -> None:
    x = torch.randn(4, 3)
    slopes = torch.func.vmap(torch.func.grad(lambda row: activate(row, "gelu").sum()))(x)
    assert torch.allclose(slopes, function("gelu").derivative(x), atol=1e-6)


def test_nothing_is_kept_without_gradients() -> None:
    x = inputs(torch.float32, 100)
    with torch.no_grad():
        assert not activate(x, "gelu").requires_grad
    assert saved_bytes(lambda: activate(x.detach(), "gelu")) == 0


def test_a_callable_takes_a_table_of_its_own() -> None:
    def bump(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(-x * x)

    table = fewbit.Quantizer.fit(bump, bits=3)
    x = inputs(torch.float64, 500)
    y = activate(x, bump, quantizer=table)
    assert torch.equal(y, bump(x))
    assert torch.equal(gradient(y, x, torch.ones_like(y)), table.derivative(x.detach()))


def test_named_functions_take_torchs_parameters() -> None:
    x = inputs(torch.float64, 400)
    y = functional.elu(x, alpha=0.5, mode="from_output")
    assert torch.equal(y, nn.functional.elu(x, alpha=0.5))
    exact = gradient(nn.functional.elu(x, alpha=0.5), x, torch.ones_like(y))
    assert torch.allclose(gradient(y, x, torch.ones_like(y)), exact, rtol=1e-12)
    y = functional.gelu(x, approximate="tanh")
    assert torch.equal(y, nn.functional.gelu(x, approximate="tanh"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "half"}, "no mode"),
        ({"rounding": "up"}, "no rounding"),
        ({"mode": "exact", "rounding": "stochastic"}, "no effect"),
        ({"generator": torch.Generator()}, "no effect"),
        ({"bits": 9}, "bits=9"),
        ({"bits": 2, "quantizer": builtin("gelu", 4)}, "do not go together"),
        ({"parameters": {"slope": 1.0}}, "no parameter"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        activate(torch.zeros(3), "gelu", **options)  # type: ignore[arg-type]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="does not follow from its output"):
        activate(torch.zeros(3), "hardswish", mode="from_output")
    with pytest.raises(InputError, match="has no table"):
        activate(torch.zeros(3), torch.sin)
    with pytest.raises(InputError, match="one bit is exact"):
        activate(torch.zeros(3), "relu", rounding="stochastic")
    with pytest.raises(InputError, match="no form"):
        functional.gelu(torch.zeros(3), approximate="fast")
