"""The command ``profile``: what one training step of a MODEL costs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar

from shoestring.cli import models
from shoestring.core.errors import InputError, NoEffectWarning, RefusedError
from shoestring.core.units import format_bytes, parse_batch
from shoestring.integrations.zeroth_names import ZEROTH, ZerothName

if TYPE_CHECKING:
    import torch

    from shoestring.core.profile import Profile
    from shoestring.measure.tracing.twin import MakeOptimizer

T = TypeVar("T")

OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd", "adafactor", "none"]
StepName: TypeAlias = Literal[OptimizerName, ZerothName]
"""What makes a step: an optimizer that takes gradients, none, or one of zeroth order."""

_COPIES: Final = 6
"""A step with data holds model, copy, gradient and state at once, each of the weights' size."""


def profile(
    model: str,
    /,
    *,
    batch: str,
    optimizer: StepName = "adamw",
    machine: str = "this",
    dtype: str | None = None,
    json: bool = False,
) -> int:
    """Say what one training step costs: memory, time, FLOPs.

    Args:
        model: package.module:factory, path.py:factory, a folder with a config.json, or the
            name of a Hugging Face model in the local cache. Weights are not needed.
        batch: rows x length for text, as in 32x64; rows, or rows x channels x height x width
            for images; rows x samples for speech; any sizes for a factory's model.
        optimizer: sgd has a momentum of 0.9; none stops after backward; zo and its kind take
            forward passes alone.
        machine: this, or a data sheet, as in rtx-4090 or h200.
        dtype: of the tensor that a factory's model is called with (float32).
        json: print JSON instead of a table.

    Returns:
        The exit code.
    """
    prof = profiled(model, batch, optimizer=optimizer, machine=machine, dtype=dtype)
    sys.stdout.write((prof.to_json() if json else prof.table()) + "\n")
    return 0


def profiled(
    model: str, batch: str, *, optimizer: StepName, machine: str, dtype: str | None
) -> Profile:
    """Profile a MODEL as it is given on the command line.

    Args:
        model: what ``shoestring.cli.models`` finds.
        batch: sizes, as in ``32x64``.
        optimizer: its short name.
        machine: name of a data sheet.
        dtype: of a factory's tensor, or None.

    Raises:
        InputError: something of it cannot be used.
        RefusedError: the model cannot be traced.
    """

    def work(brought: models.Brought) -> Profile:
        from shoestring.planner.profiling import profile as profile_step

        check_trained(brought.model, "leave requires_grad set where the model is to learn.")
        if optimizer in ZEROTH:  # as it is trained: dropout would blur the differences of losses
            brought.model.eval()
        return profile_step(
            brought.model,
            brought.batch,
            loss=brought.loss,
            optimizer=make_optimizer(optimizer),
            machine=machine,
        )

    brought, prof = on_model(model, batch, dtype=dtype, machine=machine, work=work)
    return dataclasses.replace(prof, assumptions=advised(prof.assumptions, brought))


def on_model(
    model: str,
    batch: str,
    *,
    dtype: str | None,
    machine: str | None,
    work: Callable[[models.Brought], T],
) -> tuple[models.Brought, T]:
    """Find a MODEL as it is given on the command line, build it, and trace it in some way.

    It is built without data; where its step depends on data, it is built and traced once more
    with data.

    Args:
        model: what ``shoestring.cli.models`` finds.
        batch: sizes, as in ``32x64``.
        dtype: of a factory's tensor, or None.
        machine: name of a data sheet, told before the model is built if it is wrong; None for
            none.
        work: traces what was built.

    Returns:
        What was built, and what the work returned.

    Raises:
        InputError: something of it cannot be used.
        RefusedError: the model cannot be traced.
    """
    sizes = parse_batch(batch)
    models.be_quiet()
    with talk("loading"):
        from shoestring.measure.timing.machines import load_machine

        if machine is not None:
            load_machine(machine)
        source = models.find(model, sizes, dtype=dtype)
        brought = source.build(True)
    for sentence in brought.notes:
        note(sentence)
    with talk("tracing one step"):
        try:
            return brought, _told(brought, work)
        except (InputError, RefusedError) as error:
            if not _needs_data(error, brought.model):
                raise
        # Outside of the handler, which keeps the failed trace alive.
        brought = _with_data(source, brought)
        return brought, _told(brought, work)


