"""What this computer does in a second: products, copies, other kernels, small operations.

Takes about two seconds, draws no random numbers and leaves torch's threads and settings alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import torch

from shoestring.core.kernels import Kernel
from shoestring.core.machine import Pace
from shoestring.core.trace import Phase
from shoestring.measure._torch import without_modes
from shoestring.measure.host import busy_seconds
from shoestring.measure.timing.op_costs import measure_op_costs
from shoestring.measure.timing.paces import measure_paces, now

K = TypeVar("K")
V = TypeVar("V")

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

_PRODUCT_SECONDS: Final = 0.15
"""Time for the products of one type."""
_ENOUGH_SECONDS: Final = 0.02
"""A product that takes as long is large enough: its rate grows no more."""
_COPY_BYTES: Final = 128 * 2**20
"""Read and written by one measurement of the bandwidth; beyond most caches."""
_NOISE_SHARE: Final = 0.2
"""Processors that others may keep busy during a quiet measurement."""
_LARGEST: Final = {"cpu": 2048, "cuda": 8192}


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """What was measured.

    Attributes:
        flops: floating point operations a second of a matrix product, by dtype name.
        bandwidth: bytes a second, read and written, of an elementwise operation.
        op_seconds: cost of one small operation of a training step.
        link: bytes a second from pinned host memory to the card; None on a CPU.
        quiet: whether other processes left the processors alone meanwhile.
        paces: how fast kinds of kernels go; none on a card.
        op_costs: seconds of one operation beside its kernel's work, by phase; none on a card.
    """

    flops: dict[str, float]
    bandwidth: float
    op_seconds: float
    link: float | None = None
    quiet: bool = True
    paces: Mapping[Kernel, Pace] = dataclasses.field(default_factory=dict)
    op_costs: Mapping[Phase, float] = dataclasses.field(default_factory=dict)

    def best(self, other: Rates) -> Rates:
        """Return the better of two measurements, row by row; quiet where one was.

        Paces and costs are medians already, so that the mean of both is taken.

        Args:
            other: another measurement of the same machine.
        """
        both = self.flops.keys() | other.flops.keys()
        links = [link for link in (self.link, other.link) if link is not None]
        return Rates(
            flops={t: max(self.flops.get(t, 0.0), other.flops.get(t, 0.0)) for t in sorted(both)},
            bandwidth=max(self.bandwidth, other.bandwidth),
            op_seconds=min(self.op_seconds, other.op_seconds),
            link=max(links, default=None),
            quiet=self.quiet or other.quiet,
            paces=_merged(self.paces, other.paces, _between),
            op_costs=_merged(self.op_costs, other.op_costs, lambda one, two: (one + two) / 2),
        )


def _merged(mine: Mapping[K, V], other: Mapping[K, V], choose: Callable[[V, V], V]) -> dict[K, V]:
    found = {**other, **mine}
    return {k: choose(mine[k], other[k]) if k in mine and k in other else found[k] for k in found}


def _between(one: Pace, other: Pace) -> Pace:
    return Pace(*((a + b) / 2 for a, b in zip(one, other, strict=True)))


def measure_rates(device: str = "cpu") -> Rates:
    """Measure this computer, with torch's present number of threads.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        The rates.

    Example:
        >>> measure_rates().bandwidth > 1e8
        True
    """
    start, own, all_before = time.perf_counter(), time.process_time(), busy_seconds()
    with contextlib.ExitStack() as stack:
        # Whatever the caller does to the operations of his own, these run plainly.
        stack.enter_context(without_modes())
        stack.enter_context(torch.device(device))
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.autocast(device, enabled=False))
        rates = Rates(
            flops={str(t).removeprefix("torch."): _product_rate(t, device) for t in DTYPES},
            bandwidth=_bandwidth(device),
            op_seconds=_op_seconds(device),
            link=_link(device) if device == "cuda" else None,
        )
        if device == "cpu":
            # How much slower other kernels are than products is not the same on a card, where
            # nobody has compared it with steps.
            paces = measure_paces(rates.bandwidth)
            costs = measure_op_costs(paces, device)
            rates = dataclasses.replace(rates, paces=paces, op_costs=costs)
    all_after = busy_seconds()
    if all_before is None or all_after is None:
        return rates
    others = (all_after - all_before) - (time.process_time() - own)
    return dataclasses.replace(rates, quiet=others < _NOISE_SHARE * (time.perf_counter() - start))


def _timed(run: Callable[[], object], device: str) -> float:
    """Return the seconds of one call, to the end of its kernels."""
    start = now(device)
    run()
    return now(device) - start


@torch.no_grad()
def _product_rate(dtype: torch.dtype, device: str) -> float:
    """Return the best rate over square products that grow until they take long enough."""
    size, best, start = 256, 0.0, time.perf_counter()
    while True:
        left = torch.full((size, size), 0.5, dtype=dtype, device=device)
        right = torch.full((size, size), 0.25, dtype=dtype, device=device)
        out = torch.empty_like(left)

        def product(a: torch.Tensor = left, b: torch.Tensor = right, o: torch.Tensor = out) -> None:
            torch.mm(a, b, out=o)

        seconds = _timed(product, device)  # the first call also warms up
        for _ in range(3):
            if time.perf_counter() - start < _PRODUCT_SECONDS:
                seconds = min(seconds, _timed(product, device))
        best = max(best, 2 * size**3 / max(seconds, 1e-9))
        late = time.perf_counter() - start > _PRODUCT_SECONDS
        if seconds > _ENOUGH_SECONDS or late or size >= _LARGEST[device]:
            return best
        size *= 2


@torch.no_grad()
def _bandwidth(device: str) -> float:
    """Return bytes a second of out-of-place copies of 8 MiB parts of a large tensor.

    Each copy goes to memory of its own, as the outputs of a training step do.
    """
    count = 8
    parts = torch.full((count, _COPY_BYTES // 8 // count), 0.5, device=device)
    nbytes = parts.nbytes

    def copies() -> None:
        for part in parts:
            part.clone()

    copies()
    return 2 * nbytes / min(_timed(copies, device) for _ in range(4))


def _op_seconds(device: str) -> float:
    """Return the time of one small operation, its share of autograd included.

    A chain of products with a constant and hyperbolic tangents: two operations a link in
    forward, two in backward.
    """
    links = 100
    factor = torch.full((16,), 0.5, device=device)
    start = torch.full((16,), 0.5, device=device, requires_grad=True)

    def chain() -> None:
        with torch.enable_grad():
            x = start
            for _ in range(links):
                x = torch.tanh(x * factor)
            torch.autograd.grad(x, start, grad_outputs=factor)

    chain()
    return min(_timed(chain, device) for _ in range(10)) / (4 * links)


@torch.no_grad()
def _link(device: str) -> float:
    """Return bytes a second of a copy from pinned host memory."""
    host = torch.full((2**24,), 0.5).pin_memory()
    card = torch.empty_like(host, device=device)
    seconds = min(_timed(lambda: card.copy_(host, non_blocking=True), device) for _ in range(4))
    return host.nbytes / seconds
