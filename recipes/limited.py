"""Processes whose private memory the kernel limits, and that end with what started them.

Only the standard library is imported here.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn


@contextlib.contextmanager
def child(
    command: Sequence[str],
    environment: Mapping[str, str],
    errors: BinaryIO,
    *,
    stdout: int = subprocess.DEVNULL,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that does not outlive the block, whatever happens in it.

    Args:
        command: its words.
        environment: variables beside those of this process.
        errors: takes its error output.
        stdout: where its output goes, as for `subprocess.Popen`.
        folder: that it starts in; by default this process's.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=errors,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the other
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def unwind_on_signals() -> None:
    """Let SIGINT and SIGTERM unwind this process, which ends its child and removes its folders."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)


def _exit(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def enforce(limit: int) -> None:
    """Let the kernel refuse this process any private memory beyond a limit.

    Args:
        limit: bytes of RLIMIT_DATA.
    """
    import mmap
    import resource  # POSIX only, and so not imported with the file

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        mmap.mmap(-1, limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return
    sys.exit("this system does not enforce RLIMIT_DATA, so that nothing would be shown.")


def read_status(field: str) -> int:
    """Return a size from the kernel's account of this process, in bytes.

    Args:
        field: as in ``VmData``.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def last_error(text: str) -> str:
    r"""Return the line of a process's standard error that says what went wrong.

    Args:
        text: all of it.

    Example:
        >>> last_error("Traceback ...\n  File x\nValueError: no.\nhint: yes\n")
        'ValueError: no.'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    if named:
        return named[-1]
    rest = [line for line in lines if not line.startswith("USDT:")]
    return rest[-1] if rest else ""
