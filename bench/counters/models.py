"""Small models to be counted; each takes one tensor, which every counter can do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class Call(nn.Module):
    """A function as a model.

    Args:
        function: of one tensor.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function's value."""
        return self.function(x)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where sizes change.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        changes = stride != 1 or inputs != outputs
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if changes else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, outputs, H / stride, W / stride]."""
        inside = self.relu(self.first_norm(self.first(x)))
        return self.relu(self.second_norm(self.second(inside)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, two residual blocks of which the second halves the image, and a classifier.

    Args:
        channels: after the stem; the second block doubles them.
        classes: of the classifier.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(
            Residual(channels, channels, 1), Residual(channels, 2 * channels, 2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the classes of images [N, 3, H, W]."""
        x = self.relu(self.norm(self.stem(x)))
        return self.head(self.pool(self.blocks(x)).flatten(1))


class Block(nn.Module):
    """A block of a GPT.

    Args:
        width: features.
        heads: of the attention.
        fused: whether attention is one call, or two products and a softmax.
    """

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.before = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.after = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [N, T, width]."""
        rows, time, width = x.shape
        split = self.query_key_value(self.before(x)).view(rows, time, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            mixed = F.softmax(scores, dim=-1) @ value
        x = x + self.project(mixed.transpose(1, 2).reshape(rows, time, width))
        return x + self.down(self.activation(self.up(self.after(x))))


class GPT(nn.Module):
    """A GPT without positions, whose attention sees everything.

    Args:
        layers: blocks.
        width: features.
        heads: of a block's attention.
        vocabulary: tokens.
        fused: as of `Block`.
    """

    def __init__(
        self, layers: int, width: int, heads: int, vocabulary: int, *, fused: bool
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Block(width, heads, fused=fused) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits of tokens [N, T]."""
        return self.head(self.norm(self.blocks(self.embedding(tokens))))


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of a sequence with itself.

    Args:
        width: features.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [N, T, width]."""
        return self.attention(x, x, x)[0]


class Outputs(nn.Module):
    """A recurrent model without its state.

    Args:
        inside: returns outputs and state.
    """

    def __init__(self, inside: nn.RNNBase) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of [N, T, features]."""
        return self.inside(x)[0]


class Einsum(nn.Module):
    """A product written with ``torch.einsum``.

    Args:
        inputs: features.
        outputs: features.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, T, outputs]."""
        return torch.einsum("btd,de->bte", x, self.weight)


class Thrice(nn.Module):
    """One linear layer called three times.

    Args:
        width: features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, width]."""
        return self.shared(self.shared(self.shared(x)))


class Functional(nn.Module):
    """A function of a weight, and a product with a parameter: no module inside.

    Args:
        width: features in and out.
        inner: features between.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, width))
        self.back = nn.Parameter(torch.randn(inner, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, T, width]."""
        return F.linear(x, self.weight) @ self.back


class Bilinear(nn.Module):
    """`nn.Bilinear` of the two parts of a row.

    Args:
        first: features of the one part.
        second: of the other.
        outputs: features.
    """

    def __init__(self, first: int, second: int, outputs: int) -> None:
        super().__init__()
        self.sizes = [first, second]
        self.bilinear = nn.Bilinear(first, second, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [N, outputs]."""
        left, right = x.split(self.sizes, dim=-1)
        return self.bilinear(left, right)
