"""Run a command on two processes that talk over the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import shoestring

ROOT = Path(__file__).parents[1]
SOURCE = str(Path(shoestring.__file__).resolve().parents[1])


def run_on_two(words: Callable[[int], Sequence[str]], folder: Path, seconds: float = 150) -> None:
    """Run Python on two processes, and end both whatever happens.

    Args:
        words: after ``python``, by the process's rank.
        folder: where they run.
        seconds: that they may take.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((SOURCE, str(ROOT))),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-W", "ignore", *words(rank)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text