def _told(brought: models.Brought, work: Callable[[models.Brought], T]) -> T:
    """Trace a model; an error's hint is about the command line."""
    try:
        return work(brought)
    except InputError as error:
        if "the step raised" in error.message:
            raise InputError(error.message, hint=brought.hint or error.hint) from error
        if "loss=" in error.hint:
            raise InputError(error.message, hint=brought.loss_hint) from error
        raise


def advised(assumptions: Sequence[str], brought: models.Brought) -> tuple[str, ...]:
    """Return what was assumed, with what to do about it on the command line.

    Args:
        assumptions: of a trace.
        brought: what was traced.
    """
    from shoestring.measure.tracing.step import MEAN_NOTE

    advice = {MEAN_NOTE: f"{MEAN_NOTE}; to be exact, {brought.loss_hint.removesuffix('.')}"}
    return tuple(advice.get(sentence, sentence) for sentence in assumptions)


def check_trained(model: torch.nn.Module, hint: str) -> None:
    """Refuse a model that has nothing to train.

    Args:
        model: the model.
        hint: what to do about it.

    Raises:
        InputError: it has no trainable parameter.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(f"{type(model).__name__} has no trainable parameter.", hint=hint)


def make_optimizer(name: StepName) -> MakeOptimizer | None:
    """Return what makes the optimizer of a short name; None for ``none``.

    Args:
        name: as on the command line.
    """
    if name in ZEROTH:
        return ZEROTH[name].load()
    import torch

    known: dict[str, MakeOptimizer] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
        "adafactor": torch.optim.Adafactor,
    }
    return known.get(name)


def _needs_data(error: Exception, model: torch.nn.Module) -> bool:
    from shoestring.measure._torch import DATA_DEPENDENT

    cause = error.__context__
    return isinstance(cause, DATA_DEPENDENT) and any(p.is_meta for p in model.parameters())


def _with_data(source: models.Source, brought: models.Brought) -> models.Brought:
    """Build the model again with weights, where they fit, for a step that depends on data."""
    from shoestring.measure.host import free_memory

    size = sum(p.numel() * p.element_size() for p in brought.model.parameters())
    free = free_memory()
    if free is not None and _COPIES * size > free:
        raise InputError(
            "the step depends on data, so it must be run once with weights: that may take "
            f"{format_bytes(_COPIES * size)}, and {format_bytes(free)} is free.",
            hint="profile a smaller model of the same kind, with fewer layers.",
        )
    return source.build(False)


# --- talk, on stderr -------------------------------------------------------------------------


def note(sentence: str) -> None:
    """Tell the user something that is no error.

    Args:
        sentence: one, without a full stop.
    """
    sys.stderr.write(f"note: {sentence}\n")


@contextlib.contextmanager
def talk(what: str) -> Iterator[None]:
    """Show on a terminal what is being done, and afterwards pass on our own warnings only.

    What a model prints meanwhile goes to stderr: stdout is for data.

    Args:
        what: a few words.
    """
    shown = f"{what} ..." if sys.stderr.isatty() else ""
    if shown:
        sys.stderr.write(shown)
        sys.stderr.flush()
    level = logging.root.manager.disable
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # torch logs a traceback where a step fails on fake tensors; the error says it once.
        logging.disable(logging.ERROR)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            logging.disable(level)
            if shown:
                sys.stderr.write("\r" + " " * len(shown) + "\r")
    for sentence in dict.fromkeys(str(w.message) for w in caught if w.category is NoEffectWarning):
        note(sentence.removesuffix("."))
