"""What all layers that need no table promise: each runs wherever torch's own does."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from shoestring.activations.fewbit.dropout import Dropout
from shoestring.activations.fewbit.glu import SwiGLU
from shoestring.activations.fewbit.norms import LayerNorm
from shoestring.activations.fewbit.randomized_linear import RandomizedLinear
from shoestring.activations.fewbit.softmax import attention_values
from shoestring.activations.remat import fit
from tests.activations.fewbit.layers import LAYERS, WIDTH, Case
from tests.activations.same import assert_same

Gradients = list[torch.Tensor]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(params=LAYERS)
def case(request: pytest.FixtureRequest) -> Case:
    return LAYERS[request.param]


def pair(case: Case, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """Return a layer and torch's own, with the same parameters, none of them special."""
    ours, plain = case.ours().to(dtype), case.plain().to(dtype)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.copy_(torch.randn(parameter.shape) + 2)
    ours.load_state_dict(plain.state_dict())
    return ours, plain


def batch(dtype: torch.dtype = torch.float32, rows: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, rows // 2, WIDTH, generator=generator).to(dtype).requires_grad_()


def run(call: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, Gradients]:
    """Return output and gradients of a call, as a model in training has them."""
    torch.manual_seed(0)
    parameters = [parameter for parameter in call.parameters() if parameter.requires_grad]
    y = call(x)
    weights = torch.linspace(-1, 2, y.numel()).view(y.shape).to(y.dtype)
    return y.detach(), list(torch.autograd.grad((y * weights).sum(), [x, *parameters]))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_values_are_torchs_bits_and_gradients_too(case: Case, dtype: torch.dtype) -> None:
    ours, plain = pair(case, dtype)
    (y, got), (expected, gradients) = run(ours, batch(dtype)), run(plain, batch(dtype))
    assert torch.equal(y, expected)
    places = range(len(got)) if case.exact else (0, 2)  # a sketch is of the weight's alone
    for k in places:
        assert got[k].dtype is dtype
        assert_same(got[k], gradients[k], TOLERANCE[dtype])


def test_without_training_or_gradients_it_is_torchs(case: Case) -> None:
    ours, plain = pair(case)
    with torch.no_grad():
        torch.manual_seed(0)
        y = ours(batch())
        after = torch.get_rng_state()
        torch.manual_seed(0)
        assert torch.equal(y, plain(batch()))
        assert torch.equal(after, torch.get_rng_state())
    (y, _), (expected, _) = run(ours.eval(), batch()), run(plain.eval(), batch())
    assert torch.equal(y, expected)


@pytest.mark.parametrize("layout", ["empty", "one row", "transposed", "view"])
def test_any_layout(case: Case, layout: str) -> None:
    x = {
        "empty": batch(rows=0),
        "one row": batch(rows=2)[:, 0].detach().requires_grad_(),
        "transposed": batch(rows=24).detach().transpose(0, 1).requires_grad_(),
        "view": batch().detach()[:, ::3].requires_grad_(),
    }[layout]
    ours, plain = pair(case)
    (y, got), (expected, gradients) = run(ours, x), run(plain, x)
    assert torch.equal(y, expected)
    assert_same(got[0], gradients[0], TOLERANCE[torch.float32])


def test_autocast(case: Case) -> None:
    ours, plain = pair(case)
    with torch.autocast("cpu", torch.bfloat16):
        (y, got), (expected, gradients) = run(ours, batch()), run(plain, batch())
    assert torch.equal(y, expected)
    assert [g.dtype for g in got] == [g.dtype for g in gradients]
    assert_same(got[0], gradients[0], 2e-2)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_repeats_what_was_drawn(case: Case, reentrant: bool) -> None:
    ours, _ = pair(case)

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = ours

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = checkpoint(self.inner, x, use_reentrant=reentrant)
            return found

    (y, expected), x = run(ours, batch()), batch()
    torch.manual_seed(0)
    found = Checkpointed()(x)
    (found * torch.linspace(-1, 2, found.numel()).view(found.shape)).sum().backward()
    assert torch.equal(found, y)
    for got, one in zip([x, *ours.parameters()], expected, strict=True):
        assert got.grad is not None
        assert torch.equal(got.grad, one)


def test_rematerialisation_repeats_what_was_drawn() -> None:
    torch.manual_seed(0)
    model, x = _Model(), torch.randn(2, 64, WIDTH)
    _, expected = run(model, x.clone().requires_grad_())
    schedule = fit(model, x, activations="70%", cost="flops")
    assert schedule.peak <= 0.7 * schedule.plain.peak
    _, got = run(model, x.clone().requires_grad_())
    assert all(map(torch.equal, got[1:], expected[1:]))


class _Block(nn.Module):
    """One of each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = LayerNorm(WIDTH)
        self.wide = RandomizedLinear(WIDTH, 2 * WIDTH, ratio=0.25, sketch="srht")
        self.gate = SwiGLU()
        self.narrow = RandomizedLinear(WIDTH, WIDTH, ratio=0.25, sketch="importance")
        self.drop = Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        h = attention_values(h @ h.transpose(-2, -1) / 4, h, 0.1, training=self.training)
        found: torch.Tensor = x + self.drop(self.narrow(self.gate(self.wide(h))))
        return found


class _Model(nn.Module):
    """Blocks, and a loss: what a schedule is made for."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block() for _ in range(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.blocks(x)
        return found.square().mean()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_whole_it_gives_the_same_gradients(case: Case) -> None:
    torch.compiler.reset()
    ours, _ = pair(case)
    # Its partitioner computes again in backward what looks cheap: a draw must not.
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (40, 48):
        (y, got), (expected, gradients) = (run(call, batch(rows=rows)) for call in (compiled, ours))
        assert_same(y, expected, TOLERANCE[torch.float32])
        for one, other in zip(got, gradients, strict=True):
            assert_same(one, other, 1e-5)


def test_copies_pickles_and_states(case: Case) -> None:
    ours, plain = pair(case)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    _, expected = run(ours, batch())
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert repr(other) == repr(ours)
        _, got = run(other, batch())
        assert all(map(torch.equal, got, expected))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_workers_run_it(case: Case) -> None:
    ours, _ = pair(case)
    (y, gradients), *rest = DataLoader(_Runs(ours), batch_size=None, num_workers=1)
    assert not rest
    expected, of_here = run(ours, batch())
    assert torch.equal(y, expected)
    assert all(map(torch.equal, gradients, of_here))


class _Runs(Dataset[tuple[torch.Tensor, Gradients]]):
    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Gradients]:
        return run(self.layer, batch())


