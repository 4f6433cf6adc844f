"""Models that do unusual things in their forwards: computed again, they give the same bits."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from shoestring.activations.remat.eager.recording import record
from shoestring.activations.remat.eager.sites import Site, sites_of
from shoestring.activations.remat.eager.tape import Tape
from shoestring.measure._torch import is_active
from shoestring.measure.tracing.places import Places
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


class Met(frozenset[Site]):
    """Notes which sites it is asked for."""

    seen: set[Site]

    def __contains__(self, site: object) -> bool:
        assert isinstance(site, Site)
        self.seen.add(site)
        return False


def all_sites(model: nn.Module, batch: torch.Tensor) -> frozenset[Site]:
    """Return the sites of a forward, whether or not they are worth it."""
    met, places = Met(), Places(lambda: is_active(tape))
    met.seen = set()
    tape = Tape(met, lambda: places.path)
    places.name(model)
    with places.following(lambda path: None, lambda path: None), tape:
        model.forward(batch)
    return frozenset(met.seen)


def assert_exact(
    build: Callable[[], nn.Module],
    batch: torch.Tensor,
    run: Callable[[nn.Module, torch.Tensor], list[torch.Tensor]] | None = None,
) -> None:
    """Compare with all computed again that can be."""
    run = run or train
    results = []
    for changed in (False, True):
        torch.manual_seed(0)
        model = build()
        if changed:
            record(model, all_sites(copy.deepcopy(model), batch))
        results.append(run(model, batch.clone()))
    ours, theirs = results
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))


def rows(count: int = 24) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(3))


def train(model: nn.Module, batch: torch.Tensor, rounds: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(1)
    found: list[torch.Tensor] = []
    for _ in range(rounds):
        model.zero_grad()
        output = model(batch)
        loss = torch.view_as_real(output) if output.is_complex() else output
        loss.square().sum().backward()
        found += [output.detach().clone(), *(p.grad.clone() for p in model.parameters())]
    return [*found, *model.buffers(), torch.get_rng_state()]


# --- what a forward may do ---------------------------------------------------------------------


class Forward(nn.Module):
    """A linear layer, and any function of what comes out of it."""

    def __init__(self, after: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.after = nn.Linear(WIDTH, WIDTH), after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.linear(x))


class Squared(torch.autograd.Function):
    """Keeps its input on the context directly, and its output as torch asks for it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        y = x.exp() * 2
        ctx.x = x
        ctx.save_for_backward(y)
        return x * y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return grad * (y + ctx.x * y)


def conjugated(x: torch.Tensor) -> torch.Tensor:
    z = torch.complex(x.sin(), x.cos())
    turned = (z * z).sin().conj()
    product = turned.cos() @ z.sin().conj().T
    return (product / 16).sin() * turned.mean().conj().cos() + turned.imag.exp().mean()


def seen_as_real(x: torch.Tensor) -> torch.Tensor:
    z = torch.complex(x.exp(), x.sin()).cos()
    parts = torch.view_as_real(z).tanh()
    return torch.view_as_complex(parts.exp()).exp().abs().sqrt()


def sparse(x: torch.Tensor) -> torch.Tensor:
    chosen = torch.where(x > 0, x, 0.0).to_sparse()
    return torch.sparse.mm(chosen * 2, x.T.exp()).cos()


