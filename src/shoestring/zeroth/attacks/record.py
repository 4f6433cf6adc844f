"""What an attack found."""

from __future__ import annotations

import dataclasses

import torch


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Attack:
    """The result of an attack, a row for each image.

    Attributes:
        images: the best that was found: misclassified where it succeeded, else that of the lowest
            margin.
        success: whether the image is misclassified, or as the target where there is one.
        queries: how often the model was asked for the image, which is also how often until the
            success.
        margins: of `images`, in float64; below 0 is a success.
        unchanged: whether the image as given is a success already, at its first query.
        method: name of the method.
        norm: of the ball.
        eps: its radius.
        budget: queries that an image might take.
        targeted: whether the labels were targets.
    """

    images: torch.Tensor
    success: torch.Tensor
    queries: torch.Tensor
    margins: torch.Tensor
    unchanged: torch.Tensor
    method: str
    norm: str
    eps: float
    budget: int
    targeted: bool

    @property
    def rate(self) -> float:
        """Share of the images that succeeded."""
        return float(self.success.double().mean())

    @property
    def queries_to_success(self) -> torch.Tensor:
        """Queries of the images that succeeded, in their order."""
        return self.queries[self.success]

    def curve(self) -> torch.Tensor:
        """Return the share of images that succeeded within 0, 1, 2, ... queries of the budget."""
        counts = torch.bincount(self.queries_to_success, minlength=self.budget + 1)
        return counts.cumsum(0).double() / len(self.queries)

    def __str__(self) -> str:
        found = int(self.success.sum())
        text = f"{self.method}, {self.norm} {self.eps:.4g}: {found} of {len(self.success)} images"
        if not found:
            return f"{text} within {self.budget} queries"
        half = int(self.queries_to_success.median())
        return f"{text} within {self.budget} queries, half of them within {half}"
