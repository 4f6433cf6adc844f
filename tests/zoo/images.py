"""Models of images and fields written for the zoo."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.case import Batch, Case, integers, normals, seeded

CLASSES = 10


@dataclasses.dataclass
class Prediction:
    """An output that carries its loss, as many libraries return it."""

    loss: torch.Tensor
    logits: torch.Tensor


def _conv_block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [
            nn.Conv2d(width, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Segmentation: convolutions down and up, joined at every scale."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 192)) -> None:
        super().__init__()
        pairs = list(zip((3, *widths[:-1]), widths, strict=True))
        self.down = nn.ModuleList(_conv_block(a, b) for a, b in pairs)
        rising = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in rising)
        self.up = nn.ModuleList(_conv_block(2 * b, b) for _, b in rising)
        self.head = nn.Conv2d(widths[0], 4, 1)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Prediction:
        x, skips = image, []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for widen, block in zip(self.widen, self.up, strict=True):
            x = block(torch.cat([skips.pop(), widen(x)], dim=1))
        logits = self.head(x)
        return Prediction(F.cross_entropy(logits, mask), logits)


def _unet_batch(rows: int) -> dict[str, torch.Tensor]:
    return {"image": normals(rows, 3, 64, 64), "mask": integers(rows, 64, 64, below=4)}


class TimedResidual(nn.Module):
    """A residual block of a diffusion model, shifted and scaled by the time."""

    def __init__(self, inputs: int, outputs: int, time: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs))
        self.norm = nn.GroupNorm(8, outputs)
        self.second = nn.Sequential(
            nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale = self.time(time)[:, :, None, None].chunk(2, dim=1)
        y = self.norm(self.first(x)) * (1 + scale) + shift
        return self.skip(x) + self.second(y)


class SpatialAttention(nn.Module):
    """Attention of every place of an image to every other."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.project = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, width, high, wide = x.shape
        parts = self.project(self.norm(x)).view(rows, 3, self.heads, width // self.heads, -1)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(y.transpose(-1, -2).reshape(rows, width, high, wide))


class DiffusionUNet(nn.Module):
    """Predicts the noise in an image from the image and the time."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width, time = width, 4 * width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.fine = TimedResidual(width, width, time)
        self.narrow = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(TimedResidual(2 * width, 2 * width, time) for _ in range(2))
        self.attention = nn.ModuleList(SpatialAttention(2 * width) for _ in range(2))
        self.widen = nn.Conv2d(2 * width, width, 3, padding=1)
        self.join = TimedResidual(2 * width, width, time)
        self.head = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)
        )

    def embed(self, time: torch.Tensor) -> torch.Tensor:
        half = self.width // 2
        scale = torch.exp(torch.arange(half, device=time.device) * (-math.log(1e4) / half))
        angle = time[:, None] * scale
        return self.time(torch.cat([angle.sin(), angle.cos()], dim=1))

    def forward(self, image: torch.Tensor, time: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        signal = torch.cos(time * (math.pi / 2))[:, None, None, None]
        embedded = self.embed(1000 * time)
        x = self.stem(signal * image + (1 - signal**2).sqrt() * noise)
        skip = x = self.fine(x, embedded)
        x = self.narrow(x)
        for block, attention in zip(self.coarse, self.attention, strict=True):
            x = attention(block(x, embedded))
        x = self.widen(F.interpolate(x, scale_factor=2.0))
        return self.head(self.join(torch.cat([x, skip], dim=1), embedded))


def _diffusion_batch(rows: int) -> tuple[torch.Tensor, ...]:
    time = torch.linspace(0.01, 0.99, rows)
    return normals(rows, 3, 32, 32), time, normals(rows, 3, 32, 32, seed=1)


def _noise_error(output: object, batch: Batch) -> torch.Tensor:
    return F.mse_loss(output, batch[2])  # type: ignore[arg-type, call-overload]


class DenseLayer(nn.Module):
    """Adds a few channels, computed from all channels before."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(4 * growth)
        self.squeeze = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.grow = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, earlier: list[torch.Tensor]) -> torch.Tensor:
        x = self.squeeze(F.relu(self.norm1(torch.cat(earlier, dim=1))))
        return self.grow(F.relu(self.norm2(x)))


