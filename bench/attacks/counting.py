"""A network that counts what each image is asked for. Plain torch: peers import it, too.

A query belongs to the image that it lies nearest to; `pick` chooses images that are far enough from
each other for that to be the right one.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

APART: Final = 3.0
"""Euclidean distance between any two chosen images, at least."""
ROUNDING: Final = 1e-6
"""How far outside of ball and bounds a pixel or a length may be by rounding."""


def pick(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first places of images that the model knows, no two of them near each other.

    Args:
        model: classifies them.
        images: to choose from.
        labels: of these.
        count: how many are wanted.
    """
    with torch.no_grad():
        known = torch.cat([model(part).argmax(1) for part in images.split(1000)]) == labels
    chosen: list[int] = []
    flat = images.flatten(1)
    for place in known.nonzero().squeeze(1).tolist():
        if chosen and float((flat[chosen] - flat[place]).norm(dim=1).min()) < APART:
            continue
        chosen.append(place)
        if len(chosen) == count:
            break
    return torch.tensor(chosen)


def other_classes(labels: torch.Tensor) -> torch.Tensor:
    """Return targets: another class for each image, all nine of them in turns.

    Args:
        labels: of ten classes.
    """
    return (labels + 1 + torch.arange(len(labels)) % 9) % 10


class Counted(nn.Module):
    """Counts every forward of every image, and notes the first that is a success.

    A success is an image inside of ball and bounds that is misclassified, or classified as the
    target.

    Args:
        model: is asked.
        images: that are attacked.
        labels: of these, or targets.
        norm: of the ball.
        eps: its radius.
        targeted: whether the labels are targets.
        repeats: whether an image that was asked for one or two queries ago counts again.

    Attributes:
        asked: queries of each image.
        success: at which of them it succeeded; 0 for never.
        lost: queries that are no images, of pixels that are not numbers; whose they are is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        norm: str,
        eps: float,
        targeted: bool,
        repeats: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.images, self.labels = model, images, labels
        self.norm, self.eps, self.targeted, self.repeats = norm, eps, targeted, repeats
        self.asked = torch.zeros(len(images), dtype=torch.int64)
        self.success = torch.zeros(len(images), dtype=torch.int64)
        self.lost = 0
        self._flat = images.flatten(1)
        self._owners = torch.arange(len(images))
        self._last = torch.full((2, *self._flat.shape), torch.nan)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the model's logits."""
        logits: torch.Tensor = self.model(images)
        with torch.no_grad():
            flat = images.detach().flatten(1)
            whole = flat.isfinite().all(dim=1)
            self.lost += int((~whole).sum())
            flat = flat[whole]
            owners = self._find(flat)
            good = self._good(flat, logits[whole], owners)
            # An image may be there more than once: in the order of the batch.
            for part in _once(owners):
                self._count(flat[part], owners[part], good[part])
        return logits

    def _count(self, flat: torch.Tensor, owners: torch.Tensor, good: torch.Tensor) -> None:
        new = torch.ones(len(owners), dtype=torch.bool)
        if not self.repeats:
            new = ~(self._last[:, owners] == flat).all(dim=2).any(dim=0)
            self._last[1, owners[new]] = self._last[0, owners[new]]
            self._last[0, owners[new]] = flat[new]
        self.asked[owners[new]] += 1
        first = owners[good & (self.success[owners] == 0)]
        self.success[first] = self.asked[first]

    def _find(self, flat: torch.Tensor) -> torch.Tensor:
        """Return whose each query is."""
        repeated = self._owners.repeat(len(flat) // max(len(self._owners), 1))
        if len(repeated) == len(flat) and self._near(flat, repeated):
            return repeated
        owners = torch.cdist(flat, self._flat).argmin(dim=1)
        if not self._near(flat, owners):
            raise RuntimeError("a query is too far from all images to be told whose it is")
        if len(owners.unique()) == len(owners):
            self._owners = owners
        return owners

    def _near(self, flat: torch.Tensor, owners: torch.Tensor) -> bool:
        return bool(((flat - self._flat[owners]).norm(dim=1) < APART / 2).all())

    def _good(self, flat: torch.Tensor, logits: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        order = torch.inf if self.norm == "linf" else 2
        size: torch.Tensor = torch.linalg.vector_norm(flat - self._flat[owners], order, dim=1)
        inside = (flat >= -ROUNDING).all(1) & (flat <= 1 + ROUNDING).all(1)
        same = logits.argmax(1) == self.labels[owners]
        good: torch.Tensor = same if self.targeted else ~same
        return good & inside & (size <= self.eps + ROUNDING)


def _once(owners: torch.Tensor) -> list[torch.Tensor]:
    """Return places of a batch in groups, each of which has an image at most once."""
    if len(owners.unique()) == len(owners):
        return [torch.arange(len(owners))]
    seen: dict[int, int] = {}
    groups: list[list[int]] = []
    for place, owner in enumerate(owners.tolist()):
        turn = seen.get(owner, 0)
        seen[owner] = turn + 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(place)
    return [torch.tensor(group) for group in groups]
