"""Trainings in forks of one process, each killed at some moment and gone on with afterwards.

    python -m tests.integrations.killed FOLDER SEED

Kills two before their first step, fourteen at random moments of the steps, and four inside the
writing of a checkpoint. Prints a line of JSON for each: when it was killed, how it ended, and
whether the weights that come out at last are, bit for bit, those of a training that was left
alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

STEPS = 8
MODEL, TEXTS = "model", "texts.csv"


KILLS = {"start": 2, "time": 14, "file": 4}


def train(folder: Path, out: Path, begin: Callable[[], None]) -> None:
    from shoestring.integrations.text_training import train as run
    from shoestring.integrations.training_settings import TextTraining

    settings = TextTraining(
        model=str(folder / MODEL),
        data=folder / TEXTS,
        task="classification",
        out=out,
        memory="90%",
        rows=16,
        steps=STEPS,
        lr=1e-3,
        save_every=2,
    )
    quiet = {"tell": lambda text: None, "show": lambda entry: None}
    run(settings, resume=True, began=lambda step, steps: begin(), **quiet)


def kill_me(number: int = 0, frame: object = None) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


def after(seconds: float) -> Callable[[], None]:
    """Return what kills a process some time after it has begun."""

    def arm() -> None:
        signal.signal(signal.SIGALRM, kill_me)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return arm


def in_checkpoint(files: int) -> Callable[[], None]:
    """Return what kills a process when it has put so many files on disk."""

    def arm() -> None:
        from shoestring.integrations import checkpoints

        plain, left = checkpoints._to_disk, [files]

        def to_disk(path: Path) -> None:
            left[0] -= 1
            if left[0] < 0:
                kill_me()
            plain(path)

        checkpoints._to_disk = to_disk

    return arm


def nothing() -> None:
    """Kill nobody."""


def forked(
    folder: Path,
    out: Path,
    *,
    start: Callable[[], None] = nothing,
    begin: Callable[[], None] = nothing,
) -> int:
    """Train in a fork; return its exit code, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            start()
            train(folder, out, begin)
            code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def main() -> None:
    folder, draw = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    warnings.simplefilter("ignore")
    import torch

    import shoestring.integrations.text_training  # noqa: F401  # once, for all forks
    from tests.integrations.tiny import write_model, write_texts

    torch.set_num_threads(1)
    write_model(folder / MODEL, "classification")
    write_texts(folder / TEXTS)
    # One that was killed when all was planned: the others begin as copies of it.
    planned = folder / "planned"
    assert forked(folder, planned, begin=kill_me) == -signal.SIGKILL
    shutil.copytree(planned, folder / "whole")
    began = time.monotonic()
    assert forked(folder, folder / "whole") == 0
    duration = time.monotonic() - began
    expected = weights(folder / "whole")
    for number, kind in enumerate(kind for kind, count in KILLS.items() for _ in range(count)):
        out = folder / f"run{number}"
        if kind == "start":
            first = forked(folder, out, start=after(draw.uniform(0, duration)))
        else:
            shutil.copytree(planned, out)
            moment = after(draw.uniform(0, duration))
            arm = moment if kind == "time" else in_checkpoint(draw.randint(1, 30))
            first = forked(folder, out, begin=arm)
        found = sorted(p.name for p in (out / "checkpoints").glob("*"))
        second = forked(folder, out)
        same = second == 0 and weights(out) == expected
        left = sorted(p.name for p in (out / "checkpoints").glob(".*"))
        line = {"kind": kind, "first": first, "second": second, "same": same}
        sys.stdout.write(json.dumps({**line, "found": found, "left": left}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
