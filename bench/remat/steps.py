"""Steps that are compared: what they return, what they take, and how long."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import nn

from shoestring.core.errors import InfeasibleError
from shoestring.measure.tracing.allocator import measure_step, standing, steady_step
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import call_model

SCALARS: Final = 8
"""Bytes outside of the model: the loss that the caller holds, and the one that backward begins
with."""
FEWEST, MOST = 3, 9
"""Rounds of a comparison."""


@dataclasses.dataclass(frozen=True)
class Side:
    """A model and its batch, whose step is forward and backward.

    Attributes:
        model: returns its loss.
        batch: as the model takes it.
    """

    model: nn.Module
    batch: Batch

    def step(self) -> None:
        """Run forward and backward; the gradients are freed."""
        self._loss().backward()
        self.model.zero_grad()

    def outcome(self) -> dict[str, list[torch.Tensor]]:
        """Run forward and backward from a fixed seed; return copies of all that it changes."""
        torch.manual_seed(0)
        loss = self._loss()
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.model.zero_grad()
        buffers = [buffer.detach().clone() for buffer in self.model.buffers()]
        return {"loss": [loss.detach()], "gradients": gradients, "buffers": buffers}

    def _loss(self) -> torch.Tensor:
        loss = call_model(self.model, self.batch)
        assert isinstance(loss, torch.Tensor)
        return loss

    def peak(self) -> int:
        """Return the peak of forward and backward above parameters, buffers and the batch."""
        measured = measure_step(self.step, roots=lambda: standing(self.model, self.batch))
        return measured.peak - measured.static

    def total(self) -> int:
        """Return the peak of a whole training step with AdamW, and of all that stands."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, weight_decay=0.0)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # makes its state, without a forward
        optimizer.zero_grad()
        step = steady_step(self.model, self.batch, optimizer)
        roots = lambda: standing(self.model, self.batch, optimizer)  # noqa: E731 - as it is called
        peak = measure_step(step, roots=roots).peak
        optimizer.zero_grad()
        return peak


def differences(
    ours: Mapping[str, Sequence[torch.Tensor]], theirs: Mapping[str, Sequence[torch.Tensor]]
) -> dict[str, float]:
    """Return by kind the largest difference of two outcomes; kinds that are equal are left out.

    Args:
        ours: of `Side.outcome`.
        theirs: of the same model, run another way.

    Raises:
        ValueError: the one has tensors that the other has not.
    """
    found = {}
    for kind, tensors in ours.items():
        pairs = zip(tensors, theirs[kind], strict=True)
        most = max((_largest(a, b) for a, b in pairs), default=0.0)
        if most > 0:
            found[kind] = most
    return found


def _largest(a: torch.Tensor, b: torch.Tensor) -> float:
    if torch.equal(a, b):
        return 0.0
    gap = float((a.double() - b.double()).abs().max())
    return math.inf if math.isnan(gap) else gap


def take_turns(
    sides: Mapping[str, Callable[[], object]], *, seconds: float, rounds: int | None = None
) -> dict[str, list[float]]:
    """Time functions in turns, A B C A B C, so that a change of the machine meets all.

    Args:
        sides: by name; each has been called before.
        seconds: to be spent on all of them, about.
        rounds: samples of each; by default as many as there is time for, at least `FEWEST` and
            at most `MOST`.

    Returns:
        Seconds of the processor by side.
    """
    samples: dict[str, list[float]] = {name: [] for name in sides}
    wanted = rounds or MOST
    while len(next(iter(samples.values()))) < wanted:
        for name, function in sides.items():
            gc.collect()  # what one side left behind is not billed to the other
            begin = time.process_time()
            function()
            samples[name].append(time.process_time() - begin)
        if rounds is None:
            turn = sum(spent[0] for spent in samples.values())
            wanted = min(MOST, max(FEWEST, int(seconds / turn)))
    return samples


def overhead(ours: Sequence[float], plain: Sequence[float]) -> float:
    """Return how much longer the one takes than the other, as a share of the other.

    Args:
        ours: samples of the one.
        plain: of the other.
    """
    return statistics.median(ours) / statistics.median(plain) - 1


def least_of(error: InfeasibleError) -> int:
    """Return the least budget that a refusal names.

    Args:
        error: of `fit`.

    Raises:
        ValueError: it names none.
    """
    found = re.search(r"activations=(\d+)", error.hint or "")
    if found is None:
        raise ValueError("the refusal names no budget that can be reached") from error
    return int(found[1])


@contextlib.contextmanager
def fresh_cache() -> Iterator[None]:
    """In this context nothing is known of what was measured on this machine before."""
    before = os.environ.get("SHOESTRING_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHOESTRING_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["SHOESTRING_CACHE"]
            if before is not None:
                os.environ["SHOESTRING_CACHE"] = before
