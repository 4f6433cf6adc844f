"""What an attack promises whatever the method: the ball, the counts, the early exit, the bits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth.attacks import (
    NES,
    SPSA,
    ZOO,
    Attack,
    Jaguar,
    SignHunter,
    Square,
    attack,
)
from shoestring.zeroth.attacks.loop import METHODS
from shoestring.zeroth.attacks.method import Method

NAMES = [kind.name for kind in METHODS]
BALLS = [("linf", 0.04), ("l2", 0.4)]
ROUNDING = 2e-7
QUERIES = 150


def weights() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two layers of a small network."""
    generator = torch.Generator().manual_seed(2)
    one = torch.randn(16, 100, generator=generator) / 5
    return one, torch.randn(4, 16, generator=generator)


def model_fn(images: torch.Tensor) -> torch.Tensor:
    """Return logits of image after image, so that no image's bits depend on its batch."""
    one, two = weights()
    return torch.stack([two @ (one @ (x.flatten() - 0.5)).tanh() for x in images])


def pictures(count: int = 12) -> torch.Tensor:
    """Return images, some of whose pixels are at the bounds."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 10, 10, generator=generator).mul(0.3).add(0.5).clamp(0, 1)


class Counting:
    """Counts the forwards of every image, by where it lies: nobody else's count is used."""

    def __init__(self, images: torch.Tensor, model: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.images, self.model = images, model
        self.asked = [0] * len(images)
        self.first: list[int | None] = [None] * len(images)
        self.farthest = [0.0] * len(images)
        self.wrong = 0
        self.labels = model(images).argmax(1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        for x, answer in zip(images, logits, strict=True):
            near = (self.images - x).flatten(1).norm(dim=1)
            place = int(near.argmin())
            self.asked[place] += 1
            self.farthest[place] = max(self.farthest[place], float(near[place]))
            if self.first[place] is None and answer.argmax() != self.labels[place]:
                self.first[place] = self.asked[place]
            self.wrong += not (float(x.min()) >= 0 and float(x.max()) <= 1)
        return logits


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("name", NAMES)
def test_balls_counts_and_early_exit(name: str, norm: str, eps: float) -> None:
    x = pictures()
    count = Counting(x, model_fn)
    found = attack(count, x, count.labels, method=name, norm=norm, eps=eps, queries=QUERIES)
    assert found.queries.tolist() == count.asked
    assert max(count.asked) == QUERIES
    assert 0 < found.rate < 1  # both kinds are looked at
    assert count.wrong == 0
    for place, asked in enumerate(count.asked):
        success = bool(found.success[place])
        assert count.first[place] == (asked if success else None)
        assert success or asked == QUERIES
    deltas = (found.images - x).flatten(1)
    order = math.inf if norm == "linf" else 2
    assert deltas.norm(order, dim=1).max() <= eps + ROUNDING
    if norm == "l2":
        assert max(count.farthest) <= eps + ROUNDING
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    right = model_fn(found.images).double()
    own = right.gather(1, count.labels.unsqueeze(1)).squeeze(1)
    other = right.scatter(1, count.labels.unsqueeze(1), -torch.inf).amax(1)
    assert torch.equal(found.margins, own - other)
    assert torch.equal(found.success, found.margins < 0)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("name", NAMES)
def test_targets(name: str, norm: str, eps: float) -> None:
    x = pictures()
    targets = model_fn(x).topk(2, dim=1).indices[:, 1]
    found = attack(
        model_fn, x, targets, method=name, norm=norm, eps=eps, queries=QUERIES, targeted=True
    )
    assert found.success.any()
    assert torch.equal(model_fn(found.images).argmax(1) == targets, found.success)
    assert found.targeted


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_attacked_the_same_in_any_batch(name: str, norm: str, eps: float) -> None:
    x = pictures()
    y = model_fn(x).argmax(1)

    def found(rows: list[int], batch_size: int | None = None) -> Attack:
        return attack(
            model_fn, x[rows], y[rows], method=name, norm=norm, eps=eps, queries=60,
            indices=rows, batch_size=batch_size, seed=5,
        )  # fmt: skip

    torch.manual_seed(0)
    before = torch.get_rng_state()
    every, again = found(list(range(12))), found(list(range(12)), batch_size=5)
    assert torch.equal(torch.get_rng_state(), before)
    some = found([7, 2, 9])
    for place, row in enumerate([7, 2, 9]):
        assert torch.equal(some.images[place], every.images[row])
        assert int(some.queries[place]) == int(every.queries[row])
    assert torch.equal(again.images, every.images)
    assert torch.equal(again.queries, every.queries)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "signhunter"])
