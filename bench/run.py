"""Runs the measurements whose figures README and docs show, then renders those pages.

    python -m bench.run [SCENARIO ...]

Without names, all of them, in an order in which each finds what it builds on. A scenario that
fails does not keep the others from running. What stands and whose code has not changed is kept
by the scenarios that have many results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from bench import render
from bench.harness import RESULTS, ROOT

SEED: Final = 2026
"""Of the architectures drawn for the honesty comparison."""

SCENARIOS: Final[dict[str, tuple[str, ...]]] = {
    "honesty": ("-m", "bench.honesty"),
    "honesty-random": ("-m", "bench.honesty", "--random", str(SEED)),
    "peers": ("-m", "bench.peers"),
    "trace-speed": ("-m", "bench.trace_speed"),
    "forwarded": ("-m", "bench.forwarded"),
    "counters": ("-m", "bench.counters.correctness"),
    "counters-speed": ("-m", "bench.counters.overhead"),
    "roofline": ("-m", "bench.roofline"),
    "roofline-random": ("-m", "bench.roofline", "--random", str(SEED)),
    "techniques": ("-m", "bench.techniques"),
    "trainers": ("-m", "bench.trainers"),
    "remat-solvers": ("-m", "bench.remat_solvers"),
    "remat": ("-m", "bench.remat.run"),
    "attacks": ("-m", "bench.attacks.run"),
    "zeroth-speed": ("-m", "bench.zeroth.speed"),
    "zeroth-memory": ("-m", "bench.zeroth.memory"),
    "zeroth-samplers": ("-m", "bench.zeroth.samplers"),
    "zeroth-targets": ("-m", "bench.zeroth.targets"),
    "zeroth-suggested": ("-m", "bench.zeroth.suggested"),
    "zeroth-finetune": ("-m", "bench.zeroth.finetune"),
    "demo": ("recipes/demo.py", "--out", str(RESULTS)),
}
"""Words after ``python``, by scenario."""

SEVERAL_THREADS: Final = {"demo", "forwarded"}
"""Scenarios that set their threads themselves."""


def run(name: str) -> int:
    """Run one scenario in a process of its own.

    Args:
        name: one of `SCENARIOS`.

    Returns:
        Its exit code.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
    }
    if name not in SEVERAL_THREADS:
        environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, *SCENARIOS[name]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main(
    arguments: Sequence[str] | None = None,
    *,
    runner: Callable[[str], int] = run,
    draw: Callable[[list[str]], int] = render.main,
) -> int:
    """Run scenarios and render.

    Args:
        arguments: of the command line.
        runner: runs one scenario and returns its exit code.
        draw: renders the pages.

    Returns:
        0, or 1 where a scenario failed or a page could not be rendered.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.scenarios if name not in SCENARIOS]:
        parser.error(f"there is no scenario {unknown[0]!r}: choose from {', '.join(SCENARIOS)}.")
    failed = []
    for name in options.scenarios or SCENARIOS:
        print(f"--- {name}", flush=True)
        if runner(name):
            failed.append(name)
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return int(bool(failed) or draw([]) != 0)


if __name__ == "__main__":
    sys.exit(main())
