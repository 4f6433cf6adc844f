"""A result of a module hangs on what importing it runs, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.harness import source_hash
from bench.modules import imported


def names(module: str, *without: str) -> set[str]:
    """Return the names of the files that a module imports."""
    return {path.name for path in imported(module, without=without)}


def test_what_an_optimizer_imports() -> None:
    found = names("zeroth.sgd")
    assert {"sgd.py", "engine.py", "directions.py", "streams.py", "mode.py"} <= found
    assert {"streams_native.py", "streams_numba.py"} <= found  # by a room's name; when first needed
    assert not {"jaguar.py", "survey.py", "square.py", "errors.py"} & found
    assert "mode.py" not in names("zeroth.sgd", "zeroth.twin")
    assert {"jaguar.py", "polar.py"} <= names("zeroth.jaguar")


def test_a_hash_is_of_the_files_that_are_imported(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    (room / "one.py").write_text("from shoestring.room.two import x\n", "utf-8")
    (room / "two.py").write_text("def f():\n    from shoestring.room import three\n", "utf-8")
    for name in ("three", "four"):
        (room / f"{name}.py").write_text("", "utf-8")
    assert {path.stem for path in imported("room.one", source=tmp_path)} == {"one", "two", "three"}
    first = source_hash(["room.one"], tmp_path)
    (room / "four.py").write_text("x = 1\n", "utf-8")
    assert source_hash(["room.one"], tmp_path) == first
    (room / "three.py").write_text("x = 1\n", "utf-8")
    assert source_hash(["room.one"], tmp_path) != first


def test_an_unknown_module() -> None:
    with pytest.raises(ValueError, match=r"there is no module 'zeroth.nothing'"):
        source_hash(["zeroth.nothing"])
