"""What the operating system says of this computer. The only file with POSIX-only calls."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path

_UNLIMITED = 2**60


def cpu_name() -> str:
    """Return the processor's model name, as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def total_memory() -> int | None:
    """Return the bytes of main memory, or those that a container may use; None if unknown."""
    found = _memory_row("MemTotal")
    if found is None and hasattr(os, "sysconf"):
        with contextlib.suppress(ValueError, OSError):
            found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if found is None and sys.platform == "win32":
        found = _windows_memory()[0]
    limit = _cgroup_limit()
    return min(found, limit) if found is not None and limit is not None else found or limit


def free_memory() -> int | None:
    """Return the bytes of main memory that this process can still take; None if unknown.

    The least of what the system has available, what the container's limit leaves and what
    the process's own limits (address space, data) leave.
    """
    available = _memory_row("MemAvailable")
    if available is None and sys.platform == "win32":
        available = _windows_memory()[1]
    if available is None and sys.platform == "darwin":
        available = total_memory()  # what is free without swapping is not told there
    bounds = [available, _cgroup_free(), *_rlimits_free()]
    known = [bound for bound in bounds if bound is not None]
    return max(0, min(known)) if known else None


def busy_seconds() -> float | None:
    """Return the processor time that all processes have used since the start; None if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        user, nice, system = Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:4]
        ticks = int(user) + int(nice) + int(system)
        return float(ticks / os.sysconf("SC_CLK_TCK"))
    return None


def _memory_row(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return None


def _status_row(name: str) -> int:
    """Return a size of this process in bytes; 0 where it is not told."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0]) * 1024
    return 0


def _rlimits_free() -> list[int]:
    """Return what the process's own limits leave."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    left = []
    for limit, used in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft = resource.getrlimit(limit)[0]
        if 0 <= soft < _UNLIMITED:
            left.append(soft - _status_row(used))
    return left


def _cgroup_folders() -> list[Path]:
    """Return the folders of this process's memory groups, innermost first."""
    folders = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root = Path("/sys/fs/cgroup")
            elif "memory" in controllers.split(","):
                root = Path("/sys/fs/cgroup/memory")
            else:
                continue
            here = root / path.lstrip("/")
            folders += [p for p in (here, *here.parents) if p == root or root in p.parents]
    return folders


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        value = int(path.read_text("ascii"))
        return value if value < _UNLIMITED else None
    return None


def _cgroup_rows() -> list[tuple[int, int]]:
    """Return (limit, used) of every memory group that limits this process."""
    rows = []
    for folder in _cgroup_folders():
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(folder / limit_name)
            if limit is not None:
                used = _number(folder / used_name) or 0
                rows.append((limit, max(0, used - _reclaimable(folder, cache_name))))
    return rows


def _reclaimable(folder: Path, name: str) -> int:
    """Return bytes of the file cache that count as used and are given back on demand."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text("ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def _cgroup_limit() -> int | None:
    return min((limit for limit, _ in _cgroup_rows()), default=None)


def _cgroup_free() -> int | None:
    return min((limit - used for limit, used in _cgroup_rows()), default=None)


def _windows_memory() -> tuple[int | None, int | None]:
    """Return total and available bytes from GlobalMemoryStatusEx."""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available")),
            *((f"rest{i}", ctypes.c_ulonglong) for i in range(5)),
        )

    library = getattr(ctypes, "windll", None)
    status = Status()
    status.length = ctypes.sizeof(Status)
    if library is None or not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status.total), int(status.available)
