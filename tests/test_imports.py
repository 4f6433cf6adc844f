"""Importing, listing and citing need no torch; names are found when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shoestring
from shoestring import catalog

SOURCE = Path(shoestring.__file__)
HEAVY = ("torch", "transformers", "accelerate", "peft", "numba", "scipy")


def modules_after(code: str) -> set[str]:
    """Return the heavy modules that are loaded when a fresh interpreter has run the code."""
    script = f"{code}\nimport sys\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def run_main(*arguments: str) -> str:
    return (
        "from shoestring.cli.app import main\n"
        f"try:\n    code = main({list(arguments)!r})\n"
        "except SystemExit as stop:\n    code = stop.code\n"
        "assert not code, code"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import shoestring; dir(shoestring)",
        "import shoestring; shoestring.cite('lora')",
        "from shoestring import Budget, Profile, Machine; Budget(memory='1GiB')",
        run_main("--help"),
        run_main("--version"),
        run_main("list"),
        run_main("list", "--json"),
        run_main("cite", "remat"),
        run_main("list", "--help"),
    ],
)
def test_torch_is_not_imported(code: str) -> None:
    assert modules_after(code) == set()


def test_the_check_itself_sees_torch() -> None:
    assert "torch" in modules_after("import torch")


@pytest.mark.parametrize("name", shoestring.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(shoestring, name) is getattr(shoestring, name)
    assert name in dir(shoestring)


@pytest.mark.parametrize("name", shoestring._ROOMS)
def test_every_room_is_there(name: str) -> None:
    assert getattr(shoestring, name).__name__ == f"shoestring.{name}"


def test_every_room_on_disk_is_named() -> None:
    found = {p.stem for p in SOURCE.parent.iterdir() if (p / "__init__.py").exists()}
    found |= {p.stem for p in SOURCE.parent.glob("*.py") if not p.stem.startswith("__")}
    assert found - {"cli", "catalog"} == set(shoestring._ROOMS)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trainer'"):
        shoestring.trainer  # noqa: B018


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    tree = ast.parse(SOURCE.read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == {*shoestring.__all__, *shoestring._ROOMS}
    for name in shoestring.__all__:
        assert seen[name] == catalog.find(name).path


def test_the_citation_file_has_the_packages_version() -> None:
    citation = SOURCE.parents[2] / "CITATION.cff"
    assert f"\nversion: {shoestring.__version__}\n" in citation.read_text()
