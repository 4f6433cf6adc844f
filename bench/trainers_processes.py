"""Runs the processes of `bench.trainers`, each of which ends with the call that made it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from bench.harness import ROOT
from bench.trainers_terms import ANSWER, Settings
from recipes.limited import child, last_error

Record: TypeAlias = Mapping[str, object]

PATIENCE: Final = 300.0
"""Seconds after which a process counts as stuck."""
MOST_ERROR: Final = 300
"""Characters of an error that are kept."""

ENVIRONMENT: Final = {
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",  # the memory and the time of a CPU
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
LIMITED: Final = {
    # What is freed goes back at once, and no loader threads bring stacks of their own:
    # otherwise a limit on the process says little about what the step holds.
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",
}
"""Further variables where memory is limited."""


class FailedError(Exception):
    """A process failed; the text says how it ended."""


class Processes:
    """Runs processes one after the other; called with settings, it returns the answer.

    Args:
        scratch: folder for plans, gradients and error output.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def __call__(self, settings: Settings) -> Record:
        """Run one process.

        Args:
            settings: what it is told; the folder is filled in.

        Raises:
            FailedError: it failed, or took too long.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            settings = dataclasses.replace(settings, folder=folder)
            limited = LIMITED if settings.verb == "find" else {}
            command = [sys.executable, "-m", "bench.trainers_child", settings.to_json()]
            errors = Path(folder, "errors.txt")
            with (
                errors.open("wb") as sink,
                child(command, {**ENVIRONMENT, **limited}, sink, folder=ROOT) as process,
            ):
                try:
                    code = process.wait(timeout=PATIENCE)
                except subprocess.TimeoutExpired:
                    raise FailedError(f"it took more than {PATIENCE:.0f} s") from None
            if code:
                text = errors.read_text(encoding="utf-8", errors="replace")
                raise FailedError(reason(text) or f"exit code {code}")
            answer: Record = json.loads(Path(folder, ANSWER).read_text("utf-8"))
        return answer


def reason(text: str) -> str:
    """Return what a process's error output says went wrong, without this machine's folders.

    Args:
        text: all of it.
    """
    return last_error(text).replace(str(ROOT), "")[:MOST_ERROR]
