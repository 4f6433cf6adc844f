"""The virtual environment of the other libraries of attacks, made on first use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.counters.environment import requirements
from bench.harness import ROOT

FOLDER: Final = ROOT / ".bench" / "attacks" / "peers"
"""Where the environment is made; git ignores it."""
REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
CONSTRAINTS: Final = ROOT / "constraints.txt"

_PEERS: Final = ("torchattacks", "adversarial-robustness-toolbox")
_VERSIONS: Final = (
    "import importlib.metadata as m, json, sys; "
    "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
)


def python_of(folder: Path = FOLDER) -> Path:
    """Return the environment's interpreter, and make the environment where it is missing.

    Args:
        folder: of the environment.

    Raises:
        CalledProcessError: something does not install.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if not _versions(python):
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        install += ["-c", str(CONSTRAINTS)]
        subprocess.run([*install, "torch", "numpy", "setuptools"], check=True)
        subprocess.run([*install, "--no-deps", *requirements(REQUIREMENTS)], check=True)
    return python


def versions(folder: Path = FOLDER) -> dict[str, str]:
    """Return the versions of the other libraries, by name.

    Args:
        folder: of the environment.
    """
    return _versions(python_of(folder))


def _versions(python: Path) -> dict[str, str]:
    command = [str(python), "-c", _VERSIONS, *_PEERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {}
    found: dict[str, str] = json.loads(done.stdout)
    return found
