"""Measures all cells of this folder, each in a process of its own.

    python -m bench.remat.run [PART | PART/CELL ...] [--again]

Without names, all parts. A cell whose result is of today's code is passed over, so that a run
that was stopped goes on where it was. A cell that fails does not keep the others from running.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from bench.harness import ROOT
from bench.remat.records import is_current

PARTS: Final = ("selection", "planning", "emitted", "zoo", "peers", "memory")
"""Modules of this folder, the short ones first."""
PATIENCE: Final = 900.0
"""Seconds after which a cell counts as stuck."""


def cells_of(part: str) -> tuple[str, ...]:
    """Return the names of the cells of a part.

    Args:
        part: one of `PARTS`.
    """
    module = importlib.import_module(f"bench.remat.{part}")
    names: tuple[str, ...] = module.CELLS
    return names


def run_cell(part: str, name: str) -> bool:
    """Measure one cell in a process of its own; return whether that worked.

    Args:
        part: one of `PARTS`.
        name: of the cell.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", "-m", f"bench.remat.{part}", name]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main(
    arguments: Sequence[str] | None = None, *, runner: Callable[[str, str], bool] = run_cell
) -> int:
    """Measure what is missing.

    Args:
        arguments: of the command line.
        runner: measures one cell.

    Returns:
        0, or 1 where a cell failed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--again", action="store_true", help="measure what stands too")
    options = parser.parse_args(arguments)
    every = [(part, name) for part in PARTS for name in cells_of(part)]
    known = {*PARTS, *map("/".join, every)}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no part or cell {unknown[0]!r}: choose from {', '.join(PARTS)}.")
    wanted = [
        cell
        for cell in every
        if not options.names or cell[0] in options.names or "/".join(cell) in options.names
    ]
    missing = [cell for cell in wanted if options.again or not is_current(*cell)]
    print(f"{len(missing)} of {len(wanted)} cells are to be measured", flush=True)
    begin, failed = time.perf_counter(), []
    for place, cell in enumerate(missing, start=1):
        if not runner(*cell):
            failed.append("/".join(cell))
        minutes = (time.perf_counter() - begin) / 60
        print(f"{place} of {len(missing)}, {minutes:.1f} min", flush=True)
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