class DenselyConnected(nn.Module):
    """Every layer of a block reads all layers before it."""

    def __init__(self, growth: int = 24, layers: tuple[int, ...] = (6, 8, 10)) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.blocks, self.shrink = nn.ModuleList(), nn.ModuleList()
        for count in layers:
            self.blocks.append(
                nn.ModuleList(DenseLayer(width + i * growth, growth) for i in range(count))
            )
            width += count * growth
            half = nn.Conv2d(width, width // 2, 1, bias=False)
            self.shrink.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), half))
            width //= 2
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.stem(image)
        for block, shrink in zip(self.blocks, self.shrink, strict=True):
            parts = [x]
            for layer in block:
                parts.append(layer(parts))
            x = F.avg_pool2d(shrink(torch.cat(parts, dim=1)), 2)
        logits = self.head(x.mean(dim=(2, 3)))
        return {"loss": F.cross_entropy(logits, label), "logits": logits}


def _labelled_images(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return normals(rows, 3, 32, 32), integers(rows, below=CLASSES)


class MixerBlock(nn.Module):
    """Mixes places, then channels."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.places = self._mlp(places, 2 * places)
        self.channels = self._mlp(width, 4 * width)

    @staticmethod
    def _mlp(width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """An image as patches, mixed by perceptrons alone; learns to tell the patches' means."""

    def __init__(self, width: int = 192, blocks: int = 4, patch: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        places = (64 // patch) ** 2
        self.blocks = nn.Sequential(*(MixerBlock(places, width) for _ in range(blocks)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.patches(image).flatten(2).transpose(1, 2)))


def _mixer_batch(rows: int) -> torch.Tensor:
    return normals(rows, 3, 64, 64)


def _patch_means(output: object, batch: Batch) -> torch.Tensor:
    means = F.avg_pool2d(batch, 8).flatten(2).transpose(1, 2)  # type: ignore[arg-type]
    return F.mse_loss(output, means)  # type: ignore[arg-type]


class SpectralConv(nn.Module):
    """Multiplies the lowest frequencies of a field by complex weights."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        # Real and imaginary parts, since not every optimizer takes complex parameters.
        self.weight = nn.Parameter(torch.randn(2, width, width, modes, modes, 2) / width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        modes, spectrum = self.modes, torch.fft.rfft2(x)
        weight, out = torch.view_as_complex(self.weight), torch.zeros_like(spectrum)
        for sign, rows in enumerate((slice(0, modes), slice(-modes, None))):
            low = spectrum[:, :, rows, :modes]
            out[:, :, rows, :modes] = torch.einsum("bixy,ioxy->boxy", low, weight[sign])
        return torch.fft.irfft2(out, s=x.shape[-2:])


class FourierOperator(nn.Module):
    """Maps a field on a grid to a later one through its spectrum."""

    def __init__(self, width: int = 32, modes: int = 10, layers: int = 4) -> None:
        super().__init__()
        self.lift, self.drop = nn.Conv2d(1, width, 1), nn.Conv2d(width, 1, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, modes) for _ in range(layers))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(layers))

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        x = self.lift(field)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = F.gelu(spectral(x) + local(x))
        return self.drop(x)


def _field_batch(rows: int) -> torch.Tensor:
    return normals(rows, 1, 64, 64)


def _smoothed(output: object, batch: Batch) -> torch.Tensor:
    later = F.avg_pool2d(batch, 5, stride=1, padding=2)  # type: ignore[arg-type]
    return F.mse_loss(output, later)  # type: ignore[arg-type]


IMAGES = (
    Case("unet", seeded(UNet), _unet_batch, None, (2, 12)),
    Case("diffusion", seeded(DiffusionUNet), _diffusion_batch, _noise_error, (2, 12)),
    Case("densenet", seeded(DenselyConnected), _labelled_images, None, (4, 16)),
    Case("mixer", seeded(Mixer), _mixer_batch, _patch_means, (4, 32)),
    Case("fno", seeded(FourierOperator), _field_batch, _smoothed, (2, 16)),
)
"""Models of images and fields of our own."""
