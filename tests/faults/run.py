"""Puts one deliberate fault at a time into a copy of the source; the named tests must fail.

Usage: python tests/faults/run.py [NAME ...]
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORKERS = 2
LIMIT_SECONDS = 600
# Imported once; every run of the tests is forked from there. Never shoestring: its copies differ.
IMPORTED = ["torch", "torch._dynamo", "transformers", "scipy.optimize"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """One deliberate fault, as its file describes it."""

    name: str
    promise: str
    source: str
    old: str
    new: str
    tests: tuple[str, ...]


def load(path: Path) -> Fault:
    """Read a fault's file."""
    fields = runpy.run_path(str(path))
    return Fault(
        name=path.stem,
        promise=fields["PROMISE"],
        source=fields["SOURCE"],
        old=fields["OLD"],
        new=fields["NEW"],
        tests=tuple(fields["TESTS"]),
    )


class Noticed:
    """A plugin of pytest: notes what fails, and runs nothing that can add nothing.

    Args:
        wanted: tests without parameters; once each has failed, the others are not run.
        file: where the names of those that failed are written, with their parameters.
    """

    def __init__(self, wanted: Iterable[str], file: Path) -> None:
        self._open = set(map(without_parameters, wanted))
        self._file = file
        self._failed: list[str] = []

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Pass over further parameters of what has failed."""
        return None if without_parameters(item.nodeid) in self._open else True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed in its call; an error before it proves nothing."""
        if report.failed and report.when == "call":
            self._open.discard(without_parameters(report.nodeid))
            self._failed.append(report.nodeid)
            self._file.write_text("\n".join(self._failed), encoding="utf-8")


def without_parameters(test: str) -> str:
    """Return a test's name without the brackets."""
    return test.partition("[")[0]


def run_tests(source: Path, tests: Iterable[str]) -> tuple[int, list[str], str]:
    """Return pytest's exit code, the tests that failed and its output."""
    with tempfile.TemporaryDirectory() as folder:
        output, failed = Path(folder) / "output", Path(folder) / "failed"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        arguments = (source, list(tests), output, failed)
        process = context.Process(target=run_pytest, args=arguments)
        process.start()
        process.join(LIMIT_SECONDS)
        if process.exitcode is None:
            assert process.pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return -1, [], f"the tests took longer than {LIMIT_SECONDS} s"
        names = failed.read_text(encoding="utf-8").split("\n") if failed.exists() else []
        return (
            process.exitcode or 0,
            names,
            output.read_text(encoding="utf-8", errors="replace"),
        )


def run_pytest(source: Path, tests: list[str], output: Path, failed: Path) -> None:
    """Run pytest in this process, with a copy of the source before anything installed."""
    os.setsid()  # a group of its own, that it can be ended with all it started
    written = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.chdir(ROOT)
    os.environ |= {
        "PYTHONPATH": str(source),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_PROFILE": "first",
        "SHOESTRING_FAULT_SOURCE": str(source),
    }
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(source), str(ROOT)]
    # A plugin of pytest that came in with what is imported already shows no values: no matter.
    quiet = "-Wignore::pytest.PytestAssertRewriteWarning"
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", quiet]
    sys.exit(pytest.main([*options, *tests], plugins=[Noticed(tests, failed)]))


def verdict(fault: Fault) -> tuple[str, list[str]]:
    """Return what is wrong with a fault's tests, empty where all notice it, and what failed."""
    if (ROOT / "src" / fault.source).read_text(encoding="utf-8").count(fault.old) != 1:
        return f"its text does not occur once in {fault.source}", []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src", source, ignore=ignore)
        file = source / fault.source
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        code, failed, output = run_tests(source, fault.tests)
    # Code 1 means that tests ran and failed; a fault that only breaks an import proves nothing.
    if code not in (0, 1):
        return f"pytest ended with {code}: {output.strip()[-300:]}", failed
    names = set(map(without_parameters, failed))
    unnoticed = [test for test in fault.tests if without_parameters(test) not in names]
    return f"not noticed by {', '.join(unnoticed)}" if unnoticed else "", failed


def main(names: list[str]) -> int:
    """Run the faults and print a table; 1 where one goes unnoticed."""
    paths = sorted(path for path in HERE.glob("*.py") if path.name != "run.py")
    faults = [load(path) for path in paths if not names or path.stem in names]
    missing = set(names) - {fault.name for fault in faults}
    if missing or not faults:
        print(f"no such fault: {', '.join(sorted(missing))}", file=sys.stderr)
        return 2

    with ThreadPoolExecutor(WORKERS) as pool:
        verdicts = list(pool.map(verdict, faults))
        # In the same kind of process as with a fault: what fails there of itself notices any.
        sound = sorted({test for _, failed in verdicts for test in failed})
        shares = [sound[share::WORKERS] for share in range(min(WORKERS, len(sound)))]
        for code, _, output in pool.map(run_tests, [ROOT / "src"] * len(shares), shares):
            if code != 0:
                print(output)
                print("error: the tests do not pass without a fault")
                return 1
    width = max(len(fault.name) for fault in faults)
    for fault, (wrong, _) in zip(faults, verdicts, strict=True):
        print(f"{'UNNOTICED' if wrong else 'noticed':<9}  {fault.name:<{width}}  {fault.promise}")
        if wrong:
            print(f"{'':<9}  {'':<{width}}  {wrong}")
    unnoticed = sum(bool(wrong) for wrong, _ in verdicts)
    print(f"{len(faults) - unnoticed} of {len(faults)} faults noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
