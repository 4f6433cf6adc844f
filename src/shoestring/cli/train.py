"""The command ``train``: a MODEL learns a user's texts within a budget of memory."""

from __future__ import annotations

import gc
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TextIO

from shoestring.cli import models
from shoestring.cli.profile import note, talk
from shoestring.core.errors import InputError
from shoestring.core.units import format_seconds
from shoestring.integrations.training_settings import Metric, OptimizerName

if TYPE_CHECKING:
    from shoestring.core.run_folder import Entry
    from shoestring.integrations.text_training import Outcome

_STOPPED: Final = 130


def train(  # noqa: PLR0913  # every option of the command is one
    model: str,
    /,
    *,
    data: Path,
    task: Literal["classification", "lm"],
    out: Path = Path("run"),
    memory: str = "auto",
    eval_data: Path | None = None,
    rows: int | None = None,
    length: int | None = None,
    epochs: float = 3.0,
    steps: int | None = None,
    lr: float | None = None,
    optimizer: OptimizerName = "adamw",
    eps: float | None = None,
    q: int | None = None,
    directions: str | None = None,
    maximise: Metric | None = None,
    lora: str | None = None,
    head_only: bool = False,
    probe: bool = False,
    quantise: Literal["nf4", "int8"] | None = None,
    allow: list[str] | None = None,
    without: list[str] | None = None,
    bf16: bool = False,
    clip: float | None = None,
    seed: int = 0,
    save_every: int | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    skip_bad: bool = False,
    resume: bool = False,
) -> int:
    """Train a model on your own texts within a budget of memory.

    Nothing is lost: checkpoints are whole or absent, Ctrl-C leaves one and stops, and --resume
    goes on bit for bit. What was chosen is printed before the first step. Look at the run with
    shoestring report.

    Args:
        model: a folder with a transformers model and its tokenizer, or the name of one in the
            local cache.
        data: a .csv, .tsv, .jsonl or .txt file, or a folder of those.
        task: classification, or lm to learn the next token.
        out: the run's folder: checkpoints, log, and the trained model.
        memory: the whole step's budget, as in 600MiB, or 60% of the plain step, or auto for
            what the machine has.
        eval_data: what to evaluate on; by default a tenth of the data is held out.
        rows: of a batch (32; 8 for lm).
        length: most tokens of a row (what covers 99 % of the texts, up to 512).
        epochs: passes over the data, where --steps is not given.
        steps: optimizer steps.
        lr: learning rate (5e-5; 2e-4 with --lora; 1e-3 with --head-only; measured with zo).
        optimizer: adamw, adam, sgd with a momentum of 0.9; or by forward passes alone, at the
            memory of inference: zo and its kind.
        eps: with zo, how far apart the loss is asked for (measured).
        q: with zo, directions of a step (1).
        directions: with zo, how they are drawn, as in rademacher or gaussian.
        maximise: with zo, a metric of each batch to make large in place of the loss small.
        lora: rank of adapters to train in place of all weights, as in 16 or r=16.
        head_only: train the classifier on top of the base alone.
        probe: begin with the classifier's last layer fitted to the frozen model, and say what
            training gains over that.
        quantise: keep the base's weights in nf4 or int8; needs --lora.
        allow: a technique that does more than keep the gradients exact; may be repeated.
        without: a technique that is not to be used; may be repeated.
        bf16: mixed precision in bfloat16.
        clip: largest norm of the gradients (1); 0 for none.
        seed: of weights, order and dropout.
        save_every: steps between checkpoints (a tenth of all).
        text_column: of the data, where it cannot be told.
        label_column: of the data, where it cannot be told.
        skip_bad: leave out rows that cannot be used, and say which.
        resume: go on from the newest checkpoint in --out.

    Returns:
        The exit code: 130 where it was interrupted.

    Raises:
        InputError: something cannot be used as it is.
    """
    rank = _rank(lora)
    models.be_quiet()
    with talk("loading"):
        try:
            from shoestring.integrations.text_training import train as run
            from shoestring.integrations.training_settings import TextTraining
        except ModuleNotFoundError as error:
            raise InputError(
                f"training needs the package {error.name}.", hint="pip install 'shoestring[hf]'."
            ) from error
    gc.enable()  # a training is long
    settings = TextTraining(
        model=model,
        data=data,
        task=task,
        out=out,
        memory=memory,
        eval_data=eval_data,
        rows=rows,
        length=length,
        epochs=epochs,
        steps=steps,
        lr=lr,
        optimizer=optimizer,
        eps=eps,
        q=q,
        directions=directions,
        maximise=maximise,
        lora=rank,
        head_only=head_only,
        probe=probe,
        quantise=quantise,
        allow=tuple(allow or ()),
        without=tuple(without or ()),
        bf16=bf16,
        clip=clip,
        seed=seed,
        save_every=save_every,
        text_column=text_column,
        label_column=label_column,
        skip_bad=skip_bad,
        command="shoestring " + shlex.join(sys.argv[1:]),
    )
    _silence()
    progress = _Progress()
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)  # those of other libraries
        warnings.showwarning = _note
        outcome = run(settings, resume=resume, tell=_say, show=progress.show, began=progress.begin)
    progress.end()
    done = outcome.run
    shown = "".join(f", {name} {value:.4g}" for name, value in outcome.metrics.items())
    sys.stdout.write(f"{done.status} after {done.step} of {done.steps} steps{shown}\n")
    gains = [f"{name} {outcome.metrics[name] - value:+.4f}" for name, value in _scores(outcome)]
    if gains:
        sys.stdout.write(f"gain over the linear probe: {', '.join(gains)}\n")
    sys.stdout.write(f"{out / 'model' if done.status == 'finished' else out}\n")
    return _STOPPED if done.status == "stopped" else 0


