"""A twin forward: the losses at all places in one call, as from copies that were moved."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.core.errors import InputError
from shoestring.kernels.streams import signs
from shoestring.measure.tracing.allocator import measure_step
from shoestring.zeroth.asking import InPlace
from shoestring.zeroth.directions import Direction, family
from shoestring.zeroth.places import Place
from shoestring.zeroth.twin import TwinForward, TwinWarning
from shoestring.zeroth.twin._torch import opened
from shoestring.zeroth.twin.draws import Stream, draw
from shoestring.zeroth.twin.shifts import shifts_of
from tests.oracles import twin as oracle

Closure = Callable[[], torch.Tensor]


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Asked:
    """A model that is asked at places, as an optimizer would."""

    def __init__(
        self,
        model: nn.Module,
        call: Callable[[nn.Module], object],
        directions: str,
        radius: float,
        key: int = 77,
    ) -> None:
        self.model, self.call, self.calls = model, call, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.radii = [radius * (1 + k % 3) for k in range(len(self.parameters))]
        self._draw, self._place, self._key = family(directions), None, key
        self.forward = TwinForward(model, self.parameters)

    def along(self, index: int) -> list[Direction]:
        return self._draw(self.parameters, self._key + index)

    def closure(self) -> torch.Tensor:
        self.calls += 1
        return self.call(self.model)  # type: ignore[return-value]

    def asking(self, key: int = 0) -> object:
        in_place = InPlace(self.closure, self._go, 0)
        return self.forward.asking(self.closure, self.along, self.radii, in_place, key=key)

    def _go(self, place: Place | None) -> None:
        for one, factor in ((self._place, -1), (place, 1)):
            if one is not None:
                steps = zip(self.parameters, self.along(one.which), self.radii, strict=True)
                for parameter, direction, radius in steps:
                    direction.add_to(parameter, factor * one.sign * radius)
        self._place = place

    def expected(self, count: int) -> list[tuple[float, float]]:
        along = [self.along(index) for index in range(count)]
        return oracle.sides(self.model, self.call, along, self.radii)


def check(
    model: nn.Module,
    call: Callable[[nn.Module], torch.Tensor],
    *,
    directions: str = "lowrank:2",
    count: int = 2,
    radius: float = 1e-3,
    copied: tuple[str, ...] = (),
) -> None:
    """Compare with copies that were moved; nothing is written, nothing said, one call is made."""
    asked = Asked(model, call, directions, radius)
    before = [(p._version, p.clone()) for p in asked.parameters]
    state = torch.get_rng_state()
    expected = asked.expected(count)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with warnings.catch_warnings():
        if copied:
            warnings.simplefilter("ignore", TwinWarning)
        found = asked.asking().sides(count)
    assert asked.forward.watch.reason is None
    assert torch.equal(torch.get_rng_state(), after)
    assert asked.calls == 1
    flat = torch.tensor([n for pair in found for n in pair], dtype=torch.float64)
    wanted = torch.tensor([n for pair in expected for n in pair], dtype=torch.float64)
    slopes, known = flat[::2] - flat[1::2], wanted[::2] - wanted[1::2]
    assert known.abs().max() > 1e-6, "the places do not differ"
    assert torch.allclose(flat, wanted, rtol=1e-9, atol=1e-12)
    assert torch.allclose(slopes, known, rtol=1e-6, atol=1e-12)
    assert tuple(sorted(asked.forward.copied)) == copied
    for parameter, (version, values) in zip(asked.parameters, before, strict=True):
        assert parameter._version == version
        assert torch.equal(parameter, values)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def squares(output: torch.Tensor) -> torch.Tensor:
    """Return a loss that no symmetry makes the same at two places."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view(output.shape)
    return ((output - 0.3) * weights).square().mean()


# --- what is drawn -------------------------------------------------------------------------------


def test_streams_are_those_of_the_kernel() -> None:
    streams = [Stream(7, 130, 1.0), Stream(1 << 63, 64, 0.25), Stream((1 << 64) - 1, 1, -3.0)]
    for dtype in (torch.float32, torch.float64):
        for stream, found in zip(streams, draw(streams, dtype), strict=True):
            expected = signs(stream.key, stream.length, dtype=dtype) * stream.size
            assert torch.equal(found, expected)
    assert draw([], torch.float32) == []


