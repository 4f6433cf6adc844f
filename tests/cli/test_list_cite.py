"""The command line as a user meets it: output, messages, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from shoestring import __version__, catalog
from shoestring.cli import app, listing
from shoestring.core import InfeasibleError


def shoestring(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoestring", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def test_list_names_every_row_on_stdout() -> None:
    done = shoestring("list")
    assert (done.returncode, done.stderr) == (0, "")
    for row in catalog.rows():
        assert any(line.split()[:1] == [row.name] for line in done.stdout.splitlines())
        assert row.summary in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_list_as_json_is_the_catalogue() -> None:
    done = shoestring("list", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == "shoestring/catalogue/1"
    assert [row["name"] for row in document["rows"]] == [row.name for row in catalog.rows()]
    (lora,) = (row for row in document["rows"] if row["name"] == "lora")
    assert lora["paper"]["arxiv"] == "2106.09685"
    assert (done.returncode, done.stderr) == (0, "")


def test_cite_prints_bibtex() -> None:
    done = shoestring("cite", "lora")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == catalog.cite("lora") + "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cite", "loar"), ("no 'loar'", "did you mean lora?")),
        (("cite",), ("name", "see shoestring cite --help.")),
        (("cite", "lora", "again"), ("again", "see shoestring cite --help.")),
        (("list", "--colour"), ("--colour", "see shoestring list --help.")),
        (("frobnicate",), ("frobnicate", "see shoestring --help.")),
        (("--frobnicate",), ("--frobnicate", "see shoestring --help.")),
    ],
)
def test_a_wrong_command_is_answered_in_two_lines_and_code_2(
    arguments: tuple[str, ...], words: tuple[str, str]
) -> None:
    done = shoestring(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert words[0] in error.lower()
    assert words[1] in hint


def test_help_names_the_commands_and_the_version_is_the_packages() -> None:
    done = shoestring("--help")
    assert done.returncode == 0
    for name, _, line in app.COMMANDS:
        assert name in done.stdout
        assert line in done.stdout
    assert shoestring("--version").stdout.strip() == __version__
    assert shoestring().stdout == done.stdout


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:[34]\d|9\d)(?:;\d+)*m")


def test_no_color_takes_the_colour_out() -> None:
    assert COLOUR.search(shoestring("--help", FORCE_COLOR="1", TERM="xterm").stdout)
    plain = shoestring("--help", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1").stdout
    assert not COLOUR.search(plain)
    assert "\x1b" not in shoestring("list", FORCE_COLOR="1").stdout


def test_an_infeasible_budget_has_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> str:
        raise InfeasibleError("no plan fits.", hint="allow lora.")

    monkeypatch.setattr(listing, "_as_table", refuse)
    assert app.main(["list"]) == 3
    assert capsys.readouterr().err == "error: no plan fits.\nhint: allow lora.\n"


def test_an_interrupt_is_code_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> str:
        signal.raise_signal(signal.SIGINT)
        return ""

    monkeypatch.setattr(listing, "_as_table", interrupt)
    assert app.main(["list"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes")
# What fits into the buffer is written when the process ends, the rest before.
@pytest.mark.parametrize("words", [("list",), ("cite", "remat")], ids=" ".join)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_no_error(unbuffered: str, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "shoestring", *words],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_cyclopts_is_answered_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cyclopts", None)
    assert app.main(["list"]) == 2
    assert "pip install 'shoestring[cli]'" in capsys.readouterr().err