def _scores(outcome: Outcome) -> list[tuple[str, float]]:
    """Return the probe's metrics that are compared with the end's."""
    return [(name, value) for name, value in outcome.probe.items() if name in ("accuracy", "f1")]


def _silence() -> None:
    """Leave out the bars and reports of transformers: what matters of them is said here."""
    from transformers import logging

    quieten: tuple[Callable[[], None], ...] = (
        logging.set_verbosity_error,
        logging.disable_progress_bar,
    )
    for call in quieten:
        call()


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say a warning of ours in a sentence, without the place in the code."""
    note(str(message).removesuffix("."))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _rank(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.removeprefix("r=")
    if not digits.isdecimal() or not digits.isascii() or not 1 <= int(digits) <= 4096:
        raise InputError(f"--lora {text!r} is no rank.", hint="write --lora 16 or --lora r=16.")
    return int(digits)


class _Progress:
    """A line that is written over where stderr is a terminal, else one for every tenth."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._steps = 0
        self._tenths = 0
        self._first = 0
        self._began = time.perf_counter()

    def begin(self, step: int, steps: int) -> None:
        """Start the clock.

        Args:
            step: that has been reached before.
            steps: of the whole training.
        """
        self._first, self._steps, self._began = step, steps, time.perf_counter()
        self._tenths = 10 * step // max(steps, 1)

    def show(self, entry: Entry) -> None:
        """Show one entry of the log.

        Args:
            entry: of training or of an evaluation.
        """
        values = "  ".join(f"{k} {v:.4g}" for k, v in entry.values.items() if k != "seconds")
        if entry.kind == "eval":
            self._line(f"step {entry.step}: held out: {values}")
            return
        tenths = 10 * entry.step // max(self._steps, 1)
        text = f"step {entry.step} of {self._steps}  {values}  {self._left(entry.step)}"
        if self._live:
            bar = "█" * tenths + "░" * (10 - tenths)
            sys.stderr.write(f"\r\x1b[2K{bar} {text}")
            sys.stderr.flush()
        elif tenths > self._tenths:
            self._line(text)
        self._tenths = tenths

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            sys.stderr.write("\n")

    def _line(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{text}\n" if self._live else f"{text}\n")
        sys.stderr.flush()

    def _left(self, step: int) -> str:
        done = step - self._first
        if done <= 0:
            return ""
        seconds = (time.perf_counter() - self._began) / done
        return f"{seconds:.2f} s a step, {format_seconds(seconds * (self._steps - step))} left"
