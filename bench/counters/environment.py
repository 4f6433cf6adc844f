"""The virtual environment of the other counters, made on first use.

Some of them replace parts of torch or ask for much; none of them is installed beside ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.harness import ROOT

FOLDER: Final = ROOT / ".bench" / "counters"
"""Where the environment is made; git ignores it."""
REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
CONSTRAINTS: Final = ROOT / "constraints.txt"
PATIENCE: Final = 900.0
"""Seconds after which an installation counts as stuck."""

_BASE: Final = ("torch", "numpy", "setuptools")
_VERSIONS: Final = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


def requirements(path: Path = REQUIREMENTS) -> list[str]:
    """Return what is to be installed.

    Args:
        path: of a list of requirements, one a line.
    """
    lines = [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line]


def name_of(requirement: str) -> str:
    """Return the distribution that a requirement names.

    Args:
        requirement: with or without a version.
    """
    return requirement.partition("==")[0]


class Environment:
    """A virtual environment with the other counters.

    Args:
        folder: of the environment; made where it is missing.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def prepare(self) -> dict[str, str]:
        """Install what is missing.

        Returns:
            Distribution -> why it is not installed, for those that are not.
        """
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
        wanted = requirements()
        have = self.versions([*_BASE, *map(name_of, wanted)])
        if not all(name in have for name in _BASE) and (reason := self._install(*_BASE)):
            # All of them build on these.
            return {name_of(w): reason for w in wanted if name_of(w) not in have}
        failed: dict[str, str] = {}
        for requirement in wanted:
            name, _, version = requirement.partition("==")
            # One of them writes its post-release the old way.
            found = have.get(name, "").replace("-", ".post")
            stands = found == version if version else bool(found)
            if not stands and (reason := self._install(requirement)):
                failed[name] = reason
        return failed

    def versions(self, names: list[str]) -> Mapping[str, str]:
        """Return the versions of what is installed.

        Args:
            names: of distributions.
        """
        done = subprocess.run(
            [str(self.python), "-c", _VERSIONS, *names],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def _install(self, *words: str) -> str:
        """Install distributions; return why that failed, or nothing."""
        # Without isolation, since one of them builds with the torch that is there.
        command = [str(self.python), "-m", "pip", "install", "-q", "--no-build-isolation"]
        command += ["--disable-pip-version-check", "-c", str(CONSTRAINTS), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {PATIENCE:.0f} s"
        if not done.returncode:
            return ""
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        said = (errors or [f"exit code {done.returncode}"])[-1].removeprefix("ERROR: ")
        return said.replace(str(ROOT), "")[:200]
