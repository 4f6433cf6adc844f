"""Time to draw a semi-orthogonal direction and add it to a weight, beside QR.

    python -m bench.zeroth.samplers

A matrix of 768 x 768 in float32; processor time of one thread, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import Final

import torch

from bench.harness import interleave, make_result, one_thread, source_hash, write_result
from shoestring.kernels.semiorthogonal import KINDS, semiorthogonal

DEPENDS: Final = ("kernels.semiorthogonal",)
SIDE: Final = 768
ROUNDS: Final = 21
REPEATS: Final = 20
"""Draws in a sample of ours, which is quick."""


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0]).parse_args()
    one_thread()
    weight, keys = torch.zeros(SIDE, SIDE), itertools.count()

    def orthogonal() -> None:
        q, r = torch.linalg.qr(torch.randn(SIDE, SIDE))
        weight.add_(q.mul_(r.diagonal().sign()), alpha=1e-3)

    for kind in KINDS:
        before = source_hash(DEPENDS)
        repeats = 1 if kind == "haar" else REPEATS

        def ours(kind: str = kind, repeats: int = repeats) -> None:
            for _ in range(repeats):
                drawn = semiorthogonal(kind, SIDE, SIDE, next(keys))
                drawn.add_to(weight, 1e-3)

        samples = interleave(ours, orthogonal, rounds=ROUNDS)
        samples["ours"] = [seconds / repeats for seconds in samples["ours"]]
        result = make_result(
            f"zeroth-samplers/{kind}",
            ours=kind,
            peer="QR of normal numbers, torch",
            samples=samples,
            unit="s",
            rooms=DEPENDS,
            command=["bench.zeroth.samplers"],
            limit=1 / 20 if kind == "hadamard" else None,
            made_with=before,
        )
        write_result(result)
        print(f"{kind}: {result.ratio:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
