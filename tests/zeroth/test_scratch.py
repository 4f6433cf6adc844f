"""Copies of a few parameters at a time: the same bits as copies of all, and far less memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shoestring.measure.tracing.allocator import measure_step
from shoestring.zeroth.asking import InPlace
from shoestring.zeroth.directions import family
from shoestring.zeroth.moves import Move, move
from shoestring.zeroth.places import Place
from shoestring.zeroth.scratch import ScratchForward
from shoestring.zeroth.twin import TwinWarning
from tests.zoo import ZOO

X = torch.linspace(-1, 1, 24).view(2, 3, 4)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Asked:
    """A model that is asked at places: with copies of all parameters, or of a few."""

    def __init__(
        self, model: nn.Module, loss: Callable[[], object], directions: str = "rademacher"
    ) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.loss, self.calls, self.kept = loss, 0, []
        self._draw = family(directions)
        self.forward = ScratchForward(model, self.parameters)

    def closure(self) -> torch.Tensor:
        self.calls += 1
        return self.loss()  # type: ignore[return-value]

    def moves(self, index: int, sign: int) -> Move:
        drawn = self._draw(self.parameters, 5 + index)
        return Move(drawn, [sign * 1e-3] * len(drawn), [0.0] * len(drawn))

    def go(self, place: Place | None) -> None:
        """Move all parameters, with a copy of all of them, as the engine does below float32."""
        for parameter, values in zip(self.parameters, self.kept, strict=False):
            parameter.copy_(values)
        self.kept = []
        if place is not None:
            self.kept = [parameter.clone() for parameter in self.parameters]
            move(self.parameters, [self.moves(place.which, place.sign)])

    def in_place(self) -> InPlace:
        return InPlace(self.closure, self.go, 0)

    def asking(self) -> object:
        return self.forward.asking(self.closure, self.moves, self.in_place())

    def both(self, count: int) -> tuple[object, object]:
        """Return the losses with a few copies, and with copies of all."""
        versions = [parameter._version for parameter in self.parameters]
        state = torch.get_rng_state()
        found = self.asking().sides(count)
        assert [parameter._version for parameter in self.parameters] == versions
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        known = self.in_place()
        expected = known.sides(count)
        known.leave()
        assert torch.equal(torch.get_rng_state(), after)
        return found, expected


def call(model: nn.Module, batch: object) -> object:
    """Call a model."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "llama", "t5", "vit", "convnext", "lstm", "mixtral"]
)
@pytest.mark.parametrize("directions", ["rademacher", "rank1"])
def test_models_of_the_zoo(name: str, directions: str) -> None:
    pytest.importorskip("transformers")
    (case,) = [case for case in ZOO if case.name == name]
    model, batch = case.build().bfloat16(), case.batch(2)
    batch = _cast(batch)

    def loss() -> torch.Tensor:
        found = call(model, batch)
        if case.loss:
            return case.loss(found, batch)
        return found.logits.float().square().mean()  # type: ignore[attr-defined]

    asked = Asked(model, loss, directions)
    found, expected = asked.both(1)
    assert asked.forward.watch.reason is None
    assert found == expected
    assert found[0][0] != found[0][1]


def _cast(batch: object) -> object:
    if isinstance(batch, torch.Tensor):
        return batch.bfloat16() if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {name: _cast(value) for name, value in batch.items()}
    return tuple(map(_cast, batch))


@pytest.mark.parametrize("directions", ["gaussian", "coord:5", "semiortho:haar", "lowrank:2"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_all_families_and_parameters(directions: str, dtype: torch.dtype) -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True).to(dtype)
    scale = nn.Parameter(torch.tensor(1.5, dtype=dtype))
    model = nn.ModuleDict({"layer": layer, "tied": nn.Linear(4, 7, bias=False).to(dtype)})
    model.register_parameter("scale", scale)
    x = X.to(dtype)

    def loss() -> torch.Tensor:
        hidden = model["layer"](x) * scale
        ids = torch.arange(6).view(2, 3)
        hidden = F.embedding(ids, model["tied"].weight) + hidden @ torch.eye(4, dtype=dtype)
        return model["tied"](hidden).square().mean((1, 2))

    asked = Asked(model, loss, directions)
    found, expected = asked.both(2)
    assert found == expected
    assert len({loss for pair in found for loss in pair}) > 1


def test_statistics_and_numbers_are_fine() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(3))
    asked = Asked(model, lambda: model(X).square().sum().item() if model(X).sum() < 9e9 else 0.0)
    asking = asked.asking()
    asking.sides(1)
    assert asked.forward.watch.reason is None
    assert asked.calls == 2


def test_one_side() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    asked = Asked(model, lambda: model(X).square().mean())
    state = torch.get_rng_state()
    asking = asked.asking()
    found = [asking.here(), asking.ahead(1)]
    torch.set_rng_state(state)
    known = asked.in_place()
    assert found == [known.here(), known.ahead(1)]
    known.leave()


@pytest.mark.parametrize("kind", ["written", "a view from before", "compiled"])
def test_in_place_from_then_on(kind: str) -> None:
    model = nn.Linear(4, 2)
    held = model.weight.t()

    def loss() -> torch.Tensor:
        if kind == "written":
            model.weight.clamp_(-9, 9)
        return (X @ held + model.bias).square().mean()

    asked = Asked(model, loss)
    if kind == "compiled":
        model.compile(backend="eager")
    words = {"written": "clamp_", "a view from before": "weight", "compiled": "compiled"}[kind]
    with pytest.warns(TwinWarning, match=words):
        found = asked.asking().sides(1)
    asked.go(None)
    asked.calls = 0
    asking = asked.asking()
    assert isinstance(asking, InPlace)
    assert asking.sides(1) == found
    assert asked.calls == 2


@pytest.mark.parametrize("layers", [4, 12])
def test_the_memory_of_one_layer(layers: int) -> None:
    model = nn.Sequential(*[nn.Linear(300, 300, bias=False) for _ in range(layers)]).bfloat16()
    x = torch.randn(2, 300, dtype=torch.bfloat16)
    asked = Asked(model, lambda: model(x).float().square().mean())
    largest = model[0].weight.nbytes

    def extra(step: Callable[[], object]) -> int:
        step()
        taken = measure_step(lambda: step() and None, roots=model.parameters)
        return taken.peak - taken.static

    def whole() -> None:
        asking = asked.in_place()
        asking.sides(1)
        asking.leave()

    few = extra(lambda: asked.asking().sides(1))
    every = extra(whole)
    assert largest <= few < 2.5 * largest
    assert every >= layers * largest
