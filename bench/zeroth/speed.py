"""Time of a step beside its two forwards, MeZO's four passes and torchzero.

    python -m bench.zeroth.speed [NAME ...]

Processor time of one thread, in turns, on a GPT of 10 million weights with 64 tokens a row.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Callable
from typing import Final

import torch

from bench.harness import Result, interleave, make_result, one_thread, source_hash, write_result
from bench.zeroth.gpt import made
from bench.zeroth.mezo import MeZO
from shoestring.zeroth import ZOSGD

DEPENDS: Final = ("zeroth.sgd",)
ROUNDS: Final = {1: 41, 8: 15}
"""Samples of each side, by rows of the batch."""
Step = Callable[[], object]


def two_forwards(rows: int) -> Step:
    """Return what a step cannot do without.

    Args:
        rows: of the batch.
    """
    _, closure = made(rows)

    def run() -> None:
        with torch.no_grad():
            closure()
            closure()

    return run


def clean(rows: int) -> Step:
    """Return a step of ours that leaves the weights as they are to be used.

    Args:
        rows: of the batch.
    """
    model, closure = made(rows)
    optimizer = ZOSGD(model.parameters(), lr=1e-6)
    return lambda: optimizer.step(closure)


def pending(rows: int) -> Step:
    """Return a step of ours that leaves the weights perturbed for the next one.

    Args:
        rows: of the batch.
    """
    model, closure = made(rows)
    optimizer = ZOSGD(model.parameters(), lr=1e-6, pending=True)
    return lambda: optimizer.step(closure)


def twin(rows: int) -> Step:
    """Return a step of ours that evaluates both sides in one batch.

    Args:
        rows: of the batch.
    """
    model, closure = made(rows)
    optimizer = ZOSGD(model.parameters(), lr=1e-6, directions="rank1", model=model, forward="twin")
    return lambda: optimizer.step(closure)


def four_passes(rows: int) -> Step:
    """Return a step of MeZO as its published program makes it.

    Args:
        rows: of the batch.
    """
    model, closure = made(rows)
    optimizer = MeZO(model.parameters(), lr=1e-6)
    return lambda: optimizer.step(closure)


def torchzero(rows: int) -> Step:
    """Return a step of torchzero's MeZO.

    Args:
        rows: of the batch.
    """
    import torchzero as tz

    model, closure = made(rows)
    optimizer = tz.Optimizer(model.parameters(), tz.m.MeZO(h=1e-3), tz.m.LR(1e-6))

    def asked(backward: bool = True) -> torch.Tensor:
        del backward
        with torch.no_grad():
            return closure()

    return lambda: optimizer.step(asked)


WAYS: Final[dict[str, Callable[[int], Step]]] = {
    "clean": clean,
    "pending": pending,
    "twin": twin,
}
OTHERS: Final[dict[str, tuple[str, Callable[[int], Step]]]] = {
    "forwards": ("two forwards", two_forwards),
    "mezo": ("MeZO, four passes", four_passes),
    "torchzero": ("torchzero MeZO", torchzero),
}
BARS: Final = {
    ("pending", "forwards", 1): 1.25,
    ("pending", "forwards", 8): 1.10,
    ("clean", "forwards", 1): 1.35,
    ("clean", "forwards", 8): 1.12,
    ("twin", "forwards", 1): 1.20,
    ("twin", "forwards", 8): None,
    ("pending", "mezo", 1): 1 / 5,
    ("pending", "mezo", 8): 1 / 2.2,
    ("pending", "torchzero", 1): 1 / 3,
    ("pending", "torchzero", 8): None,
}
"""Our way, the other and rows of the batch: the most that the ratio may be."""


def compare(ours: str, other: str, rows: int) -> Result:
    """Time one of our ways beside another, in turns.

    Args:
        ours: one of `WAYS`.
        other: one of `OTHERS`.
        rows: of the batch.
    """
    before = source_hash(DEPENDS)
    title, make = OTHERS[other]
    samples = interleave(WAYS[ours](rows), make(rows), rounds=ROUNDS[rows], warm_ups=3)
    version = importlib.metadata.version("torchzero") if other == "torchzero" else ""
    return make_result(
        f"zeroth-speed/{ours}-{other}-{rows}",
        ours=f"ZOSGD, {ours}",
        peer=title,
        peer_version=version,
        samples=samples,
        unit="s",
        rooms=DEPENDS,
        command=["bench.zeroth.speed", f"{ours}-{other}-{rows}"],
        limit=BARS[ours, other, rows],
        made_with=before,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    one_thread()
    for ours, other, rows in BARS:
        if not options.names or f"{ours}-{other}-{rows}" in options.names:
            result = compare(ours, other, rows)
            write_result(result)
            print(f"{result.scenario}: {result.ratio:.3f}", f"(bar {result.limit})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
