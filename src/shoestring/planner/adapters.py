"""Low-rank adapters as peft lays them out, over plain and 4-bit weights, for tracing alone.

They allocate what peft's layers and bitsandbytes' allocate, in the same order, and compute
nothing of use: a twin without data gets them, so that its trace is that of the adapted model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol, cast

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.core.errors import RefusedError
from shoestring.measure.tracing.blocks import repeated_blocks

_LOW: Final = (torch.bfloat16, torch.float16)
_BLOCK: Final = 64
_NESTED: Final = 256


def add_adapters(model: nn.Module, rank: int, *, nf4: bool = False) -> None:
    """Freeze a model and adapt the linear layers of its repeated blocks.

    Args:
        model: a twin that is only traced; changed in place.
        rank: r.
        nf4: keep the adapted weights in 4-bit NormalFloat with double quantisation.

    Raises:
        RefusedError: its blocks hold no linear layer.
    """
    model.requires_grad_(False)
    found = [
        (parent, name, child)
        for _, block in repeated_blocks(model)
        for parent in block.modules()
        if not isinstance(parent, nn.MultiheadAttention)  # which reads its weights itself
        for name, child in parent.named_children()
        if _sizes(child) is not None
    ]
    if not found:
        raise RefusedError("no block holds a linear layer.", hint="LoRA is of no use here.")
    # transformers does not quantise what a model asks to keep in full precision.
    kept: Iterable[str] = getattr(model, "_keep_in_fp32_modules", None) or ()
    for parent, name, child in found:
        small = nf4 and name not in kept
        base = _Nf4Linear(child) if small else child
        setattr(parent, name, _Adapted(base, child, rank, clone=small))


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """Return (in, out) of a linear layer, or of a Conv1D of transformers, which is one too."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        return None
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        return weight.shape[0], weight.shape[1]
    return None


class _Adapted(nn.Module):
    """y = W x + B A x."""

    def __init__(self, base: nn.Module, plain: nn.Module, rank: int, *, clone: bool) -> None:
        super().__init__()
        sizes = _sizes(plain)
        weight = plain.weight
        assert sizes is not None
        assert isinstance(weight, torch.Tensor)
        dtype = torch.float32 if weight.dtype in _LOW else weight.dtype  # as peft makes them
        self.base_layer = base
        self.down = nn.Linear(sizes[0], rank, bias=False, dtype=dtype, device="cpu")
        self.up = nn.Linear(rank, sizes[1], bias=False, dtype=dtype, device="cpu")
        self._clone = clone

    @property
    def weight(self) -> object:
        """The base's: some models look at its dtype."""
        return self.base_layer.weight

    @property
    def bias(self) -> object:
        """The base's."""
        return self.base_layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the base's output and the adapters', added."""
        result = self.base_layer(x)
        dtype = result.dtype
        if self._clone:
            result = result.clone()
            x = x.to(self.down.weight.dtype)
            output = self.up(self.down(x)) * 2.0
            output = output.to(dtype)
            return cast(torch.Tensor, result + output)
        x = x.to(self.down.weight.dtype)
        result = result + self.up(self.down(x)) * 2.0
        return cast(torch.Tensor, result.to(dtype))


class _Nf4Linear(nn.Module):
    """A linear layer whose weight is kept in 4 bits and dequantised for each product."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        sizes, weight = _sizes(plain), plain.weight
        assert sizes is not None
        assert isinstance(weight, torch.Tensor)
        self._shape = (sizes[1], sizes[0])
        count = weight.numel()
        blocks = -(-count // _BLOCK)
        packed = torch.empty((count + 1) // 2, 1, dtype=torch.uint8, device="cpu")
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = cast("nn.Parameter | None", plain.bias)
        self.register_buffer("scales", torch.empty(blocks, dtype=torch.uint8, device="cpu"))
        self.register_buffer("outer", torch.empty(-(-blocks // _NESTED), device="cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return W x + b."""
        run: Callable[..., torch.Tensor] = _Product.apply
        return run(x, self.scales, self.bias, self._shape)


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    saved: tuple[torch.Tensor, tuple[int, int]]


class _Product(torch.autograd.Function):
    """Keeps the packed weight, and neither its input nor the dequantised weight."""

    @staticmethod
    def forward(
        ctx: _Context,
        x: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        shape: tuple[int, int],
    ) -> torch.Tensor:
        ctx.saved = scales, shape
        return F.linear(x, _dequantised(scales, shape, x.dtype), bias)

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight = _dequantised(*ctx.saved, grads[0].dtype)
        return torch.matmul(grads[0], weight), None, None, None


def _dequantised(scales: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    wide = scales.float()
    wide = wide + 0.0  # the mean that double quantisation took off
    return torch.empty(shape, dtype=dtype, device="cpu").copy_(wide[0])
