"""Exact slopes: those of the gradient, through whatever model the closure calls."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

from shoestring.core.errors import InputError
from shoestring.measure.tracing.step import StepOptions, forward_loss
from shoestring.zeroth.forward_gradient import ForwardGradient
from shoestring.zeroth.log import Log
from tests.oracles import zo_compound as oracle
from tests.zoo import ZOO

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
X = torch.randn(4, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """Fused attention of torch, with one matrix for all of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend over four heads."""
        q, k, v = self.inputs(x).view(4, 6, 3, 4, 2).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class Tied(nn.Module):
    """The head of a language model, tied to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.embedding((x[..., 0] * 5).long().remainder(11)))


class Encoder(nn.Module):
    """What torch computes by one fused operator where gradients are disabled."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode."""
        return self.layers(x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(8, 3),
    "norm": lambda: nn.Sequential(nn.LayerNorm(8), nn.GELU(), nn.RMSNorm(8)),
    "attention": Attention,
    "encoder": Encoder,
    "tied": Tied,
    "convolutions": lambda: nn.Sequential(
        nn.Conv1d(6, 4, 3), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1)
    ),
    "gru": lambda: nn.GRU(8, 3),
}


def built(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Return a model, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name]().to(dtype).eval()


def loss_of(model: nn.Module) -> Callable[[], torch.Tensor]:
    """Return a closure."""

    def closure() -> torch.Tensor:
        found = model(X.to(next(model.parameters()).dtype))
        return (found[0] if isinstance(found, tuple) else found).sin().sum()

    return closure


def directions(opt: ForwardGradient, draw: int, index: int) -> list[torch.Tensor]:
    """Return the directions of a step, as tensors."""
    found = []
    for (parameter, _), z in zip(opt._moved(), opt._directions(draw, index), strict=True):
        found.append(torch.zeros_like(parameter))
        z.add_to(found[-1].detach(), 1.0)
    return found


def bits(model: nn.Module) -> list[torch.Tensor]:
    """Return copies of the parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Return whether two lists have the same bits, signs of zeros among them."""
    pairs = list(zip(left, right, strict=True))
    signs = all(torch.equal(a.signbit(), b.signbit()) for a, b in pairs)
    return signs and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("family", ["rademacher", "gaussian"])
@pytest.mark.parametrize("name", MODELS)
def test_slopes_are_those_of_the_gradient(name: str, family: str) -> None:
    model = built(name)
    closure, before = loss_of(model), bits(model)
    opt = ForwardGradient(model.parameters(), q=2, directions=family, seed=3)
    loss = opt.estimate(closure)
    assert loss == pytest.approx(float(closure().detach()), rel=1e-12)
    (found,) = opt._estimates
    parameters = [parameter for parameter, _ in opt._moved()]
    for index, slope in enumerate(found.deltas):
        expected = oracle.forward_slope(closure(), parameters, directions(opt, 0, index))
        assert slope == pytest.approx(expected, rel=1e-10)
    assert same(bits(model), before)
    with forward_ad.dual_level():  # and no tangent is left
        assert all(forward_ad.unpack_dual(p).tangent is None for p in parameters)
    assert all(p.is_leaf and p.requires_grad and p.grad is None for p in parameters)


@pytest.mark.parametrize("name", ["bert", "llama", "unet", "gnn"])
def test_slopes_of_whole_models(name: str) -> None:
    pytest.importorskip("transformers")
    (case,) = (case for case in ZOO if case.name == name)
    model, batch = case.build().eval(), case.batch(2)
    closure = lambda: forward_loss(model, batch, StepOptions(loss=case.loss))[0]  # noqa: E731
    before = bits(model)
    opt = ForwardGradient(model.parameters())
    opt.estimate(closure)
    parameters = [parameter for parameter, _ in opt._moved()]
    expected = oracle.forward_slope(closure(), parameters, directions(opt, 0, 0))
    assert opt._estimates[0].deltas[0] == pytest.approx(expected, rel=1e-4)
    assert same(bits(model), before)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_the_oracle(momentum: float) -> None:
    x = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
    f = lambda y: (y - 0.3).pow(4).sum() + y.prod()  # noqa: E731
    opt = ForwardGradient([x], lr=0.02, q=2, momentum=momentum, weight_decay=0.1, seed=9)
    mine, memory = x.detach().clone(), torch.zeros(5, dtype=torch.float64)
    for draw in range(6):
        y = mine.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(f(y), y)
        zs = [oracle.signs(9, draw, index, 5) for index in range(2)]
        memory = momentum * memory + sum((gradient @ z) * z for z in zs) / 2
        mine = (1 - 0.02 * 0.1) * mine - 0.02 * memory
        opt.step(lambda: f(x))
        assert torch.allclose(x, mine, rtol=1e-6)