def sparse_in_place(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        weights = torch.where(x > 0, x, 0.0).to_sparse().coalesce()
        weights.mul_(0.5)
    return torch.sparse.mm(weights, x.T.exp()).cos()


def quantised(x: torch.Tensor) -> torch.Tensor:
    whole = torch.quantize_per_tensor(x.detach().exp(), 0.1, 3, torch.quint8)
    scales = torch.full((x.size(0),), 0.1, dtype=torch.float64)
    zeros = torch.zeros(x.size(0), dtype=torch.int64)
    rowwise = torch.quantize_per_channel(x.detach().sin(), scales, zeros, 0, torch.qint8)
    return x.exp() * whole.dequantize() * rowwise.dequantize().cos()


def empty(x: torch.Tensor) -> torch.Tensor:
    nothing = x[:0].exp()
    return torch.cat([x.sin(), nothing * nothing.cos()]).exp() + nothing.sum()


def several_in_place(x: torch.Tensor) -> torch.Tensor:
    kept, dropped = torch.tensor([3.0] * WIDTH), x.sin()
    torch._foreach_mul_([dropped, kept], 2.0)
    return dropped.sin() * kept.cos()


def mapped(x: torch.Tensor) -> torch.Tensor:
    return torch.vmap(lambda row: (row.exp() @ x.sin().T).softmax(0))(x)


def checkpointed(x: torch.Tensor) -> torch.Tensor:
    def part(y: torch.Tensor) -> torch.Tensor:
        return F.dropout(y.exp().sin(), 0.5)

    y = checkpoint(part, x.cos(), use_reentrant=False)
    return checkpoint(part, y.tanh(), use_reentrant=True).exp()


def slopes(x: torch.Tensor) -> torch.Tensor:
    energy = x.exp().sin().sum()
    (slope,) = torch.autograd.grad(energy, x, create_graph=True)
    return F.dropout(slope.cos(), 0.3) * x.tanh().exp()


def noisy(x: torch.Tensor) -> torch.Tensor:
    return F.rrelu(F.alpha_dropout(x.exp(), 0.2), training=True) + torch.rand_like(x).exp()


def without_gradients_inside(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = x.exp().mean(0).cos()
    return (x * scale).exp()


def under_inference(x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        kept, made = torch.tensor([0.5] * WIDTH), torch.ones(WIDTH).exp()
    return (x + kept).exp() + made


def changed_through_data(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    y.data[:, 0] = 0.0
    z = y + 1
    y.detach()[:, 1] *= 2
    return z * y


def own_hooks(x: torch.Tensor) -> torch.Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        y = x.exp().sin()
    with torch.autograd.graph.save_on_cpu():
        return y.cos().exp()


def out_of_place(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        room = torch.empty_like(x)
        torch.exp(x, out=room)
    return room.sin() * x


def other_type(x: torch.Tensor) -> torch.Tensor:
    bits = x.detach().exp().view(torch.int32)
    return (bits.bitwise_and(0x7F80_0000)).view(torch.float32).sqrt() * x.exp()


def noisy_in_place(x: torch.Tensor) -> torch.Tensor:
    return F.rrelu(x.sin(), training=True, inplace=True).exp()


def needed_as_it_was(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    before = y + 1
    y.mul_(2)
    return before.sin() * y.cos()


AFTER = [
    *(Squared.apply, conjugated, seen_as_real, sparse, sparse_in_place, quantised, empty),
    *(several_in_place, mapped, checkpointed, slopes, noisy, without_gradients_inside),
    *(noisy_in_place, under_inference, changed_through_data, own_hooks, out_of_place, other_type),
    needed_as_it_was,
]


@pytest.mark.filterwarnings("ignore:.*quantiz.*are deprecated:UserWarning")
@pytest.mark.parametrize("after", AFTER, ids=lambda f: getattr(f, "__name__", "function"))
def test_whatever_a_forward_does_no_bit_changes(
    after: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    assert_exact(lambda: Forward(after), rows())


class Whole(nn.Module):
    """Computes in full precision within mixed precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            x = self.first(x).sin()
        return self.second(x).float().exp()


def test_a_backward_within_mixed_precision_computes_again_as_the_forward_did() -> None:
    def run(model: nn.Module, batch: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return train(model, batch)

    assert_exact(Whole, rows(), run)


def test_a_part_that_is_differentiated_has_no_sites() -> None:
    model = Forward(slopes)
    trace = profile(model, rows()).trace
    assert all_sites(model, rows()) == frozenset(sites_of(trace).values())


def test_what_is_not_kept_goes_in_the_forward() -> None:
    model, gone = Forward(lambda x: x.sin().exp().sin()), []
    record(model, all_sites(model, rows()))
    model.linear.register_forward_hook(
        lambda module, args, output: gone.append(weakref.ref(output.untyped_storage()))
    )
    output = model(rows())
    assert output.requires_grad
    assert gone[0]() is None


RAN: list[int] = []


@torch.library.custom_op("shoestring_tests::counted", mutates_args=())
def counted(x: torch.Tensor) -> torch.Tensor:
    """Count how often it runs."""
    RAN.append(1)
    return x * 2


counted.register_autograd(lambda ctx, grad: grad * 2)


def test_an_operator_of_others_runs_once() -> None:
    model = Forward(lambda x: counted(x).sin())
    record(model, all_sites(model, rows()))
    RAN.clear()
    model(rows()).sum().backward()
    assert len(RAN) == 1
