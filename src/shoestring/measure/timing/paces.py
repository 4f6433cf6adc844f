"""How fast each kind of kernel goes on this computer.

Each kind is measured by operators that stand for it, at a size as in a training step and at
almost none. No random number is drawn from torch's generator.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple, TypeAlias

import torch
from torch.nn import functional as F

from shoestring.core.kernels import Kernel
from shoestring.core.machine import Pace

Call: TypeAlias = Callable[..., object]
Sizes: TypeAlias = tuple[tuple[int, ...], ...]

ATEN: Final = torch.ops.aten

_SETS: Final = 24
"""Operands of a call are made so often, and all its results kept: together more than a core's
part of the caches holds, as the tensors of a step are."""
_BEYOND: Final = 64
"""The same for smaller operands that were used long before."""
_ROUNDS: Final = 3
_TINY_CALLS: Final = 20
_KEPT_BYTES: Final = 31 * 2**20


def now(device: str = "cpu") -> float:
    """Return seconds so far, to the end of what a card was given.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        Processor time where one thread does the work, so that waiting for others who run too
        does not count; else the time by the clock.
    """
    if device == "cuda":
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.thread_time()
    return time.perf_counter()


class Sample(NamedTuple):
    """A call that stands for a kind of kernel.

    Attributes:
        run: the call.
        sizes: of its tensors.
        moved: bytes that it reads and writes.
        tiny: sizes of its tensors where it has nothing to do.
        flops: of a contraction.
        sets: how often its tensors are made.
        calls: of operators in it.
    """

    run: Call
    sizes: Sizes
    moved: int
    tiny: Sizes
    flops: int = 0
    sets: int = _SETS
    calls: int = 1


class Timed(NamedTuple):
    """Seconds of a sample in one round.

    Attributes:
        full: of the call.
        tiny: of the call where it has nothing to do.
        product: of a large product at the same moment; 0 for what does not contract.
    """

    full: float
    tiny: float
    product: float


def measure_paces(bandwidth: float) -> dict[Kernel, Pace]:
    """Measure every kind of kernel on the CPU, with torch's present number of threads.

    Args:
        bandwidth: bytes a second of kinds that hardly wait for memory.

    Returns:
        Kind -> pace.
    """
    samples = {kernel: make() for kernel, make in _SAMPLES.items()}
    every = [sample for found in samples.values() for sample in found]
    _settle_allocator()
    with torch.no_grad():
        # Rounds over all kinds: a moment in which others disturb spoils none of them for good.
        rounds = [[_timed(sample) for sample in every] for _ in range(_ROUNDS)]
    by_sample = iter(zip(*rounds, strict=True))
    times = {kernel: [next(by_sample) for _ in found] for kernel, found in samples.items()}
    plain = min(median(t.tiny for t in found) for found in times[Kernel.POINTWISE])
    return {k: _pace(found, times[k], plain, bandwidth) for k, found in samples.items()}


def _timed(sample: Sample) -> Timed:
    product = _seconds(_PRODUCT) if sample.flops else 0.0
    return Timed(_seconds(sample), _tiny_seconds(sample), product)


def _pace(
    samples: Sequence[Sample], times: Sequence[Sequence[Timed]], plain: float, bandwidth: float
) -> Pace:
    starts, products, moving = [], 0.0, 0.0
    for sample, found in zip(samples, times, strict=True):
        tiny = median(t.tiny for t in found)
        starts.append(tiny / sample.calls)
        if sample.flops:
            # Others slow a contraction and a product alike: what counts is their ratio.
            products += median(_net(t.full, tiny) / t.product for t in found)
        else:
            moving += _net(median(t.full for t in found), tiny)
    flops, moved = sum(s.flops for s in samples), sum(s.moved for s in samples)
    share = flops / _PRODUCT.flops / products if flops else 1.0
    return Pace(
        share=min(share, 1.0),
        bandwidth=moved / moving if moved else bandwidth,
        start=max(0.0, sum(starts) / len(starts) - plain),
    )


def _net(full: float, tiny: float) -> float:
    """Return the kernel's own time: what a call takes at almost no size is its cost."""
    return max(full - tiny, full / 2)


