"""Four tasks, chosen before any rate was measured on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import torch
from sklearn import datasets
from torch import nn
from torch.nn import functional as F

from bench.zeroth.finetune.task import Task as Tweets

Losses = Callable[[torch.Tensor], torch.Tensor]


class Begun(NamedTuple):
    """A task at its start.

    Attributes:
        params: what is trained.
        losses: of the training rows of some indices, one for each.
        rows: how many rows there are to train with.
        accuracy: on rows of the test part.
    """

    params: list[nn.Parameter]
    losses: Losses
    rows: int
    accuracy: Callable[[], float]

    def batches(self, rows: int, seed: int) -> Iterator[torch.Tensor]:
        """Yield indices of training rows, without end, each epoch in an order of its own.

        Args:
            rows: of a batch.
            seed: of the orders.
        """
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(self.rows, generator=generator)
            yield from order[: self.rows - self.rows % rows].split(rows)


class Task(NamedTuple):
    """Something to train.

    Attributes:
        begin: makes it, for a seed.
        rows: of a batch.
        steps: of a run.
        first: the grid's first rate, as a power of ten; the others are half decades above.
    """

    begin: Callable[[int], Begun]
    rows: int
    steps: int
    first: float


class _Cut(NamedTuple):
    """Numbers and labels, in two parts."""

    x: torch.Tensor
    y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


def _cut(x: torch.Tensor, y: torch.Tensor) -> _Cut:
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(7))
    train, test = order[: len(y) * 2 // 3], order[len(y) * 2 // 3 :]
    return _Cut(x[train], y[train], x[test], y[test])


def _begun(model: nn.Module, data: _Cut) -> Begun:
    @torch.no_grad()
    def accuracy() -> float:
        return float((model(data.test_x).argmax(1) == data.test_y).float().mean())

    def losses(index: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(data.x[index]), data.y[index], reduction="none")

    return Begun(list(model.parameters()), losses, len(data.y), accuracy)


def _digits() -> _Cut:
    found = datasets.load_digits()
    return _cut(torch.tensor(found.data).float() / 16, torch.tensor(found.target).long())


def digits(seed: int) -> Begun:
    """Return a network of 64-64-10 with random weights, to learn digits of 8 x 8.

    Args:
        seed: of the weights.
    """
    torch.manual_seed(seed)
    return _begun(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)), _digits())


def cancer(seed: int) -> Begun:
    """Return a network of 30-32-2 with random weights, to tell benign from malign.

    Args:
        seed: of the weights.
    """
    torch.manual_seed(seed)
    found = datasets.load_breast_cancer()
    x = torch.tensor(found.data).float()
    data = _cut((x - x.mean(0)) / x.std(0), torch.tensor(found.target).long())
    return _begun(nn.Sequential(nn.Linear(30, 32), nn.GELU(), nn.Linear(32, 2)), data)


def inverted(seed: int) -> Begun:
    """Return a convolutional network that knows digits, to learn them white for black and moved.

    Args:
        seed: of the weights.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 16, 10)),
    )
    data = _digits()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()

    def other(x: torch.Tensor) -> torch.Tensor:
        return 1 - x.unflatten(1, (8, 8)).roll(1, 2).flatten(1)

    return _begun(model, data._replace(x=other(data.x), test_x=other(data.test_x)))


def tweets(seed: int) -> Begun:
    """Return MiniLM with LoRA of rank 8 and a head of zeros, to learn the sentiment of tweets.

    Args:
        seed: of LoRA's first weights.
    """
    task = Tweets("lora", seed)
    nn.init.zeros_(task.model.head.weight)
    nn.init.zeros_(task.model.head.bias)
    train = task.parts.train

    def losses(index: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(task.logits(train, index), train.labels[index], reduction="none")

    return Begun(
        task.parameters(), losses, len(train.labels), lambda: task.score(task.parts.validation)[1]
    )


TASKS: Final = {
    "digits": Task(digits, 64, 2000, -5.0),
    "cancer": Task(cancer, 32, 1000, -5.0),
    "inverted": Task(inverted, 64, 1000, -6.0),
    "tweets": Task(tweets, 8, 300, -5.0),
}
GRID: Final = 9
