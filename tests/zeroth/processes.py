"""Workers as forks of one process, which has imported and compiled everything they need.

They talk over the loopback interface. Whatever happens, each process is ended by its id.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch.distributed as dist

from tests.two import ROOT, SOURCE

HERE = hasattr(os, "fork") and dist.is_available() and dist.is_gloo_available()
"""Whether there can be such workers."""

SECONDS = 100
"""That all workers of a test may take, on a busy machine."""

Fork = Callable[[Callable[[], object]], int]


def run(module: str, folder: Path) -> None:
    """Run a module that forks workers, in a process group of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((SOURCE, str(ROOT))),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text = process.communicate(timeout=SECONDS)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, text


@contextlib.contextmanager
def forks() -> Iterator[Fork]:
    """Give a function that forks a worker and returns its id; all must end well, or are killed."""
    running: list[int] = []

    def fork(work: Callable[[], object]) -> int:
        sys.stdout.flush()
        process = os.fork()
        if process:
            running.append(process)
            return process
        code = 1
        try:
            work()
            code = 0
        except Exception:  # noqa: BLE001 - the worker ends here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    try:
        yield fork
        while running:
            _, status = os.waitpid(running[0], 0)
            process = running.pop(0)
            if status and status != signal.SIGKILL:  # that one was killed on purpose
                raise SystemExit(f"worker {process} ended with {status}")
    finally:
        for process in running:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def meet(store: Path, rank: int, count: int) -> None:
    """Form a group of all workers that name the same file."""
    limit = dt.timedelta(seconds=SECONDS / 2)
    dist.init_process_group("gloo", store.as_uri(), rank=rank, world_size=count, timeout=limit)


def wait_for(path: Path) -> None:
    """Wait until there is a file."""
    end = time.monotonic() + SECONDS / 2
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"there is no {path.name}")
        time.sleep(0.01)
