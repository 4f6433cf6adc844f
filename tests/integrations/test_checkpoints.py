"""A folder is written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.integrations import checkpoints as module
from shoestring.integrations.checkpoints import (
    MARK,
    checkpoints,
    fault_of,
    latest,
    step_of,
    sweep,
    write_checkpoint,
    write_folder,
)


def saving(text: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text(text)
        (folder / "empty").touch()

    return save


def test_what_is_written_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint-3"
    assert fault_of(target) == "it is not there"
    write_folder(target, saving("one"))
    assert fault_of(target) == ""
    assert (target / "inner" / "weights").read_text() == "one"
    write_folder(target, saving("another"))
    assert (target / "inner" / "weights").read_text() == "another"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-3"]


def test_the_oldest_go_and_names_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-²").mkdir()
    for step in (2, 4, 10):
        write_checkpoint(tmp_path, step, saving(str(step)), keep=2)
    assert [step_of(p) for p in checkpoints(tmp_path)] == [4, 10]
    assert (tmp_path / "checkpoint-best").is_dir()
    assert latest(tmp_path) == (tmp_path / "checkpoint-10", [])


def test_one_that_stands_is_not_written_again(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 2, saving("first"), keep=2)
    write_checkpoint(tmp_path, 2, saving("second"), keep=2)
    weights = tmp_path / "checkpoint-2" / "inner" / "weights"
    assert weights.read_text() == "first"
    weights.write_text("cut")
    assert "another size" in fault_of(tmp_path / "checkpoint-2")
    write_checkpoint(tmp_path, 2, saving("third"), keep=2)
    assert weights.read_text() == "third"


@pytest.mark.parametrize("calls", range(6))
def test_an_end_at_any_moment_leaves_the_old_ones_whole(
    tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for a process that is no more."""

    left = [calls]

    def to_disk(path: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    write_checkpoint(tmp_path, 1, saving("old"), keep=2)
    monkeypatch.setattr(module, "_to_disk", to_disk)
    monkeypatch.setattr(module.shutil, "rmtree", lambda *args, **options: None)  # it is dead
    try:
        write_checkpoint(tmp_path, 2, saving("new"), keep=2)
        whole = 2
    except Killed:
        whole = 2 if (tmp_path / "checkpoint-2").exists() else 1
    monkeypatch.undo()
    assert latest(tmp_path) == (tmp_path / f"checkpoint-{whole}", [])
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"checkpoint-1", "checkpoint-2"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 147904 vs 147792"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    write_checkpoint(tmp_path, 1, saving("old"), keep=1)

    def save(folder: Path) -> None:
        torch.save(torch.ones(3), folder / "optimizer.pt")
        raise error

    with pytest.raises(InputError, match="checkpoint-2 cannot be written") as caught:
        write_checkpoint(tmp_path, 2, save, keep=1)
    assert "what stands there is whole" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1"]
    assert latest(tmp_path)[0] == tmp_path / "checkpoint-1"


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    def save(folder: Path) -> None:
        raise KeyError("a mistake")

    with pytest.raises(KeyError):
        write_folder(tmp_path / "model", save)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_list_is_a_fault(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, saving("old"), keep=1)
    (tmp_path / "checkpoint-1" / MARK).write_text("{")
    assert "cut short" in fault_of(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1" / MARK).write_text('{"schema": "shoestring/checkpoint/1"}')
    assert "lists no files" in fault_of(tmp_path / "checkpoint-1")
