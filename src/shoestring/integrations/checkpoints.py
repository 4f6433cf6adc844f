"""Checkpoints that are complete or absent, whatever happens while one is written.

A checkpoint is written under another name and takes its own last, when its files and a list of
them are on disk. What a killed process left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from shoestring.core.documents import read_document, write_text
from shoestring.core.errors import InputError

SCHEMA: Final = "shoestring/checkpoint/1"
MARK: Final = "complete.json"
_PREFIX: Final = "checkpoint-"
_STAGING: Final = ".writing-"


def write_folder(target: Path, save: Callable[[Path], None]) -> None:
    """Let a folder be written, whole or not at all.

    Args:
        target: the folder; one that is there already is replaced.
        save: fills the folder it is called with.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    staging = target.parent / f"{_STAGING}{secrets.token_hex(8)}"
    fresh = staging / target.name
    try:
        fresh.mkdir(parents=True)
        save(fresh)
        files = {str(p.relative_to(fresh)): p.stat().st_size for p in _files(fresh)}
        for path in _files(fresh):
            _to_disk(path)
        write_text(fresh / MARK, json.dumps({"schema": SCHEMA, "files": files}, indent=1) + "\n")
        _to_disk(fresh)
        if target.exists():
            target.rename(staging / "old")
        fresh.rename(target)
        _to_disk(target.parent)
    except InputError:
        raise
    except Exception as error:
        # Torch and safetensors raise errors of their own where a disk is full.
        if not _is_of_disk(error):
            raise
        raise InputError(
            f"{target.name} cannot be written ({_reason(error)}).",
            hint=f"free some space on the disk of {target.parent}; what stands there is whole.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_checkpoint(folder: Path, step: int, save: Callable[[Path], None], *, keep: int) -> Path:
    """Write one checkpoint and remove the oldest.

    Args:
        folder: where the checkpoints are.
        step: its optimizer step.
        save: fills the folder it is called with.
        keep: checkpoints that stay, this one included; at least 1.

    Returns:
        Its folder. One of that step that is there already stays as it is.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    target = folder / f"{_PREFIX}{step}"
    if not fault_of(target):
        return target
    sweep(folder)
    write_folder(target, save)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders that are named as checkpoints, the oldest first.

    Args:
        folder: where they are.
    """
    found = [p for p in folder.glob(f"{_PREFIX}*") if p.is_dir() and step_of(p) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def step_of(path: Path) -> int | None:
    """Return the step in a checkpoint's name, or None.

    Args:
        path: a folder.
    """
    digits = path.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() and digits.isascii() else None


def fault_of(path: Path) -> str:
    """Return why a checkpoint cannot be gone on from, in a few words; empty where it can.

    Args:
        path: its folder.
    """
    if not path.is_dir():
        return "it is not there"
    if not (path / MARK).is_file():
        return f"it has no {MARK}"
    try:
        files = read_document(path / MARK, SCHEMA).get("files")
    except InputError as error:
        return error.message
    if not isinstance(files, dict):
        return f"its {MARK} lists no files"
    for name, size in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has another size"
    return ""


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint, and what is wrong with those after it.

    Args:
        folder: where the checkpoints are.
    """
    faults: list[str] = []
    for path in reversed(checkpoints(folder)):
        fault = fault_of(path)
        if not fault:
            return path, faults
        faults.append(f"{path.name} is passed over: {fault}")
    return None, faults


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left behind.

    Args:
        folder: where the checkpoints are; no other process may be writing there.
    """
    for path in folder.glob(f"{_STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    with contextlib.suppress(PermissionError):  # folders cannot be opened everywhere
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_of_disk(error: Exception) -> bool:
    words = str(error).lower()
    signs = ("no space", "disk quota", "file write failed", "file too large", "unexpected pos")
    return isinstance(error, OSError) or any(sign in words for sign in signs)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "the disk takes no more"
