"""Norms from their outputs: torch's values, gradients to rounding, and no input kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.fewbit.norms import LayerNorm, RMSNorm, layer_norm, rms_norm
from shoestring.core.errors import InputError
from tests.activations.fewbit.saved_bytes import saved_bytes
from tests.activations.same import assert_same
from tests.oracles import norms as oracle

Norms = type[LayerNorm] | type[RMSNorm]
PLAIN: dict[Norms, type[nn.Module]] = {LayerNorm: nn.LayerNorm, RMSNorm: nn.RMSNorm}
BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(params=PLAIN, ids=lambda made: made.__name__)
def norm(request: pytest.FixtureRequest) -> Norms:
    made: Norms = request.param
    return made


def pair(norm: Norms, shape: list[int], dtype: torch.dtype, **options: bool) -> list[nn.Module]:
    plain = PLAIN[norm](shape, dtype=dtype, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.randn(shape, generator=generator))
    ours = norm(shape, dtype=dtype, **options)
    ours.load_state_dict(plain.state_dict())
    return [ours, plain]


def gradients(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    y = layer(x)
    weights = torch.randn(y.shape, generator=generator).to(y.dtype)
    return y, list(torch.autograd.grad(y, [x, *layer.parameters()], weights))


def keeps_output(layer: nn.Module, x: torch.Tensor) -> bool:
    """Return whether a norm keeps its output: changed in place, it is refused."""
    y = layer(x)
    y.detach().mul_(1)  # shares the version, and no node
    try:
        torch.autograd.grad(y.sum(), x)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return True
    return False


OPTIONS: dict[Norms, list[dict[str, bool]]] = {
    LayerNorm: [{}, {"bias": False}, {"elementwise_affine": False}],
    RMSNorm: [{}, {"elementwise_affine": False}],
}


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("shape", [[12], [3, 4], [33]])
def test_values_are_torchs_and_gradients_to_rounding(
    norm: Norms, shape: list[int], dtype: torch.dtype
) -> None:
    for options in OPTIONS[norm]:
        x = (3 * torch.randn(5, 2, *shape) + 1).to(dtype).requires_grad_()
        (y, got), (expected, of_torch) = (
            gradients(layer, x) for layer in pair(norm, shape, dtype, **options)
        )
        assert torch.equal(y, expected)
        for one, other in zip(got, of_torch, strict=True):
            assert one.dtype is dtype
            assert_same(one, other, BOUNDS[dtype])


def test_gradients_are_those_of_the_definition(norm: Norms) -> None:
    x = torch.randn(6, 12, dtype=torch.float64, requires_grad=True)
    layer, _ = pair(norm, [12], torch.float64)
    weights = torch.randn(6, 12, dtype=torch.float64)
    y = layer(x)
    assert keeps_output(layer, x)
    got = torch.autograd.grad(y, [x, *layer.parameters()], weights)
    of = oracle.layer_norm if norm is LayerNorm else oracle.rms_norm
    given = [p.detach().numpy() for p in (x, *layer.parameters())]
    eps = torch.finfo(torch.float64).eps if layer.eps is None else layer.eps
    for one, other in zip(got, of(weights.numpy(), *given, eps=eps), strict=True):
        assert_same(one, torch.from_numpy(other), 1e-10)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_eps_counts(norm: Norms, eps: float) -> None:
    x = (0.1 * torch.randn(4, 8, dtype=torch.float64)).requires_grad_()
    found = [gradients(made(8, eps=eps).double(), x)[1] for made in (norm, PLAIN[norm])]
    for one, other in zip(*found, strict=True):
        assert_same(one, other, 1e-12)


def test_a_linear_layer_that_follows_keeps_the_same_storage(norm: Norms) -> None:
    x = torch.randn(4, 50, 64, requires_grad=True)
    found = []
    for layer in pair(norm, [64], torch.float32):
        net = nn.Sequential(layer, nn.Linear(64, 32))
        parameters = list(net.parameters())
        found.append(saved_bytes(lambda: net(x * 1), parameters=parameters))  # noqa: B023
    ours, plain = found
    row = 4 * 50 * 4
    assert ours == x.nbytes + row  # the output, and a number a row
    # torch's: input and output; with mean and deviation, or on a CPU the quotient too
    assert plain == 2 * x.nbytes + (2 * row if norm is LayerNorm else x.nbytes + row)


def test_an_output_changed_in_place_is_refused(norm: Norms) -> None:
    x = torch.randn(4, 8, requires_grad=True)
    y = norm(8)(x)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("lost", [0.0, 1e-44, torch.nan])
def test_a_weight_that_cannot_be_divided_by_keeps_the_input(norm: Norms, lost: float) -> None:
    x = torch.randn(4, 8, requires_grad=True)
    layers = pair(norm, [8], torch.float32)
    assert keeps_output(layers[0], x)
    for layer in layers:
        with torch.no_grad():
            layer.weight[3] = lost
    assert not keeps_output(layers[0], x)
    (_, got), (_, expected) = (gradients(layer, x) for layer in layers)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    if lost == 0:
        assert got[1][3] != 0  # a weight of zero can leave zero


def test_a_norm_that_begins_with_zeros_learns(norm: Norms) -> None:
    layer = norm(8)
    nn.init.zeros_(layer.weight)
    x = torch.randn(4, 8, requires_grad=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    assert not keeps_output(layer, x)
    (layer(x) * x.detach()).sum().backward()
    optimizer.step()
    assert keeps_output(layer, x)
    assert float(layer.weight.detach().abs().min()) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("share", [1.0, 30.0, 0.9])
def test_digits_lost_to_a_bias_are_bounded(dtype: torch.dtype, share: float) -> None:
    """The bias is a multiple of the weight, or a share of the largest that is let through."""
    limit = torch.finfo(dtype).eps ** -0.5
    ratio = share * limit if share < 1 else share
    x = torch.randn(50, 16, dtype=dtype, requires_grad=True)
    layer = LayerNorm(16, dtype=dtype)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 1)
        layer.bias.copy_(layer.weight * ratio)
    assert keeps_output(layer, x)
    unit = torch.finfo(dtype).eps / 2
    exact = F.layer_norm(x.detach().double(), (16,), eps=layer.eps)
    # The weight's gradient is the sum over rows of the normal entries: its error is of theirs.
    bound = unit * (4 * exact.abs().sum(0) + len(x) * ratio) + 20 * unit * exact.abs().sum(0)
    (grad,) = torch.autograd.grad(layer(x).sum(), layer.weight)
    error = (grad.double() - exact.sum(0)).abs()
    assert (error <= bound).all()
    if share == 0.9:
        assert float(error.max()) > 50 * unit * float(exact.abs().sum(0).max())  # it is not free
        with torch.no_grad():
            layer.bias.mul_(1.2)
        assert not keeps_output(layer, x)


def test_only_what_is_asked_for(norm: Norms) -> None:
    layers = pair(norm, [8], torch.float32)
    for frozen in ("weight", "input"):
        x = torch.randn(4, 8, requires_grad=frozen != "input")
        found = []
        for layer in layers:
            layer.requires_grad_(frozen != "weight")
            leaves = [t for t in (x, *layer.parameters()) if t.requires_grad]
            found.append(torch.autograd.grad(layer(x).square().sum(), leaves))
        for one, other in zip(*found, strict=True):
            assert_same(one, other, 1e-5)


def test_functions_take_no_parameters_at_all() -> None:
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    for ours, plain in ((layer_norm, F.layer_norm), (rms_norm, F.rms_norm)):
        got, expected = (
            torch.autograd.grad(call(x, (8,)).square().mul(x.detach()).sum(), x)[0]
            for call in (ours, plain)
        )
        assert_same(got, expected, 1e-10)


def test_it_stands_in_for_a_norm_in_place(norm: Norms) -> None:
    for options in OPTIONS[norm]:
        plain = PLAIN[norm]([3, 4], eps=0.25, **options).eval()
        made = norm.of(plain)  # type: ignore[arg-type]
        assert list(made.state_dict()) == list(plain.state_dict())
        assert made.weight is plain.weight
        assert repr(made) == repr(plain)
        assert not made.training
        assert isinstance(made, PLAIN[norm])
    with pytest.raises(InputError, match=r"is no torch\.nn\."):
        norm.of(made)