@pytest.mark.parametrize("shape", [(4, 6), (5, 2, 3), (3, 1), (7,), ()])
def test_a_shift_is_a_direction(shape: tuple[int, ...]) -> None:
    parameter = normal(*shape)
    along = [family("lowrank:3")([parameter], key) for key in (1, 2)]
    (shift,) = shifts_of([parameter], along, [0.1], (1, -1))
    for place, moved in enumerate(shift.moved()):
        expected = parameter.clone()
        along[place // 2][0].add_to(expected, 0.1 if place % 2 == 0 else -0.1)
        assert torch.allclose(moved, expected, rtol=1e-12)


def test_directions_of_full_rank_are_refused() -> None:
    asked = Asked(nn.Linear(3, 2), lambda m: m(torch.ones(3)).sum(), "rademacher", 1e-3)
    with pytest.raises(InputError, match="low rank"):
        asked.asking().sides(1)


# --- functions -----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 4),
    rank=st.integers(1, 3),
    count=st.integers(1, 3),
    frozen=st.sampled_from(["nothing", "weight", "bias", "first", "no bias"]),
)
def test_linear_layers(sizes: tuple[int, ...], rank: int, count: int, frozen: str) -> None:
    rows, first, second, third = sizes
    x = normal(rows, 3, first)
    layers = [nn.Linear(first, second + 1), nn.Linear(second + 1, third, bias=frozen != "no bias")]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1]).double()
    model[0].requires_grad_(frozen != "first")
    if frozen in {"weight", "bias"}:
        getattr(model[2], frozen).requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    along = [family(f"lowrank:{rank}")(parameters, 5 + k) for k in range(count)]
    radii = [1e-2] * len(parameters)
    expected = oracle.sides(model, lambda m: squares(m(x)), along, radii)
    asked = Asked(model, lambda m: squares(m(x)), f"lowrank:{rank}", 1e-2)
    asked.along, asked.radii = (lambda index: along[index]), radii  # type: ignore[method-assign]
    found = asked.asking().sides(count)
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-9, atol=1e-12)