def test_a_seed_is_another_search(name: str) -> None:
    x = pictures()
    y = model_fn(x).argmax(1)
    one, two = (attack(model_fn, x, y, method=name, queries=20, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.images, two.images)


@pytest.mark.parametrize("queries", range(1, 6))
@pytest.mark.parametrize("name", NAMES)
def test_small_budgets(name: str, queries: int) -> None:
    x = pictures(3)
    count = Counting(x, model_fn)
    found = attack(count, x, count.labels, method=name, eps=1e-4, queries=queries)
    assert count.asked == found.queries.tolist() == [queries] * 3


def test_what_is_misclassified_succeeds_at_one_query() -> None:
    x = pictures(4)
    y = model_fn(x).argmax(1)
    y[1] = (y[1] + 1) % 4
    count = Counting(x, model_fn)
    found = attack(count, x, y, eps=1e-6, queries=7)
    assert found.queries.tolist() == count.asked == [7, 1, 7, 7]
    assert found.unchanged.tolist() == found.success.tolist() == [False, True, False, False]
    assert torch.equal(found.images[1], x[1])
    every = attack(model_fn, x, (y + 1) % 4, queries=7)
    assert every.curve().tolist()[:2] == [0, float(every.unchanged.double().mean())]


def test_the_curve_counts_successes_within_queries() -> None:
    found = Attack(
        images=pictures(4),
        success=torch.tensor([True, False, True, True]),
        queries=torch.tensor([1, 5, 4, 4]),
        margins=torch.zeros(4),
        unchanged=torch.tensor([True, False, False, False]),
        method="square", norm="linf", eps=0.1, budget=5, targeted=False,
    )  # fmt: skip
    assert found.curve().tolist() == [0, 0.25, 0.25, 0.25, 0.75, 0.75]
    assert found.rate == 0.75
    assert found.queries_to_success.tolist() == [1, 4, 4]
    assert str(found).startswith("square, linf 0.1: 3 of 4 images within 5 queries, half of")
    none = dataclasses.replace(found, success=torch.zeros(4, dtype=torch.bool))
    assert str(none) == "square, linf 0.1: 0 of 4 images within 5 queries"


def test_other_bounds_and_channels() -> None:
    x = torch.rand(3, 3, 9, 6, generator=torch.Generator().manual_seed(0)) * 255

    def dark(images: torch.Tensor) -> torch.Tensor:
        assert images.min() >= 0
        assert images.max() <= 255
        bright = images.mean(dim=(1, 2, 3)) / 255
        return torch.stack([bright, torch.full_like(bright, 0.45)], dim=1)

    for norm, eps in (("linf", 8.0), ("l2", 60.0)):
        for name in NAMES:
            found = attack(
                dark, x, torch.zeros(3, dtype=torch.int32), method=name, norm=norm, eps=eps,
                queries=90, bounds=(0, 255),
            )  # fmt: skip
            order = math.inf if norm == "linf" else 2
            size = (found.images - x).flatten(1).norm(order, dim=1)
            assert size.max() <= eps + 1e-4
            assert (found.margins < dark(x)[:, 0] - 0.45).all()


def test_a_model_that_works_in_place_changes_nothing() -> None:
    x = pictures(4)
    y = model_fn(x).argmax(1)

    def rude(images: torch.Tensor) -> torch.Tensor:
        logits = model_fn(images)
        images.zero_()
        return logits

    kept = x.clone()
    one, two = (attack(model, x, y, queries=30) for model in (rude, model_fn))
    assert torch.equal(one.images, two.images)
    assert torch.equal(x, kept)


def test_modules_and_half_precision() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 4)).double().eval()
    x = pictures(4)
    found = attack(lambda images: model(images.double()), x.half(), torch.zeros(4).long())
    assert found.images.dtype is torch.float16
    found = attack(model, x.double(), torch.zeros(4).long())
    assert not found.images.requires_grad


X, Y = pictures(3), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": X[0]}, "images of shape [1, 10, 10]"),
        ({"x": X[:0], "y": Y[:0]}, "images of shape [0, 1, 10, 10]"),
        ({"x": (X * 255).byte()}, "torch.uint8"),
        ({"x": X * 2}, "outside 0 to 1"),
        ({"x": X * math.nan}, "outside 0 to 1"),
        ({"y": Y[:2]}, "labels of shape [2]"),
        ({"y": Y.float()}, "torch.float32"),
        ({"y": Y - 1}, "do not fit"),
        ({"y": Y + 2}, "there is a label 4, and 4 classes"),
        ({"eps": 0.0}, "eps=0.0 is no radius"),
        ({"eps": math.inf}, "eps=inf is no radius"),
        ({"eps": math.nan}, "eps=nan is no radius"),
        ({"queries": 0}, "queries=0"),
        ({"norm": "l1"}, "no norm 'l1'"),
        ({"method": "fgsm"}, "no method 'fgsm'"),
        ({"bounds": (1.0, 0.0)}, "hold no values"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"indices": [1]}, "1 indices do not name 3 images"),
        ({"model_fn": nn.Flatten()}, "training mode"),
        ({"model_fn": lambda images: images.flatten(1)[:2]}, "returns [2, 100] for 3 images"),
        ({"model_fn": lambda images: images.sum((1, 2, 3))}, "returns [3] for 3 images"),
        ({"model_fn": lambda images: images.flatten(1)[:, :1]}, "[3, 1] for 3 images"),
        ({"model_fn": lambda images: model_fn(images) * math.nan}, "not finite"),
        ({"model_fn": lambda images: model_fn(images).tolist()}, "returns list"),
    ],
)
def test_what_cannot_be_attacked_is_said_in_a_sentence(
    changed: dict[str, object], said: str
) -> None:
    given = {"model_fn": model_fn, "x": X, "y": Y, "queries": 3, **changed}
    with pytest.raises(InputError) as error:
        attack(given.pop("model_fn"), given.pop("x"), given.pop("y"), **given)
    assert said in error.value.message
    assert error.value.message.count("\n") == 0
    assert error.value.hint


@pytest.mark.parametrize(
    "make",
    [
        lambda: Square(p_init=0),
        lambda: Square(p_init=1.5),
        lambda: NES(pairs=0),
        lambda: NES(plateau=0),
        lambda: NES(momentum=1),
        lambda: NES(sigma=0),
        lambda: SPSA(lr=-1),
        lambda: SPSA(betas=(0.9, 1)),
        lambda: SPSA(cells=0),
        lambda: SignHunter(order="spiral"),
        lambda: ZOO(round=0),
        lambda: ZOO(h=math.nan),
        lambda: Jaguar(coords=0),
        lambda: Jaguar(beta=-0.1),
    ],
)
def test_settings_outside_their_range(make: Callable[[], Method]) -> None:
    with pytest.raises(InputError):
        make()