def test_a_second_derivative_is_right_or_refused(case: Case) -> None:
    ours, plain = pair(case, torch.float64)

    def second(layer: nn.Module) -> torch.Tensor:
        torch.manual_seed(0)
        x = batch(torch.float64)
        (first,) = torch.autograd.grad(layer(x).sin().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    if case.twice:
        assert_same(second(ours), second(plain), 1e-12)
        return
    with pytest.raises(RuntimeError, match=r"cannot be differentiated twice.\nhint: leave out"):
        second(ours)


def test_transforms_of_torch_func_work(case: Case) -> None:
    ours, plain = pair(case)
    ours.eval(), plain.eval()
    x = batch().detach()

    def per_sample(layer: nn.Module) -> dict[str, torch.Tensor]:
        parameters = {name: p.detach() for name, p in layer.named_parameters()}

        def loss(given: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.func.functional_call(layer, given, (one,))
            return found.sin().sum()

        of_all, of_input = torch.func.vmap(torch.func.grad(loss, (0, 1)), (None, 0))(parameters, x)
        return {**of_all, "input": of_input}

    got, expected = per_sample(ours), per_sample(plain)
    for name, found in got.items():
        assert_same(found, expected[name], 1e-5)
    with torch.no_grad():
        assert_same(torch.func.vmap(ours)(x), torch.func.vmap(plain)(x), 1e-6)
