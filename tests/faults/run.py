"""Puts one deliberate fault at a time into a copy of the source; the named tests must fail.

Usage: python tests/faults/run.py [NAME ...]
"""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORKERS = 2
LIMIT_SECONDS = 600
FAILED = re.compile(r"^FAILED (\S+?)(?:\[.*)?(?: - .*)?$", re.MULTILINE)


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


def run_tests(source: Path, tests: Iterable[str], *, workers: int = 0) -> tuple[int, set[str], str]:
    """Return pytest's exit code, the tests that failed (without parameters) and its output."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(source),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHOESTRING_FAULT_SOURCE": str(source),
        "COLUMNS": "1000",
    }
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-rfE", f"-n{workers}"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return -1, set(), f"the tests took longer than {LIMIT_SECONDS} s"
    return done.returncode, set(FAILED.findall(done.stdout)), done.stdout + done.stderr


def verdict(fault: Fault) -> str:
    """Return what is wrong with a fault's tests; empty where they all notice it."""
    if (ROOT / "src" / fault.source).read_text(encoding="utf-8").count(fault.old) != 1:
        return f"its text does not occur once in {fault.source}"
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
        return f"pytest ended with {code}: {output.strip()[-300:]}"
    unnoticed = [test for test in fault.tests if test.partition("[")[0] not in failed]
    return f"not noticed by {', '.join(unnoticed)}" if unnoticed else ""


def main(names: list[str]) -> int:
    """Run the faults and print a table; 1 where one goes unnoticed."""
    paths = sorted(path for path in HERE.glob("*.py") if path.name != "run.py")
    faults = [load(path) for path in paths if not names or path.stem in names]
    missing = set(names) - {fault.name for fault in faults}
    if missing or not faults:
        print(f"no such fault: {', '.join(sorted(missing))}", file=sys.stderr)
        return 2

    sound = sorted({test for fault in faults for test in fault.tests})
    code, _, output = run_tests(ROOT / "src", sound, workers=WORKERS)
    if code != 0:
        print(output)
        print("error: the tests do not pass without a fault")
        return 1

    with ThreadPoolExecutor(WORKERS) as pool:
        verdicts = list(pool.map(verdict, faults))
    width = max(len(fault.name) for fault in faults)
    for fault, wrong in zip(faults, verdicts, strict=True):
        print(f"{'UNNOTICED' if wrong else 'noticed':<9}  {fault.name:<{width}}  {fault.promise}")
        if wrong:
            print(f"{'':<9}  {'':<{width}}  {wrong}")
    unnoticed = sum(map(bool, verdicts))
    print(f"{len(faults) - unnoticed} of {len(faults)} faults noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