class Parts(nn.Module):
    """Tensors that are trained, and how a loss is made of them."""

    def __init__(self, call: Callable[..., torch.Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = nn.ParameterList(normal(*shape) for shape in shapes)
        self.call = call

    def forward(self) -> torch.Tensor:
        return squares(self.call(*self.parts))


X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 3, 4)
FUNCTIONS: dict[str, tuple[Parts, tuple[str, ...]]] = {}


def _function(
    name: str,
    call: Callable[..., torch.Tensor],
    *shapes: tuple[int, ...],
    copied: tuple[str, ...] = (),
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        FUNCTIONS[name] = Parts(call, *shapes), copied


_function("matmul", lambda w: X @ w, (4, 5))
_function("matmul of vectors", lambda w: X[0, 0] @ w, (4, 5))
_function("transposed", lambda w: X @ w.t(), (5, 4))
_function("transposed in other ways", lambda w: X @ w.T + X @ w.mT + X @ w.transpose(0, 1), (5, 4))
_function("turned twice", lambda w: F.linear(X, w.t()), (4, 5))
_function("both sides", lambda w: F.linear(F.linear(X, w), w.t()), (4, 4))
_function("addmm", lambda b, w: torch.addmm(b, X[0], w), (5,), (4, 5))
_function("a vector of weights", lambda w, b: X @ w + b, (4,), ())
_function("trained input", F.linear, (3, 4), (5, 4), copied=("parts.0",))
_function("trained input alone", lambda x: F.linear(x, X[0]), (3, 4), copied=("parts.0",))
_function("own loss of weights", lambda w: w.square(), (3, 4), copied=("parts.0",))
_function("nothing but numbers", lambda w: X * w.exp(), ())
_function("einsum", lambda w: torch.einsum("bij,jk->bik", X, w), (4, 5), copied=("parts.0",))
_function(
    "expanded", lambda t: torch.cat([t.expand(2, 1, 4), X], 1), (1, 1, 4), copied=("parts.0",)
)
_function("indexed", lambda w: X + w[1:3].sum(), (4, 2), copied=("parts.0",))
_function("asked for its shape", lambda w: X.new_ones(2, w.size(1)) @ w.t() * len(w), (5, 4))
_function("embedding", lambda w: F.embedding(torch.tensor([[0, 2], [4, 2]]), w), (5, 3))
_function(
    "embedding of what differs",
    lambda w, v: F.embedding((X @ w).argmax(-1), v),
    (4, 5),
    (5, 3),
)
_function("tied", lambda w: F.linear(F.embedding(torch.tensor([0, 2, 1]), w).tanh(), w), (6, 4))
_function("grouped", lambda w: F.conv1d(X.mT, w, groups=2), (6, 2, 2))
_function("depthwise", lambda w: F.conv1d(X.mT, w, groups=4, padding="same"), (4, 1, 3))
_function("strided", lambda w, b: F.conv2d(X[:, None], w, b, 2, 1, 1), (3, 1, 2, 2), (3,))
_function(
    "bias of a frozen filter", lambda b: F.conv1d(X.mT, torch.ones(3, 4, 1).double(), b), (3,)
)
_function("solid", lambda w: F.conv3d(X[:, None, None], w), (2, 1, 1, 2, 3))
_function("transposed filter", lambda w, b: F.conv_transpose1d(X, w, b, 2, 1, 1), (3, 2, 3), (2,))
_function(
    "grouped transposed filter",
    lambda w: F.conv_transpose1d(X.mT, w, groups=2),
    (4, 2, 3),
    copied=("parts.0",),
)
_function("after another", lambda w, v: F.conv1d(F.conv1d(X.mT, w).tanh(), v), (3, 4, 2), (2, 3, 2))
_function("layer norm", lambda w, b: F.layer_norm(X, (4,), w, b), (4,), (4,))
_function(
    "layer norm of matrices", lambda w: F.layer_norm(X, (3, 4), w), (3, 4), copied=("parts.0",)
)
_function("rms norm", lambda w: F.rms_norm(X, (4,), w), (4,))
_function("group norm", lambda w, b: F.group_norm(X.mT, 2, w, b), (4,), (4,))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("directions", ["rank1", "lowrank:3"])
def test_functions(name: str, directions: str) -> None:
    model, copied = FUNCTIONS[name]
    check(model, lambda m: m(), directions=directions, copied=copied)


@pytest.mark.parametrize("kind", ["itself", "memory", "other sizes", "mask", "causal", "dropout"])
def test_attention(kind: str) -> None:
    sizes = {"kdim": 6, "vdim": 6} if kind == "other sizes" else {}
    dropout = 0.3 if kind == "dropout" else 0.0
    model = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True, **sizes).double()
    x = normal(3, 4, 8)
    memory = x if not sizes and kind != "memory" else normal(3, 5, 6 if sizes else 8)
    mask = torch.tensor([[False, True, True, False]] * 3) if kind == "mask" else None
    ahead = nn.Transformer.generate_square_subsequent_mask(4).double() if kind == "causal" else None

    def call(module: nn.Module) -> torch.Tensor:
        found, _ = module(
            x, memory, memory, key_padding_mask=mask, attn_mask=ahead, need_weights=False
        )
        return squares(found)

    copied = ("in_proj_weight",) if kind == "memory" else ()
    check(model, call, copied=copied)


def test_a_transformer_of_torch() -> None:
    # With dropout torch lays out the mask like its input, and the numbers fall elsewhere.
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    x = normal(3, 5, 8)
    mask = torch.arange(5) >= torch.tensor([5, 3, 4])[:, None]
    check(model, lambda m: squares(m(x, src_key_padding_mask=mask)))
    check(model.eval(), lambda m: squares(m(x)))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: type[nn.RNNBase]) -> None:
    model = kind(4, 5, 2, bidirectional=True, batch_first=True, dropout=0.5).double()
    copied = tuple(sorted(n for n, p in model.named_parameters() if p.dim() > 1))
    check(model, lambda m: squares(m(X)[0]), copied=copied)


