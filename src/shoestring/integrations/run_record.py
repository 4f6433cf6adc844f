"""What a training tells its folder: the memory of a step, and every log line."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping

import numpy as np
import transformers

from shoestring.core.profile import Profile
from shoestring.core.run_folder import Entry, Memory, RunFolder, Timeline
from shoestring.core.trace import Kind, Storage, Trace

_POINTS = 400
_MODULES = 2000
_CLOCKS = (
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "eval_model_preparation_time",
)
_MOST_LOG = 300.0  # e to the power of more is no float


def thinned(trace: Trace, *, most: int = _POINTS) -> Memory:
    """Return the memory of a step at a few points, each the highest of those it stands for.

    Args:
        trace: one step.
        most: points that are kept.
    """
    total = trace.timeline()
    edges = np.linspace(0, len(total), min(most, len(total)) + 1).astype(int)
    points = [a + int(total[a:b].argmax()) for a, b in itertools.pairwise(edges)]
    kinds = {}
    for kind in Kind:
        sizes = trace.resident(functools.partial(_is_of, kind))
        if kind is Kind.TEMPORARY:
            sizes = sizes + np.array([op.workspace for op in trace.ops] or [0])
        kinds[kind.value] = [int(sizes[i]) for i in points]
    phases = [trace.ops[i].phase.value if trace.ops else "forward" for i in points]
    return Memory(phases, kinds, trace.peak)


def _is_of(kind: Kind, storage: Storage) -> bool:
    return storage.kind is kind


def timeline_of(plain: Profile, planned: Profile) -> Timeline:
    """Return what a run's folder keeps of the memory of its step.

    Args:
        plain: the plain step.
        planned: the step as it is run.
    """
    costs = sorted(plain.modules.values(), key=lambda c: -(c.parameters + c.saved + c.gradients))
    modules: list[dict[str, float | str]] = [
        {
            "path": cost.path,
            "parameters": cost.parameters,
            "gradients": cost.gradients,
            "optimizer": cost.optimizer,
            "saved": cost.saved,
            "flops": cost.flops,
            "forward_seconds": cost.forward_seconds,
            "backward_seconds": cost.backward_seconds,
        }
        for cost in costs[:_MODULES]
    ]
    return Timeline(thinned(plain.widest), thinned(planned.widest), modules)


class Recorder(transformers.TrainerCallback):
    """Writes what the Trainer logs to a run's folder.

    Args:
        folder: of the run.
        tell: called with every entry, to show progress.
    """

    def __init__(self, folder: RunFolder, tell: Callable[[Entry], None]) -> None:
        self._folder = folder
        self._tell = tell
        self._began = time.perf_counter()
        self._seconds: list[float] = []

    def on_step_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **kwargs: object,
    ) -> None:
        """Start the clock of a step."""
        self._began = time.perf_counter()

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **kwargs: object,
    ) -> None:
        """Stop it."""
        self._seconds.append(time.perf_counter() - self._began)

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Write a line."""
        entry = self._entry(state.global_step, dict(logs or {}))
        if entry is not None:
            self._folder.append(entry)
            self._tell(entry)

    def _entry(self, step: int, logs: Mapping[str, float]) -> Entry | None:
        if "eval_loss" in logs:
            values = {
                k.removeprefix("eval_"): float(v)
                for k, v in logs.items()
                if k.startswith("eval_") and k not in _CLOCKS
            }
            if "accuracy" not in values:
                values["perplexity"] = math.exp(min(values["loss"], _MOST_LOG))
            return Entry(step, "eval", values)
        if "loss" not in logs:
            return None
        values = {"loss": float(logs["loss"])}
        for name, short in (("learning_rate", "lr"), ("grad_norm", "grad_norm")):
            if name in logs:
                values[short] = float(logs[name])
        if self._seconds:
            values["seconds"] = float(np.median(self._seconds))
            self._seconds.clear()
        return Entry(step, "train", values)
