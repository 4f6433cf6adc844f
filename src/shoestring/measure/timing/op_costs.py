"""What an operation costs on this computer beside its kernel's work, by phase.

It is read from a step of a small network in which the kernels have nothing to do. What is not an
operation of a trace, as views and the Python in between, is so part of those that are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

import torch
from torch import nn

from shoestring.core.kernels import Kernel, kernel_of
from shoestring.core.machine import Pace
from shoestring.core.trace import Op, Phase
from shoestring.measure.timing.paces import now
from shoestring.measure.tracing.tracer import Tracer

_STEPS: Final = 24
_SWEEP_BYTES: Final = 16 * 2**20
"""More than a core's own caches hold."""


class _Block(nn.Module):
    """Attention and a small network with residuals, of ordinary modules."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.bend = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        query, key, value = (self._split(f(normed)) for f in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-1, -2) * 0.5, dim=-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(x.shape))
        mixed: torch.Tensor = x + self.down(self.bend(self.up(self.norm2(x))))
        return mixed

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], 2, -1).transpose(1, 2)


def measure_op_costs(paces: Mapping[Kernel, Pace], device: str) -> dict[Phase, float]:
    """Measure what an operation takes beside its kernel's work: Python, autograd, dispatch.

    A step of a small network is timed by phase. What the kinds of its kernels take to start is
    taken off, and the rest shared among the operations that a trace has of it.

    Args:
        paces: of the kinds of kernels; those that are missing start at once.
        device: ``cpu`` or ``cuda``.

    Returns:
        Phase -> seconds of one operation.
    """
    with torch.device("meta"):  # random numbers for its weights are drawn of no generator
        network = nn.Sequential(*(_Block() for _ in range(2)))
    network = network.to_empty(device=device)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.01)
    optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
    batch = torch.full((2, 2, 4), 0.5, device=device)
    step = functools.partial(_phases, network, optimizer, batch, device)
    with torch.enable_grad():
        step()
        tracer = Tracer(assume_scalars=False)
        with tracer.watching(network), tracer:
            step()
        ops = tracer.trace(rows=1, steady=False).ops
        tracer.close()
        usual = [median(times) for times in zip(*(step() for _ in range(_STEPS)), strict=True)]
    phases = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)
    return {
        phase: _share([op for op in ops if op.phase is phase], seconds, paces)
        for phase, seconds in zip(phases, usual, strict=True)
    }


def _phases(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor, device: str
) -> tuple[float, float, float]:
    optimizer.zero_grad()
    large = torch.zeros(_SWEEP_BYTES // 4, device=device)
    forward, loss = _swept(lambda: network(batch).sum(), large, device)
    assert isinstance(loss, torch.Tensor)
    backward, _ = _swept(loss.backward, large, device)
    update, _ = _swept(optimizer.step, large, device)
    return forward, backward, update


def _swept(run: Callable[[], object], large: torch.Tensor, device: str) -> tuple[float, object]:
    """Return the time of a phase whose first operations find nothing in the caches.

    In a step, large kernels run between operations: then Python and torch start cold. Where
    small ones follow each other, they stay warm. So the first of two blocks is cold here.
    """
    large.add_(1.0)
    begin = now(device)
    result = run()
    return now(device) - begin, result


def _share(ops: Sequence[Op], seconds: float, paces: Mapping[Kernel, Pace]) -> float:
    kernels = [kernel_of(op.name, contracts=op.flops > 0) for op in ops]
    starting = sum(paces[kernel].start for kernel in kernels if kernel in paces)
    return max(seconds - starting, seconds / 4) / max(len(ops), 1)
