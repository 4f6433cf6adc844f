"""Runs what has not been run of the comparison, one JSON file a run.

    python -m bench.zeroth.finetune [MODE ...] [--methods NAME ...] [--metric loss|accuracy]
                                    [--worker K/N]

What is there is not run again, so an end in the middle loses one run at most. With several workers
each takes every N-th pair of method and mode.
"""

from __future__ import annotations

import argparse
import sys

from bench.harness import one_thread
from bench.zeroth.finetune.methods import METHODS
from bench.zeroth.finetune.runs import GOALS
from bench.zeroth.finetune.search import search
from bench.zeroth.finetune.task import MODES


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("modes", nargs="*", default=list(MODES), metavar="MODE")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--metric", choices=GOALS, default="loss")
    parser.add_argument("--worker", default="1/1", metavar="K/N")
    options = parser.parse_args()
    one_thread()
    number, workers = map(int, options.worker.split("/"))
    pairs = [(m, mode) for mode in options.modes for m in options.methods]
    pairs = [(m, mode) for m, mode in pairs if mode in METHODS[m].modes]
    for method, mode in pairs[number - 1 :: workers]:
        search(method, mode, options.metric)
    return 0


if __name__ == "__main__":
    sys.exit(main())
