"""What measures cells of one part in a process of its own."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

from bench.harness import one_thread
from bench.remat.records import Figures, sources, write


def main(
    part: str,
    cells: Sequence[str],
    measure: Callable[[str], Figures],
    arguments: Sequence[str] | None = None,
) -> None:
    """Measure cells and write their results.

    Args:
        part: which of the measurements.
        cells: names of all its cells.
        measure: returns the figures of a cell.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m bench.remat.{part}")
    parser.add_argument("cells", nargs="+", metavar="CELL", help=", ".join(cells))
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.cells if name not in cells]:
        parser.error(f"there is no cell {unknown[0]!r}: choose from {', '.join(cells)}.")
    one_thread()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in options.cells:
        before, begin = sources(part), time.perf_counter()
        figures = measure(name)
        write(part, name, figures, made_with=before, place=cells.index(name))
        print(f"{part}/{name}: {time.perf_counter() - begin:.0f} s", flush=True)
