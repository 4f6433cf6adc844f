"""The models that rematerialisation is measured on. Each returns its loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.case import generator, integers, normals, seeded
from tests.zoo.images import FourierOperator, UNet

CLASSES: Final = 1000


class Block(nn.Module):
    """A block of a GPT, with dropout on what is added to the residual stream.

    Attention has no dropout of its own: on a CPU torch would leave its fused form for it, and
    the plain step would keep whole tables of scores, which flatters whatever computes them again.

    Args:
        width: features.
        heads: of the attention.
        dropout: share of features that is dropped.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [N, T, width]."""
        rows, time, width = x.shape
        split = self.query_key_value(self.before(x)).view(rows, time, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.drop(self.project(mixed.transpose(1, 2).reshape(rows, time, width)))
        out: torch.Tensor = x + self.drop(self.down(F.gelu(self.up(self.after(x)))))
        return out


class GPT(nn.Module):
    """A GPT whose head shares the weights of its embedding.

    Args:
        layers: blocks.
        width: features.
        heads: of a block's attention.
        vocabulary: words.
        length: most places of a row.
        dropout: share of features that is dropped.
    """

    def __init__(
        self, layers: int, width: int, heads: int, vocabulary: int, length: int, dropout: float
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the loss of each next word of rows [N, T]."""
        x = self.drop(self.words(tokens) + self.places.weight[: tokens.shape[1]])
        for block in self.blocks:
            x = block(x)
        scores = F.linear(self.norm(x), self.words.weight)
        return F.cross_entropy(scores[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


class Bottleneck(nn.Module):
    """Three convolutions with batch normalisation beside a shortcut, as torchvision has them.

    Args:
        inputs: channels.
        width: channels of the 3x3 convolution; four times as many come out.
        stride: of it.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.inside = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, 4 width, H / stride, W / stride]."""
        out: torch.Tensor = self.relu(self.inside(x) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A ResNet of bottlenecks; of its usual size it has the 25.6 M parameters of ResNet-50.

    Args:
        width: channels of the first stage's 3x3 convolutions; 64 is usual.
        depths: bottlenecks of each stage.
    """

    def __init__(self, width: int = 64, depths: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks, channels = [], width
        for level, depth in enumerate(depths):
            for place in range(depth):
                stride = 2 if level and not place else 1
                blocks.append(Bottleneck(channels, width << level, stride))
                channels = 4 * (width << level)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Return the loss of images [N, 3, H, W]."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(x.mean((2, 3))), classes)


class Segmenter(nn.Module):
    """The zoo's U-Net with its loss.

    Args:
        widths: channels of each scale.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 96, 192, 384)) -> None:
        super().__init__()
        self.network = UNet(widths)

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss of images [N, 3, H, W]."""
        loss: torch.Tensor = self.network(images, mask).loss
        return loss


class Operator(nn.Module):
    """The zoo's Fourier neural operator with the loss of its field smoothed.

    Args:
        width: channels.
        modes: frequencies that are kept.
        layers: of the operator.
    """

    def __init__(self, width: int = 32, modes: int = 10, layers: int = 4) -> None:
        super().__init__()
        self.network = FourierOperator(width, modes, layers)

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        """Return the loss of fields [N, 1, H, W]."""
        later = F.avg_pool2d(field, 5, stride=1, padding=2)
        return F.mse_loss(self.network(field), later)


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A model and its batches.

    Attributes:
        name: short, for files.
        title: for people.
        build: makes the model in training mode; the same weights every time.
        batch: makes the batch of a number of rows, by position.
        rows: batch sizes that memory is measured at; at the smallest the activations take about
            as much as what stands: parameters, their gradients and Adam's state.
    """

    name: str
    title: str
    build: Callable[[], nn.Module]
    batch: Callable[[int], tuple[torch.Tensor, ...]]
    rows: tuple[int, int, int]


def gpt(
    layers: int,
    *,
    width: int,
    heads: int,
    vocabulary: int,
    length: int,
    dropout: float = 0.0,
) -> Callable[[], nn.Module]:
    """Return a builder of a GPT that makes the same weights every time.

    Args:
        layers: blocks.
        width: features.
        heads: of a block's attention.
        vocabulary: words.
        length: most places of a row.
        dropout: share of features that is dropped.
    """
    return seeded(lambda: GPT(layers, width, heads, vocabulary, length, dropout))


def tokens(rows: int, length: int, vocabulary: int) -> tuple[torch.Tensor, ...]:
    """Return a batch for `GPT`.

    Args:
        rows: of the batch.
        length: of a row.
        vocabulary: words.
    """
    return (integers(rows, length, below=vocabulary),)


def pictures(rows: int, size: int) -> tuple[torch.Tensor, ...]:
    """Return a batch for `ResNet`.

    Args:
        rows: of the batch.
        size: of a side of an image.
    """
    return normals(rows, 3, size, size), integers(rows, below=CLASSES)


def _masked(rows: int) -> tuple[torch.Tensor, ...]:
    masks = torch.randint(4, (rows, 128, 128), generator=generator())
    return normals(rows, 3, 128, 128), masks


SUBJECTS: Final[dict[str, Subject]] = {
    subject.name: subject
    for subject in (
        Subject(
            "gpt12",
            "GPT, 12 layers, d 512, T 512, vocabulary 8192, dropout 0.1",
            gpt(12, width=512, heads=8, vocabulary=8192, length=512, dropout=0.1),
            lambda rows: tokens(rows, 512, 8192),
            (3, 4, 6),
        ),
        Subject(
            "resnet50",
            "ResNet-50 at 224",
            seeded(ResNet),
            lambda rows: pictures(rows, 224),
            (4, 8, 12),
        ),
        Subject("unet", "U-Net at 128", seeded(Segmenter), _masked, (1, 4, 8)),
        Subject(
            "fno",
            "Fourier neural operator at 64",
            seeded(Operator),
            lambda rows: (normals(rows, 1, 64, 64),),
            (3, 6, 12),
        ),
    )
}
"""The models by name. One step takes less than about ten seconds of one core."""