def test_evaluating_changes_no_bit() -> None:
    values = torch.tensor([-0.0, 0.0, 1e-45, -1e-30, math.inf, math.nan, 3e38])
    x = nn.Parameter(values.clone())
    opt = ForwardGradient([x], lr=1.0)
    opt.estimate(lambda: torch.sum(x[:4] * 2))
    assert torch.equal(x.detach().view(torch.int32), values.view(torch.int32))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_the_closure_is_called_without_gradients(mode: Callable) -> None:
    x, modes = nn.Parameter(torch.ones(3)), []

    def closure() -> torch.Tensor:
        modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return x.square().sum()

    opt = ForwardGradient([x], lr=0.1, q=3)
    with mode():
        assert opt.step(closure) == 3.0
    assert modes == [(False, False)] * 3
    assert not torch.equal(x, torch.ones(3))
    assert x.requires_grad


def test_the_switches_of_torch_stand_as_before() -> None:
    x = nn.Parameter(torch.ones(3))
    with contextlib.suppress(ZeroDivisionError):
        ForwardGradient([x]).step(lambda: x.sum() / (1 // 0))
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    with forward_ad.dual_level():
        assert forward_ad.unpack_dual(x).tangent is None


def test_all_directions_meet_the_same_random_numbers() -> None:
    x, drawn = nn.Parameter(torch.ones(3)), []

    def closure() -> torch.Tensor:
        drawn.append(torch.rand(3))
        return (x * drawn[-1]).sum()

    torch.manual_seed(0)
    ForwardGradient([x], q=2, directions="gaussian").step(closure)
    after = torch.rand(3)
    assert torch.equal(drawn[0], drawn[1])
    torch.manual_seed(0)
    torch.rand(3)  # one evaluation draws as much
    assert torch.equal(torch.rand(3), after)


class Opaque(torch.autograd.Function):
    """An operator that has a backward, and no forward derivative."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        """Double."""
        return x * 2

    @staticmethod
    def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:
        """Double."""
        return g * 2


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x: 3.0, "returned float"),
        (lambda x: torch.tensor(x.sum().item()), "does not depend"),
        (lambda x: x.argmax().float(), "does not depend"),
        (lambda x: torch.inference_mode()(x.sum)(), "does not depend"),
        (lambda x: Opaque.apply(x).sum(), "no forward derivative"),
        (lambda x: torch.mul(x, 2, out=torch.zeros(3)).sum(), "no forward derivative"),
        (lambda x: torch.func.jvp(lambda t: (t * x).sum(), (x,), (x,))[1], "no forward derivative"),
    ],
)
def test_what_has_no_slope_is_refused(
    loss: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    x = nn.Parameter(torch.ones(3))
    opt = ForwardGradient([x])
    with pytest.raises(InputError, match=message) as caught:
        opt.step(lambda: loss(x))
    assert "ZOSGD" in str(caught.value)
    assert torch.equal(x, torch.ones(3))
    opt.step(x.sum)


def test_lstm_in_float32_is_refused_by_name() -> None:
    model = nn.LSTM(8, 3)
    opt = ForwardGradient(model.parameters())
    with pytest.raises(InputError, match=r"mkldnn_rnn_layer.*\n.*mkldnn.flags"):
        opt.step(lambda: torch.sum(model(X.float())[0]))


def test_errors_of_the_closure_are_its_own() -> None:
    x = nn.Parameter(torch.ones(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        ForwardGradient([x]).step(lambda: x + torch.ones(4))


def test_padding_is_trained_where_the_loss_depends_on_it() -> None:
    """Backward leaves it out by hand; what the loss depends on is the same for both."""
    table = nn.Embedding(5, 3, padding_idx=0).double()
    with torch.no_grad():
        table.weight.fill_(1.0)
    tokens = torch.tensor([0, 2])
    opt = ForwardGradient(table.parameters())
    opt.estimate(lambda: table(tokens).square().sum())
    table.padding_idx = None
    z = directions(opt, 0, 0)
    expected = oracle.forward_slope(table(tokens).square().sum(), [table.weight], z)
    assert opt._estimates[0].deltas[0] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    x = nn.Parameter(torch.ones(3))
    opt = ForwardGradient([x], lr=0.1)
    for loss in (
        lambda: x.sum() + math.inf,
        lambda: (x - 1).sqrt().sum(),
        lambda: x.sum() * math.nan,
    ):
        with pytest.warns(RuntimeWarning, match="left out"):
            opt.step(loss)
        opt._skipped = 0
    assert torch.equal(x, torch.ones(3))


def test_several_estimates_are_one_step_on_their_mean() -> None:
    x, y = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    rows = torch.arange(15.0, dtype=torch.float64).view(5, 3)
    parts, whole = ForwardGradient([x], lr=0.01), ForwardGradient([y], lr=0.01)
    for _ in range(3):
        parts.estimate(lambda: torch.square(rows[:2] @ x - 1))  # the losses of samples
        parts.estimate(lambda: (rows[2:] @ x - 1).square().mean(), weight=3)
        parts.step()
        whole.step(lambda: torch.square(rows @ y - 1))
        assert torch.allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_log_makes_the_steps_again(dtype: torch.dtype, momentum: float, tmp_path: Path) -> None:
    model, again = built("linear", dtype), built("linear", dtype)
    opt = ForwardGradient(model.parameters(), lr=0.01, q=2, momentum=momentum, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
    for _ in range(6):
        opt.step(loss_of(model))
        scheduler.step()
    opt.log.save(tmp_path / "run.zolog")
    log = Log.load(tmp_path / "run.zolog")
    made = ForwardGradient(again.parameters(), **log.options)
    for slopes, rates in zip(log.deltas, log.settings, strict=True):
        made.repeat(slopes, rates)
    assert same(bits(model), bits(again))
    assert not same(bits(model), bits(built("linear", dtype)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_goes_on_from_its_state(momentum: float) -> None:
    model, resumed = built("norm", torch.float32), built("norm", torch.float32)
    opt = ForwardGradient(model.parameters(), lr=0.01, momentum=momentum)
    for _ in range(3):
        opt.step(loss_of(model))
    resumed.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other = ForwardGradient(resumed.parameters())
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        opt.step(loss_of(model))
        other.step(loss_of(resumed))
    assert same(bits(model), bits(resumed))


def test_frozen_tied_numbers_and_empty_parameters() -> None:
    weight = nn.Parameter(torch.ones(3, 2).t())  # rows are not in one piece
    tied = nn.Parameter(weight.detach())  # another object, the same memory
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    number, empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    opt = ForwardGradient([weight, tied, frozen, number, empty], lr=0.02)
    opt.estimate(lambda: torch.sum(weight * tied))
    (z, _) = directions(opt, 0, 0)
    assert opt._estimates[0].deltas[0] == pytest.approx(float(2 * z.sum()))
    opt.step()
    for _ in range(300):
        opt.step(lambda: (weight * tied).sum() + (number * frozen).square().sum())
    assert torch.equal(weight, tied)
    assert float(weight.detach().abs().max()) < 0.05
    assert abs(float(number.detach())) < 0.05
    assert torch.equal(frozen, torch.ones(3))


def quadratic(condition: float) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
    """Return parameters of the quadratic, and its curvatures."""
    for shape in ((20, 30), (20,)):
        parameter = nn.Parameter(torch.zeros(shape))
        count = parameter.numel()
        yield parameter, torch.logspace(0, math.log10(condition), count).view(shape)


@pytest.mark.parametrize(("condition", "steps"), [(1.0, 3000), (100.0, 6500)])
def test_a_quadratic_is_descended(condition: float, steps: int) -> None:
    pairs = list(quadratic(condition))

    def loss() -> torch.Tensor:
        return torch.stack([(s * (p - 1).square()).sum() / 2 for p, s in pairs]).sum()

    start = float(loss().detach())
    trace = sum(float(scale.sum()) for _, scale in pairs)
    opt = ForwardGradient([parameter for parameter, _ in pairs], lr=1 / trace)
    for _ in range(steps):
        opt.step(loss)
    assert float(loss().detach()) < 0.01 * start