def _settle_allocator() -> None:
    """Bring glibc's allocator into the state in which any training step leaves it.

    It gives every large tensor fresh pages, which the kernel must clear, until a large one was
    freed; then it keeps up to twice its size.
    """
    torch.full((_KEPT_BYTES // _FLOAT,), 0.5)


def _seconds(sample: Sample) -> float:
    """Return the time of a call; each finds other tensors, and its result stays for a while."""
    given = [[_values(size) for size in sample.sizes] for _ in range(sample.sets)]
    begin = now()
    kept = [sample.run(*tensors) for tensors in given]
    seconds = now() - begin
    del kept
    return seconds / sample.sets


def _tiny_seconds(sample: Sample) -> float:
    tensors = [_values(size) for size in sample.tiny]
    sample.run(*tensors)
    begin = now()
    for _ in range(_TINY_CALLS):
        sample.run(*tensors)
    return (now() - begin) / _TINY_CALLS


def _values(size: tuple[int, ...]) -> torch.Tensor:
    return torch.full(size, 0.5, dtype=torch.float32)


# --- what stands for each kind ---------------------------------------------------------------

_PRODUCT: Final = Sample(torch.mm, ((512, 512),) * 2, 0, ((4, 4),) * 2, flops=2 * 512**3, sets=1)
_FLOAT: Final = 4
_ROWS: Final = (1024, 256)
_MIB: Final = 1024 * 256 * _FLOAT
_FEW: Final = (4, 4)
_IMAGE: Final = (8, 64, 16, 16)
_IMAGE_BYTES: Final = 8 * 64 * 16 * 16 * _FLOAT


def _products() -> list[Sample]:
    # A linear layer of many rows; a thin product and small ones wait for their operands, which
    # are weights, or states, that were used long before.
    layer: Sizes = ((1536, 192), (768, 192), (768,))
    thin: Sizes = ((8, 512), (512, 512))
    small: Sizes = ((64, 32, 32), (64, 32, 32))
    tiny: Sizes = ((1, *_FEW), (1, *_FEW))
    return [
        Sample(F.linear, layer, 0, (_FEW, _FEW, (4,)), flops=2 * 1536 * 192 * 768, sets=8),
        Sample(torch.mm, thin, 512 * 528 * _FLOAT, (_FEW, _FEW), sets=_BEYOND),
        Sample(torch.bmm, small, 3 * 64 * 32**2 * _FLOAT, tiny, sets=_BEYOND),
    ]


def _convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=groups)


def _convolve_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> object:
    padding, groups = [weight.shape[-1] // 2] * 2, x.shape[1] // weight.shape[1]
    options = ([1, 1], padding, [1, 1], False, [0, 0], groups, [True, True, False])
    return ATEN.convolution_backward.default(grad, x, weight, None, *options)


_TINY_IMAGE: Final = (1, 4, 4, 4)
_PLACES: Final = 2 * 8 * 16 * 16
"""FLOPs of a convolution of `_IMAGE` with one weight to one channel."""
_DENSE: Final = (64, 64, 3, 3), (64, 64, 1, 1)
_ODD_IMAGE: Final = (8, 24, 16, 16)
_ODD: Final = (24, 24, 3, 3)
"""Channels that do not fill the blocks in which kernels take them."""
_SINGLE: Final = (64, 1, 3, 3)
"""One channel at a time has little to compute for what it moves."""


def _convolutions() -> list[Sample]:
    return _convolved(_convolve, 1)


def _convolutions_backward() -> list[Sample]:
    return _convolved(_convolve_backward, 2)


def _convolved(run: Call, passes: int) -> list[Sample]:
    """Return samples of a convolution or, with two passes, of its backward."""

    def sizes(image: tuple[int, ...], weight: tuple[int, ...]) -> Sizes:
        return (*(image,) * passes, weight)

    tiny = sizes(_TINY_IMAGE, (4, 4, 3, 3))
    shapes = [(_IMAGE, weight) for weight in _DENSE] + [(_ODD_IMAGE, _ODD)]
    dense = [
        Sample(run, sizes(*shape), 0, tiny, flops=passes * _PLACES * math.prod(shape[1]), sets=2)
        for shape in shapes
    ]
    moved = (passes + 1) * _IMAGE_BYTES
    return [*dense, Sample(run, sizes(_IMAGE, _SINGLE), moved, tiny, sets=2)]


def _attention() -> list[Sample]:
    run = F.scaled_dot_product_attention
    heads, tiny = (8, 4, 64, 48), (1, 1, 4, 4)
    flops = 4 * 8 * 4 * 64 * 64 * 48
    return [Sample(run, (heads,) * 3, 0, (tiny,) * 3, flops=flops)]


def _transforms() -> list[Sample]:
    moved = 64 * (64 * 64 + 64 * 33 * 2) * _FLOAT
    flops = 64 * 5 * 64 * 64 * 12 // 2
    sizes: Sizes = ((64, 64, 64),)
    tiny: Sizes = ((1, 4, 4),)
    return [
        Sample(torch.fft.rfft2, sizes, 0, tiny, flops=flops, sets=2),
        Sample(torch.fft.rfft2, sizes, moved, tiny, sets=2),
    ]


def _pointwise() -> list[Sample]:
    two: Sizes = (_ROWS, _ROWS)
    return [
        Sample(torch.mul, two, 3 * _MIB, (_FEW, _FEW)),
        Sample(torch.relu, (_ROWS,), 2 * _MIB, (_FEW,)),
        Sample(_rearranged, ((16, 64, 4, 64),), 2 * _MIB, ((1, 2, 2, 2),)),
    ]


def _rearranged(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).contiguous()


def _update(
    value: torch.Tensor, grad: torch.Tensor, mean: torch.Tensor, square: torch.Tensor
) -> torch.Tensor:
    mean.lerp_(grad, 0.1)
    square.mul_(0.9).add_(grad)
    return value.mul_(0.9).addcdiv_(mean, square, value=-0.1)


def _in_place() -> list[Sample]:
    # An optimizer changes tensors that were used long before, so that no cache has them, and
    # each of them more than once: 3 + 2 + 3 + 2 + 4 times its size is read or written.
    quarter = (256, 256)
    four, tiny = (quarter,) * 4, (_FEW,) * 4
    return [Sample(_update, four, 14 * _MIB // 4, tiny, sets=_BEYOND, calls=5)]


def _functions() -> list[Sample]:
    runs: list[Call] = [F.gelu, torch.sigmoid, F.silu, torch.tanh]
    forward = [Sample(run, (_ROWS,), 2 * _MIB, (_FEW,)) for run in runs]
    runs = [ATEN.gelu_backward.default, ATEN.silu_backward.default]
    return forward + [Sample(run, (_ROWS, _ROWS), 3 * _MIB, (_FEW, _FEW)) for run in runs]


def _random() -> list[Sample]:
    generator = torch.Generator().manual_seed(0)

    def drop(x: torch.Tensor) -> torch.Tensor:
        return x.bernoulli_(0.9, generator=generator)

    return [Sample(drop, ((128, 256),), _MIB // 8, (_FEW,), sets=1)]


def _norms() -> list[Sample]:
    def of_rows(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, weight.shape, weight, weight)

    def of_channels(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, None, None, weight, weight, training=True)

    return [
        Sample(of_rows, (_ROWS, (256,)), 2 * _MIB, (_FEW, (4,))),
        Sample(of_channels, (_IMAGE, (64,)), 2 * _IMAGE_BYTES, (_TINY_IMAGE, (4,))),
    ]


def _softmax() -> list[Sample]:
    run = functools.partial(torch.softmax, dim=-1)
    logarithm = functools.partial(torch.log_softmax, dim=-1)
    return [
        Sample(run, ((4096, 64),), 2 * _MIB, (_FEW,)),
        Sample(logarithm, ((128, 2048),), 2 * _MIB, (_FEW,)),
    ]


_MASKED_SOFTMAX: Final = "_safe_softmax"


def _masked_softmax() -> list[Sample]:
    # What attention with a mask and dropout calls; there is no public name for it.
    run = functools.partial(getattr(ATEN, _MASKED_SOFTMAX).default, dim=-1)
    return [Sample(run, ((1024, 64),), _MIB // 2, (_FEW,), sets=2)]


def _pooling() -> list[Sample]:
    largest = functools.partial(F.max_pool2d, kernel_size=2, return_indices=True)
    mean = functools.partial(F.avg_pool2d, kernel_size=2)
    quarter = _IMAGE_BYTES // 4
    return [
        Sample(largest, (_IMAGE,), _IMAGE_BYTES + 3 * quarter, (_TINY_IMAGE,), sets=2),
        Sample(mean, (_IMAGE,), _IMAGE_BYTES + quarter, (_TINY_IMAGE,), sets=2),
    ]


def _scattering() -> list[Sample]:
    places = torch.arange(1024) * 7919 % 1024
    first = torch.zeros(1, dtype=torch.int64)

    def look_up_backward(grad: torch.Tensor) -> object:
        rows = places if len(grad) > 1 else first
        return ATEN.embedding_dense_backward.default(grad, rows, len(grad), -1, False)

    def put(x: torch.Tensor, values: torch.Tensor) -> object:
        return ATEN.index_put.default(x, [places if len(x) > 1 else first], values, True)

    return [
        Sample(look_up_backward, (_ROWS,), 2 * _MIB, ((1, 4),), sets=2),
        Sample(put, (_ROWS, _ROWS), 3 * _MIB, ((1, 4), (1, 4)), sets=2),
    ]


_SAMPLES: Final[Mapping[Kernel, Callable[[], list[Sample]]]] = {
    Kernel.PRODUCT: _products,
    Kernel.CONVOLUTION: _convolutions,
    Kernel.CONVOLUTION_BACKWARD: _convolutions_backward,
    Kernel.ATTENTION: _attention,
    Kernel.TRANSFORM: _transforms,
    Kernel.POINTWISE: _pointwise,
    Kernel.IN_PLACE: _in_place,
    Kernel.FUNCTION: _functions,
    Kernel.RANDOM: _random,
    Kernel.NORM: _norms,
    Kernel.SOFTMAX: _softmax,
    Kernel.MASKED_SOFTMAX: _masked_softmax,
    Kernel.POOLING: _pooling,
    Kernel.SCATTER: _scattering,
}