def test_an_opened_function_is_the_same() -> None:
    def twice(x: torch.Tensor, factor: float = 2.0, *, plus: float = 1.0) -> torch.Tensor:
        return x * factor + plus

    assert torch.equal(opened(twice)(X, plus=3.0), twice(X, plus=3.0))


@pytest.mark.parametrize("mask", ["none", "of all", "of each", "that differs"])
def test_products_of_attention(mask: str) -> None:
    given = {"none": None, "of all": torch.ones(3, 3).tril().bool(), "of each": normal(2, 1, 3, 3)}

    def call(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        q, k, v = (F.linear(X, w, b).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)).unbind()
        bias = (X @ X.mT)[:, None] * b[:1] if mask == "that differs" else given[mask]
        return F.scaled_dot_product_attention(q, k, v if mask != "of all" else X[:, None], bias)

    check(Parts(call, (12, 4), (12,)), lambda m: m())


# --- random numbers ------------------------------------------------------------------------------


def test_all_places_meet_the_same_random_numbers() -> None:
    model = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 2)).double()
    asked = Asked(model, lambda m: squares(m(X)), "rank1", 1e-6)
    (pair,) = asked.asking().sides(1)
    assert pair[0] == pytest.approx(pair[1], rel=1e-3)
    (other,) = asked.asking().sides(1)
    assert abs(other[0] - pair[0]) > 100 * abs(pair[0] - pair[1])


def test_a_step_of_one_side() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
    asked = Asked(model, lambda m: squares(m(X)), "rank1", 1e-3)
    state = torch.get_rng_state()
    expected = asked.expected(2)
    torch.set_rng_state(state)
    asking = asked.asking()
    here = asking.here()
    found = [asking.ahead(index) for index in range(2)]
    assert found == pytest.approx([ahead for ahead, _ in expected], rel=1e-9)
    assert asking.losses == [here, *found]
    torch.set_rng_state(state)
    assert here == float(squares(model(X)))


def test_losses_of_samples() -> None:
    model = nn.Linear(4, 2).double()
    asked = Asked(model, lambda m: m(X).square().sum((1, 2)), "rank1", 1e-3)
    asking = asked.asking()
    found = asking.sides(2)
    assert torch.allclose(torch.tensor(found), torch.tensor(asked.expected(2)), rtol=1e-9)
    assert asking.samples == 2
    assert len(asking.errors) == 2
    assert len(asking.losses) == 4


# --- where it cannot be --------------------------------------------------------------------------


def _reads_a_view(model: nn.Linear) -> Callable[[nn.Module], torch.Tensor]:
    held = model.weight.t()
    return lambda m: squares(X @ held + m.bias)


def _writes(model: nn.Module) -> torch.Tensor:
    model.weight.mul_(1.0)
    return squares(model(X))


REFUSED: dict[str, tuple[Callable[[nn.Linear], Callable[[nn.Module], object]], str]] = {
    "a number is asked for": (lambda _: lambda m: m(X).square().mean().item(), "item"),
    "a branch": (
        lambda _: lambda m: squares(m(X)) if m(X).sum() > 0 else m(X).sum(),
        "control flow",
    ),
    "a number is returned": (lambda _: lambda m: 1.5, "number that is no tensor"),
    "weights are written to": (lambda _: _writes, "mul_ writes to a trained parameter"),
    "data are asked for": (lambda _: lambda m: squares(X @ m.weight.data.t()), "data of a trained"),
    "a view from before": (_reads_a_view, "weight"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_in_place_from_then_on(kind: str) -> None:
    model = nn.Linear(4, 2).double()
    call, words = REFUSED[kind]
    made = call(model)
    asked = Asked(model, made, "rank1", 1e-3)
    before = [parameter.clone() for parameter in asked.parameters]
    asking = asked.asking()
    with pytest.warns(TwinWarning, match=words):
        found = asking.sides(2)
    assert len(asking.losses) == 4
    asking.leave()
    assert all(map(torch.allclose, asked.parameters, before))
    if kind != "a view from before":  # of which a copy has none
        expected = oracle.sides(
            model, lambda m: torch.as_tensor(made(m)), [asked.along(0), asked.along(1)], asked.radii
        )
        assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-9)
    asked.calls = 0
    again = asked.asking()
    assert torch.allclose(torch.tensor(again.sides(2)), torch.tensor(found), rtol=1e-9)
    again.leave()
    assert asked.calls == 4
    assert asked.forward.watch.reason is not None


def test_random_numbers_after_a_refusal() -> None:
    model = nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 2)).double()
    asked = Asked(model, lambda m: torch.tensor(squares(m(X)).item()), "rank1", 1e-3)
    state = torch.get_rng_state()
    expected = asked.expected(1)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with pytest.warns(TwinWarning, match="item"):
        found = asked.asking().sides(1)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=1e-9)


