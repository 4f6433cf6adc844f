"""Run folders that are made once, and one Chromium for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shoestring.core.run_folder import Entry
from tests.report import browser, runs


@pytest.fixture(scope="session")
def source() -> runs.Made:
    """A small model, profiled and planned."""
    return runs.made()


@pytest.fixture(scope="session")
def log() -> list[Entry]:
    """The log of its training."""
    return runs.entries()


@pytest.fixture
def run_folder(tmp_path: Path, source: runs.Made, log: list[Entry]) -> Callable[..., Path]:
    """Write a whole run folder of a name, with changes to its ``run.json``."""

    def put(name: str = "run", entries: list[Entry] | None = None, **changes: object) -> Path:
        return runs.write(tmp_path / name, source, log if entries is None else entries, **changes)

    return put


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    """A running Chromium; tests that ask for it are skipped where none is installed."""
    if browser.CHROMIUM is None:
        pytest.skip("needs chromium on the PATH (apt-get install chromium)")
    with browser.running(tmp_path_factory.mktemp("chromium")) as found:
        yield found
