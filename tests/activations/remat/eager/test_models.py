"""Unusual models and unusual uses of them: computed again, they give the same bits."""

from __future__ import annotations

import copy
import gc
import io
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.testing._internal.two_tensor import TwoTensor

from shoestring.activations.remat.eager.predict import recomputed
from shoestring.activations.remat.eager.recording import is_recorded, record
from shoestring.activations.remat.eager.sites import Site, sites_of
from shoestring.activations.remat.eager.step_graph import step_graph
from shoestring.activations.remat.eager.tape import Made, Value
from shoestring.core.errors import RefusedError
from shoestring.core.profile import Profile
from shoestring.planner.profiling import profile

pytestmark = pytest.mark.filterwarnings(
    "ignore:the model returns no loss:shoestring.core.errors.AssumptionWarning"
)
WIDTH = 32


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(count: int = 24) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(3))


def repeatable(prof: Profile) -> frozenset[Site]:
    """Return all that may run again."""
    step, sites = step_graph(prof.trace, prof.machine), sites_of(prof.trace)
    nodes = zip(step.graph.nodes, step.ops, strict=False)
    return frozenset(sites[index] for node, ops in nodes if node.repeatable for index in ops)


def changed(model: nn.Module, batch: torch.Tensor | None = None) -> nn.Module:
    """Let a model compute again whatever may run again."""
    sites = repeatable(profile(model, rows() if batch is None else batch))
    assert sites
    record(model, sites)
    return model


def train(model: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(1)
    found: list[torch.Tensor] = []
    for _ in range(2):
        model.zero_grad()
        output = model(batch)
        output = output[0] if isinstance(output, tuple) else output
        output.square().sum().backward()
        found += [output.detach().clone(), *gradients(model)]
    return [*found, *model.buffers(), torch.get_rng_state()]


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))


def assert_exact(build: Callable[[], nn.Module], batch: torch.Tensor) -> None:
    torch.manual_seed(0)
    plain = build()
    model = changed(copy.deepcopy(plain), batch)
    assert_same(train(model, batch), train(plain, batch))


class Layer(nn.Module):
    """A layer with dropout, whose depth counts how often it calls itself."""

    def __init__(self, depth: int = 0) -> None:
        super().__init__()
        self.linear, self.depth = nn.Linear(WIDTH, WIDTH), depth

    def forward(self, x: torch.Tensor, depth: int | None = None) -> torch.Tensor:
        left = self.depth if depth is None else depth
        y = F.dropout(self.linear(x.sin()).exp().tanh(), 0.25)
        return y if left == 0 else y + self(y.cos(), left - 1)


def layers(count: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Layer() for _ in range(count)))


# --- models ------------------------------------------------------------------------------------


def weight_normed() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)), nn.GELU(), Layer())


def spectral_normed() -> nn.Module:
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)), Layer())


def orthogonal() -> nn.Module:
    return nn.Sequential(parametrizations.orthogonal(nn.Linear(WIDTH, WIDTH)), Layer())


def recurrent(kind: type[nn.RNNBase]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(Layer(), kind(WIDTH, WIDTH, num_layers=2, dropout=0.2))


def hooked() -> nn.Module:
    """Hooks return other inputs and outputs; gradients pass one, too."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), Layer())
    model[0].register_forward_pre_hook(lambda module, args: (args[0].sin().exp(),))
    model[1].register_forward_hook(lambda module, args, output: output.exp() * output)
    model[2].register_full_backward_hook(lambda module, given, grads: (given[0] * 2,))
    return model


def pre_hooked() -> nn.Module:
    model = Layer()
    model.register_forward_pre_hook(lambda module, args: (args[0].sin().exp(),))
    return model


@pytest.mark.parametrize(
    "build",
    [
        *(weight_normed, spectral_normed, orthogonal, hooked, pre_hooked, lambda: Layer(2)),
        *(recurrent(kind) for kind in (nn.LSTM, nn.GRU, nn.RNN)),
    ],
    ids=[
        "weight norm",
        "spectral",
        "orthogonal",
        "hooks",
        "first",
        "recursion",
        "LSTM",
        "GRU",
        "RNN",
    ],
)
def test_no_bit_changes(build: Callable[[], nn.Module]) -> None:
    assert_exact(build, rows())


def test_no_bit_changes_for_an_input_with_a_gradient() -> None:
    found = []
    for again in (False, True):
        model = changed(layers()) if again else layers()
        torch.manual_seed(1)
        batch = rows().requires_grad_()
        model(batch).square().sum().backward()
        assert batch.grad is not None
        found.append([batch.grad, *gradients(model)])
    assert_same(*found)


class Paired(nn.Module):
    """Its weight is a tensor that is made of two."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        pair = TwoTensor(torch.randn(WIDTH, WIDTH), torch.randn(WIDTH, WIDTH))
        self.weight = nn.Parameter(pair)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.weight).sin() * 2).cos().exp()


def test_tensors_made_of_others_are_kept() -> None:
    found = []
    for again in (False, True):
        model = Paired()
        if again:
            names = ("mm.default", "sin.default", "mul.Tensor", "cos.default", "exp.default")
            record(model, [Site("", f"aten.{name}", 0) for name in names])
        model(rows()).sum().backward()
        grad = model.weight.grad
        assert isinstance(grad, TwoTensor)
        found.append([grad.a, grad.b])
    assert_same(*found)


