"""Peak of a step beside that of inference, by the account of torch's allocator.

    python -m bench.zeroth.memory

On a GPT of 10 million weights, 8 rows of 64 tokens. What a step takes beyond the peak of the same
forward under ``no_grad`` is compared with a bar of 1 MiB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Final

import torch

from bench.harness import make_result, one_thread, source_hash, write_result
from bench.zeroth.gpt import made
from bench.zeroth.mezo import MeZO
from shoestring.measure.tracing.allocator import measure_step
from shoestring.zeroth import ZOSGD

ROOMS: Final = ("kernels", "zeroth")
ROWS: Final = 8
BAR: Final = 2**20

Closure = Callable[[], torch.Tensor]


def peak(make: Callable[[torch.nn.Module], torch.optim.Optimizer] | None) -> int:
    """Return the peak of a step, or of a forward.

    Args:
        make: makes the optimizer; None for a forward alone.
    """
    model, closure = made(ROWS)
    optimizer = make(model) if make else None

    def step() -> None:
        if optimizer is None:
            with torch.no_grad():
                closure()
        elif isinstance(optimizer, torch.optim.AdamW):
            closure().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        else:
            optimizer.step(closure)  # type: ignore[arg-type]

    def roots() -> list[torch.Tensor]:
        state = optimizer.state.values() if optimizer else ()
        held = [value for entry in state for value in entry.values()]
        return [*model.parameters(), *(value for value in held if isinstance(value, torch.Tensor))]

    for _ in range(2):
        step()
    return measure_step(step, roots=roots).peak


OPTIMIZERS: Final[dict[str, Callable[[torch.nn.Module], torch.optim.Optimizer]]] = {
    "clean": lambda model: ZOSGD(model.parameters(), lr=1e-6),
    "pending": lambda model: ZOSGD(model.parameters(), lr=1e-6, pending=True),
    "mezo": lambda model: MeZO(model.parameters(), lr=1e-6),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-6),
}


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0]).parse_args()
    one_thread()
    before = source_hash(ROOMS)
    inference = peak(None)
    for name, make in OPTIMIZERS.items():
        found = peak(make)
        result = make_result(
            f"zeroth-memory/{name}",
            ours=name,
            peer="bar",
            samples={
                "ours": [max(found - inference, 1)],
                "peer": [BAR],
                "inference": [inference],
                "step": [found],
            },
            unit="bytes",
            rooms=ROOMS,
            command=["bench.zeroth.memory"],
            limit=1.0 if name in ("clean", "pending") else None,
            made_with=before,
        )
        write_result(result)
        print(name, inference, found, found - inference, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
