"""A run's folder is whole at any time, and a damaged one says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from shoestring.core.errors import InputError
from shoestring.core.run_folder import Entry, Memory, Run, RunFolder, Timeline

RUN = Run(
    model="bert",
    task="classification",
    command="shoestring train bert",
    seed=0,
    started="2026-01-31T12:00:00Z",
    status="running",
    steps=10,
    step=0,
    machine="this",
    versions={"torch": "2.13.0"},
    data={"train": "100 rows"},
    budget=2**30,
    plan={"schema": "shoestring/plan/1"},
    measured={"peak": 5.0},
)
MEMORY = Memory(["forward", "backward"], {"parameters": [4, 4], "gradients": [0, 4]}, 8)
TIMELINE = Timeline(MEMORY, MEMORY, [{"path": "layer", "parameters": 4}])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not folder.exists()
    folder.write(RUN)
    folder.write(dataclasses.replace(RUN, status="finished", step=10))
    folder.write_timeline(TIMELINE)
    assert folder.exists()
    assert folder.read() == dataclasses.replace(RUN, status="finished", step=10)
    assert folder.timeline() == TIMELINE


def test_the_log_grows_and_is_cut(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.log() == []
    entries = [Entry(step, "train", {"loss": 1 / step}) for step in (1, 2, 3)]
    for entry in entries:
        folder.append(entry)
    folder.append(Entry(3, "eval", {"loss": math.nan}))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "kind": "tra')
    *read, last = folder.log()
    assert read == entries
    assert math.isnan(last.values["loss"])
    folder.cut(2)
    assert folder.log() == entries[:2]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"status": "odd"}, "status"),
        ({"step": "3"}, "'step'"),
        ({"seed": True}, "'seed'"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"measured": {"peak": "x"}}, "'measured'"),
        ({"data": {"train": 3}}, "'data'"),
    ],
)
def test_a_damaged_run_is_refused(tmp_path: Path, change: dict[str, object], word: str) -> None:
    folder = RunFolder(tmp_path)
    folder.write(RUN)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=word):
        folder.read()


def test_a_damaged_timeline_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    ragged = dataclasses.replace(MEMORY, phases=["forward"])
    folder.write_timeline(dataclasses.replace(TIMELINE, plain=ragged))
    with pytest.raises(InputError, match="differ in length"):
        folder.timeline()
    with pytest.raises(InputError, match="not the folder of a run"):
        folder.read()
    with pytest.raises(InputError, match="no file"):
        RunFolder(tmp_path / "nowhere").read()