class Outside(nn.Module):
    """Calls modules of one class that are no parts of it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.others = nn.Linear(WIDTH, WIDTH), tuple(nn.GELU() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for other in self.others:
            x = other(self.linear(x)).exp()
        return x


class Forces(nn.Module):
    """Differentiates a part of itself, with dropout before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.first(x), 0.2)
        energy = self.second(x).exp().sin().exp().sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return F.dropout(force.exp().sin(), 0.2).exp() * force.cos()


@pytest.mark.parametrize("build", [Outside, Forces, hooked, lambda: Layer(2)])
def test_the_sites_are_those_of_the_trace(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, batch = build(), rows(64)
    prof = profile(model, batch)
    sites = repeatable(prof)
    again = recomputed(prof.trace, sites)
    record(model, sites)
    traced = profile(model, batch).trace
    assert [op.name for op in traced.ops] == [op.name for op in again.ops]
    assert (traced.timeline() == again.timeline()).all()


# --- uses --------------------------------------------------------------------------------------


def test_one_changed_model_within_another() -> None:
    def build(again: bool) -> nn.Module:
        inner = layers()
        if again:
            changed(inner)
        outer = nn.Sequential(Layer(), inner, nn.Linear(WIDTH, WIDTH))
        return changed(outer) if again else outer

    found = []
    for again in (False, True):
        torch.manual_seed(5)
        found.append(train(build(again), rows()))
    assert_same(*found)


def test_forwards_and_backwards_in_several_threads() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        found: dict[int, list[torch.Tensor]] = {}

        def work(number: int) -> None:
            batch = rows() * (number + 1)
            for _ in range(5):
                loss = model(batch).square().sum()
                found[number] = list(torch.autograd.grad(loss, list(model.parameters())))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [grad for number in range(4) for grad in found[number]]

    model = layers().eval()
    for layer in model:
        layer.forward = lambda x, linear=layer.linear: linear(x.sin()).exp().tanh()
    other = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(4)))
    plain = copy.deepcopy(other)
    assert_same(run(changed(other)), run(plain))


class Forked(nn.Module):
    """Two results of one long chain."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, 256)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.linear(x)
        for _ in range(10):
            x = x.sin() + x.cos()
        return x.tanh().exp(), x.exp().sin()


@pytest.fixture
def _threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_two_backwards_at_once_through_one_forward() -> None:
    torch.manual_seed(0)
    model, batch = Forked(), torch.ones(256, 256)
    names = ("addmm.default", "sin.default", "cos.default", "add.Tensor", "exp.default")
    record(model, [Site("", f"aten.{name}", n) for name in names for n in range(10)])
    weight = model.linear.weight
    expected = [torch.autograd.grad(model(batch)[n].sum(), weight)[0] for n in range(2)]
    for _ in range(20):
        found: dict[int, torch.Tensor] = {}
        start = threading.Barrier(2)

        def work(
            number: int,
            loss: torch.Tensor,
            into: dict[int, torch.Tensor] = found,
            start: threading.Barrier = start,
        ) -> None:
            start.wait()
            (into[number],) = torch.autograd.grad(loss, weight, retain_graph=True)

        losses = [y.sum() for y in model(batch)]
        threads = [threading.Thread(target=work, args=item) for item in enumerate(losses)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert_same([found[0], found[1]], expected)


class Failing(nn.Module):
    """Raises in the middle when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.error = layers(), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.parts[0](x).sin()
        if self.error is not None:
            raise self.error
        return self.parts[1](x).exp()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_forward_that_raised_leaves_nothing(error: BaseException) -> None:
    plain = Failing()
    model = changed(copy.deepcopy(plain))
    expected = train(plain, rows())
    model.error = error
    with pytest.raises(type(error)):
        model(rows())
    model.error = None
    assert torch.overrides._get_current_function_mode() is None
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    assert_same(train(model, rows()), expected)


def values_alive() -> int:
    return sum(type(o) in (Made, Value) for o in gc.get_objects())


@pytest.mark.parametrize("backwards", [0, 1, 2])
def test_a_forward_that_is_let_go_of_leaves_nothing(backwards: int) -> None:
    model = Forked()
    record(
        model, [Site("", f"aten.{n}", k) for n in ("add.Tensor", "exp.default") for k in range(9)]
    )
    gc.collect()
    before = values_alive()
    loss = model(torch.ones(4, 256))[0].sum()
    assert values_alive() > before
    for _ in range(backwards):
        torch.autograd.grad(loss, model.linear.weight, retain_graph=True)
    del loss
    assert values_alive() == before


def test_a_saved_model_is_a_plain_one() -> None:
    model = changed(layers())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert not is_recorded(loaded)
    assert_same(train(loaded, rows()), train(layers(), rows()))
    changed(loaded)
    assert_same(train(loaded, rows()), train(layers(), rows()))


class Transformed(nn.Module):
    """Uses torch's function transforms, which do not work with hooks of saved tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x).exp()
        return torch.func.grad(lambda y: y.sin().sum())(x).cos()


def test_a_model_with_function_transforms_is_refused() -> None:
    model = Transformed()
    prof = profile(model, rows())
    assert prof.trace.ops
    record(model, [Site("", "aten.exp.default", 0)])
    with pytest.raises(RefusedError, match=r"torch\.func"):
        model(rows())