@pytest.mark.parametrize("kind", ["batch norm", "compiled", "compiled within"])
def test_models_that_are_not_tried(kind: str) -> None:
    model: nn.Module = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(3))
    if kind != "batch norm":
        model.eval()
    if kind == "compiled":
        model.compile(backend="eager")
    elif kind == "compiled within":
        model[0] = torch.compile(model[0], backend="eager")
    asked = Asked(model, lambda m: torch.ones(()), "rank1", 1e-3)
    with pytest.warns(TwinWarning, match="statistics" if kind == "batch norm" else "is compiled"):
        asking = asked.asking()
    assert isinstance(asking, InPlace)
    assert asked.calls == 0


def test_statistics_that_stay_are_fine() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(3)).double().eval()
    check(model, lambda m: squares(m(X)))


def test_a_compiled_function_within() -> None:
    inner = torch.compile(lambda m: m(X.float()).square().mean(), backend="eager")
    asked = Asked(nn.Linear(4, 2), inner, "rank1", 1e-3)
    found = asked.asking().sides(1)  # by the function that was compiled, as it is
    assert asked.forward.watch.reason is None
    assert torch.allclose(torch.tensor(found), torch.tensor(asked.expected(1)), rtol=1e-5)
    torch.compiler.reset()


def test_an_error_of_the_closure_is_its_own() -> None:
    def broken(model: nn.Module) -> torch.Tensor:
        raise ValueError("mine")

    asked = Asked(nn.Linear(4, 2), broken, "rank1", 1e-3)
    with pytest.raises(ValueError, match="mine"):
        asked.asking().sides(1)
    assert asked.forward.watch.reason is None


def test_what_is_not_read_is_no_reason() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 2), "not": nn.Linear(2, 2)}).double()
    asked = Asked(model, lambda m: squares(m["used"](X)), "rank1", 1e-3)
    before = [parameter.clone() for parameter in asked.parameters]
    expected = asked.expected(1)
    assert torch.allclose(torch.tensor(asked.asking().sides(1)), torch.tensor(expected), rtol=1e-9)
    assert asked.calls == 3  # and twice to see whether the others matter
    asked.asking().sides(1)
    assert asked.calls == 4
    assert all(map(torch.equal, asked.parameters, before))


def test_copies_are_told_of_once() -> None:
    model = FUNCTIONS["einsum"][0]
    asked = Asked(model, lambda m: m(), "rank1", 1e-3)
    with pytest.warns(TwinWarning, match=r"parts\.0 \(einsum\)"):
        asked.asking().sides(1)
    asked.asking().sides(1)
    assert asked.forward.copied == {"parts.0": "einsum"}


# --- few bits ------------------------------------------------------------------------------------


