"""Every model of the zoo, fitted into 70 % of its activations: how, at what cost, and how exact.

    python -m bench.remat.zoo MODEL ...

Where so few bytes are not reached, the model is fitted into the least that is.
"""

from __future__ import annotations

import copy
import dataclasses
import random
import warnings
from typing import Final

import numpy as np
import torch

from bench.remat.records import Figures
from bench.remat.steps import (
    SCALARS,
    Side,
    differences,
    fresh_cache,
    least_of,
    overhead,
    take_turns,
)
from shoestring.activations.remat.fitting import AnySchedule, fit
from shoestring.core.errors import InfeasibleError
from shoestring.measure.tracing.step import StepOptions, forward_loss
from tests.zoo import ZOO, Case

SHARE: Final = "70%"
SECONDS: Final = 4.0
"""Spent on timing a model, about."""
STEPS: Final = 2
"""Compared one by one, so that what the first leaves behind shows."""
CELLS: Final = tuple(case.name for case in ZOO)


@dataclasses.dataclass(frozen=True)
class Steps(Side):
    """A model of the zoo with its batch.

    Attributes:
        case: tells the loss.
    """

    case: Case

    def run(self) -> torch.Tensor:
        """Run forward and backward; return the loss."""
        loss, _ = forward_loss(self.model, self.batch, StepOptions(loss=self.case.loss))
        loss.backward()
        return loss.detach()

    def step(self) -> None:
        """Run forward and backward; the gradients are freed."""
        self.run()
        self.model.zero_grad()

    def outcome(self) -> dict[str, list[torch.Tensor]]:
        """Return all that a few steps from fixed seeds make and change."""
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  # wav2vec2 masks by numpy's global numbers
        random.seed(0)
        found: dict[str, list[torch.Tensor]] = {"loss": [], "gradients": []}
        for _ in range(STEPS):
            found["loss"].append(self.run())
            found["gradients"] += [p.grad for p in self.model.parameters() if p.grad is not None]
            self.model.zero_grad()
        found["buffers"] = [buffer.detach().clone() for buffer in self.model.buffers()]
        found["random numbers"] = [torch.get_rng_state()]
        return found


def measure(name: str) -> Figures:
    """Fit one model.

    Args:
        name: one of `CELLS`.

    Returns:
        How it was fitted, peaks, times, and what differs from the plain steps.
    """
    warnings.simplefilter("ignore")  # transformers' own, and that a loss was assumed
    (case,) = (case for case in ZOO if case.name == name)
    batch = case.batch(case.rows[1])
    plain = Steps(case.build(), batch, case)
    fitted = Steps(copy.deepcopy(plain.model), batch, case)
    with fresh_cache():
        schedule, refusal = _fit(fitted)
    different = differences(fitted.outcome(), plain.outcome())
    samples = take_turns({"plain": plain.step, "fitted": fitted.step}, seconds=SECONDS)
    return {
        "rows": case.rows[1],
        "path": schedule.path,
        "why": schedule.why,
        "refusal": refusal,
        "plain_peak": plain.peak(),
        "budget": schedule.budget + SCALARS,
        "predicted_peak": schedule.peak + SCALARS,
        "peak": fitted.peak(),
        "predicted_overhead": schedule.overhead,
        "overhead": overhead(samples["fitted"], samples["plain"]),
        "different": different,
        "samples": samples,
    }


def _fit(steps: Steps) -> tuple[AnySchedule, str]:
    """Fit a model into the share; where it does not fit, into the least that was found."""
    share: str | int = SHARE
    refusal = ""
    while True:
        try:
            made = fit(steps.model, steps.batch, activations=share, loss=steps.case.loss)
        except InfeasibleError as error:
            refusal, share = str(error).partition("\n")[0], least_of(error)
        else:
            return made, refusal


if __name__ == "__main__":
    from bench.remat.child import main

    main("zoo", CELLS, measure)
