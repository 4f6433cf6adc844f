"""Runs a command in this process, in a folder of its own."""

from __future__ import annotations

import dataclasses
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import shoestring
from shoestring.cli import app, models

# A child in another folder must find the same package as this process.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(shoestring.__file__).resolve().parents[1]),
    "OMP_NUM_THREADS": "1",
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> tuple[str, str]:
        """The error and the hint: two lines on stderr after any notes, and nothing else."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 2, self.err
        assert lines[0].startswith("error: ")
        assert lines[1].startswith("hint: ")
        assert len(lines[1]) > len("hint: ")
        return lines[0].removeprefix("error: "), lines[1].removeprefix("hint: ")


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every path below a folder, hidden ones included, with the bytes of its files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what commands set in the process is undone."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in models._QUIET:
        monkeypatch.setenv(name, os.environ.get(name, models._QUIET[name]))
    before, threads = set(sys.modules), torch.get_num_threads()
    torch.set_num_threads(1)
    yield work
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def command(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command; where it fails, it must have left the folder as it was."""

    def run(*arguments: str, code: int = 0) -> Answer:
        before = contents(folder)
        capfd.readouterr()
        found = app.main(arguments)
        sys.stdout.flush()
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        assert found == code, printed.err
        if code:
            assert contents(folder) == before
        return Answer(found, printed.out, printed.err)

    return run


@pytest.fixture
def write(folder: Path) -> Callable[[str, str], Path]:
    """Write a file into the working folder."""

    def put(name: str, text: str) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return put