class Sum(nn.Module):
    """Adds a trained vector."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.vector


HALF: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(64, 64), (256, 64)),
    "linear of what differs": (
        lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), (256, 64)
    ),
    "embedding": (lambda: nn.Embedding(50, 64), (256,)),
    "convolution": (lambda: nn.Conv1d(8, 32, 3), (64, 8, 20)),
    "norm": (lambda: nn.LayerNorm(64), (256, 64)),
    "sum with a vector": (Sum, (256, 64)),
}  # fmt: skip


def _towards(x: torch.Tensor, signs: torch.Tensor, model: nn.Module) -> torch.Tensor:
    return (model(x).double() * signs).mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", HALF)
def test_a_move_below_the_spacing_of_the_weights(kind: str, dtype: torch.dtype) -> None:
    make, shape = HALF[kind]
    model = make()
    for parameter in model.parameters():
        parameter.uniform_(1, 2)  # where the spacing is 2^-7 and 2^-10
    model.to(dtype)
    radius = 2.0 ** (-10 if dtype is torch.bfloat16 else -13)
    x = torch.randint(50, shape) if len(shape) == 1 else torch.randn(shape).to(dtype)
    wide = x.double() if len(shape) > 1 else x
    shares = []
    for key in range(8):
        asked = Asked(model.to(dtype), lambda m: m(x), "rank1", radius, key=key)
        asked.radii = [radius] * len(asked.radii)
        there = [
            oracle.moved(model.double(), asked.along(0), [s * radius] * 9)(wide) for s in (1, -1)
        ]
        known = there[0] - there[1]
        model.to(dtype)
        asked.call = functools.partial(_towards, x, known.sign())
        ((ahead, behind),) = asked.asking(key=key).sides(1)
        shares.append((ahead - behind) / float(known.abs().mean()))
        assert asked.forward.watch.reason is None
        moved = oracle.moved(model, asked.along(0), [radius] * 9)
        assert all(map(torch.equal, moved.parameters(), model.parameters())), "not lost in place"
    found = torch.tensor(shares)
    assert float(found.mean()) == pytest.approx(1, abs=0.1)
    assert float(found.std()) < 0.5


class Quantised(nn.Module):
    """A layer of few bits that stays as it is, with an adapter that is trained."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        most = 2 ** (bits - 1) - 1
        self.register_buffer("weight", torch.randint(-most, most + 1, (6, 4), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(6, 1) / most)
        self.down = nn.Linear(4, 2, bias=False)
        self.up = nn.Linear(2, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale) + self.up(self.down(x))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_base_of_few_bits(bits: int) -> None:
    model = nn.Sequential(Quantised(bits), nn.GELU(), nn.Linear(6, 3))
    model.double()
    model[2].requires_grad_(False)
    base = model[0].weight.clone()
    check(model, lambda m: squares(m(X)))
    assert torch.equal(model[0].weight, base)


def test_under_autocast() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.LayerNorm(64))
    x = torch.randn(128, 64)

    def call(m: nn.Module) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found = m(x).float()
        return found.square().mean(1).sub(1).mean() + found[:, 0].mean()

    asked = Asked(model, call, "rank1", 1e-2)
    ((ahead, behind),) = asked.asking().sides(1)
    ((left, right),) = asked.expected(1)
    assert asked.forward.watch.reason is None
    assert ahead - behind == pytest.approx(left - right, rel=0.05)


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_of_a_weight_s_size_is_made(count: int) -> None:
    model = nn.Sequential(nn.Embedding(3000, 64), nn.Linear(64, 3000), nn.Linear(3000, 64))
    ids = torch.arange(4)
    asked = Asked(model, lambda m: squares(m(ids)), "rank1", 1e-3)
    asked.asking().sides(count)

    def extra(step: Callable[[], object]) -> int:
        taken = measure_step(lambda: step() and None, roots=model.parameters)
        return taken.peak - taken.static

    found = extra(lambda: asked.asking().sides(count))
    assert found < model[0].weight.nbytes
    # The factors of the directions, and what is added of them to the activations of all places.
    factors = 4 * sum(sum(parameter.shape) for parameter in model.parameters())
    assert found < count * (factors + 1.7 * 2 * extra(asked.closure))


def test_in_float32() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Embedding(20, 16), layer, nn.Linear(16, 20))
    ids = torch.arange(15).view(3, 5)
    asked = Asked(model, lambda m: F.cross_entropy(m(ids).mT, ids), "rank1", 1e-2)
    found = torch.tensor(asked.asking().sides(3))
    known = torch.tensor(asked.expected(3))
    assert torch.allclose(found, known, rtol=1e-5)
    assert torch.allclose(found.diff(), known.diff(), rtol=1e-2, atol=1e-5)
