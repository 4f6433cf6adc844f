"""Measure the peak of training steps: the child process of `bench.honesty`.

    python -m bench.honesty_measure CASE ROWS OPTIMIZER [CASE ROWS OPTIMIZER ...]

prints one JSON line for every three words, as soon as it is known. Each cell builds its model
anew and takes three steps on one thread: the first makes the optimizer's state, the second is
timed, the third measured.
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch

from bench.architectures import find_case
from shoestring.measure.tracing.allocator import measure_step, standing, steady_step
from tests.zoo import Case

Optimizer: TypeAlias = Callable[..., torch.optim.Optimizer]

OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": torch.optim.AdamW,
    "sgd": functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "adafactor": torch.optim.Adafactor,
}
"""The optimizers of the comparison, by name."""


def measure_cell(case: Case, rows: int, optimizer_name: str) -> dict[str, object]:
    """Return what one cell of the comparison really takes.

    Args:
        case: the model.
        rows: rows of its batch.
        optimizer_name: one of `OPTIMIZERS`.

    Returns:
        peak, static, parameters, gradients and optimizer state in bytes, seconds of a step,
        number of parameters and of allocator events, highest resident size in bytes.
    """
    model, batch = case.build(), case.batch(rows)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    step = steady_step(model, batch, optimizer, case.loss)
    step()
    begin = time.perf_counter()
    step()
    seconds = time.perf_counter() - begin
    measured = measure_step(step, roots=lambda: standing(model, batch, optimizer))
    parameters = list(model.parameters())
    state = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
    return {
        "peak": measured.peak,
        "static": measured.static,
        "seconds": round(seconds, 4),
        "num_parameters": sum(p.numel() for p in parameters),
        "parameters": sum(p.nbytes for p in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
        "optimizer_state": sum(t.nbytes for t in state),
        "events": measured.events,
        "rss": measured.rss,
    }


def main(words: Iterable[str]) -> None:
    """Measure the cells that the words name, and print a JSON line for each.

    Args:
        words: case, rows, optimizer, and so on.
    """
    torch.set_num_threads(1)
    words = list(words)
    if not words or len(words) % 3:
        raise SystemExit("usage: python -m bench.honesty_measure CASE ROWS OPTIMIZER [...]")
    for name, rows, optimizer in zip(words[::3], words[1::3], words[2::3], strict=True):
        cell: dict[str, object] = {"case": name, "rows": int(rows), "optimizer": optimizer}
        try:
            cell.update(measure_cell(find_case(name), int(rows), optimizer))
        except Exception as error:  # noqa: BLE001 - a model that fails is a result, and the others go on
            cell["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps(cell), flush=True)
        gc.collect()


if __name__ == "__main__":
    main(sys.argv[1:])
