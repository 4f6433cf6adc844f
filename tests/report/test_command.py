"""The command report: where the page goes, and bad input in two lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring.cli import app
from tests.cli.conftest import contents


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, list[str]]]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, list[str]]:
        capfd.readouterr()
        code = app.main(["report", *arguments])
        out, err = capfd.readouterr()
        return code, out, err.splitlines()

    return run


def test_one_run_has_its_page_in_its_folder(
    command: Callable[..., tuple[int, str, list[str]]], run_folder: Callable[..., Path]
) -> None:
    folder = run_folder("run")
    for _ in range(2):
        assert command("run") == (0, "run/report.html\n", [])
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_several_runs_have_theirs_in_the_working_folder(
    command: Callable[..., tuple[int, str, list[str]]],
    run_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    run_folder("a"), run_folder("b")
    assert command("a", "b") == (0, "report.html\n", [])
    assert command("a", "b", "--out", "a/both.html") == (0, "a/both.html\n", [])
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "a/both.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ((), "needs the folder of a run", "--help"),
        (("nowhere",), "there is no file nowhere/run.json", "check the path"),
        (("empty",), "empty is not the folder of a run", "train --out"),
        (("damaged",), "damaged/run.json is cut short", "write the run again"),
        (("odd",), "odd/run.json is damaged: it lacks 'budget'", "again"),
        (("run", "run/"), "given twice", "once"),
        (("run", "empty"), "empty is not the folder of a run", "train --out"),
        (("run", "--out", "gone/page.html"), "cannot be written", "existing folder"),
        (("run", "--out", "run/run.json"), "is there already, and is no report", "--out"),
        (("run", "--out", "empty"), "cannot be written", "name a file"),
        (("run", "--colour", "red"), "--colour", "shoestring report --help"),
    ],
)
def test_bad_input_is_two_lines_and_changes_nothing(
    command: Callable[..., tuple[int, str, list[str]]],
    run_folder: Callable[..., Path],
    tmp_path: Path,
    arguments: tuple[str, ...],
    error: str,
    hint: str,
) -> None:
    folder = run_folder("run")
    for name in ("empty", "damaged", "odd"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged/run.json").write_text((folder / "run.json").read_text()[:200])
    (tmp_path / "odd/run.json").write_text('{"schema": "shoestring/run/1"}')
    before = contents(tmp_path)
    code, out, lines = command(*arguments)
    assert (code, out, len(lines)) == (2, "", 2)
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["altair", "vl_convert"])
def test_a_missing_package_is_named(
    command: Callable[..., tuple[int, str, list[str]]],
    run_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    run_folder("run")
    monkeypatch.setitem(sys.modules, name, None)
    code, _, lines = command("run")
    assert code == 2
    assert lines == [
        "error: the report needs the packages altair and vl-convert-python.",
        "hint: pip install 'shoestring[report]'.",
    ]


def test_help_needs_neither_torch_nor_altair() -> None:
    code = (
        "import sys; from shoestring.cli.app import main; main(['report', '--help'])\n"
        "sys.exit(int(bool({'torch', 'altair'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
