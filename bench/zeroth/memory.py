"""Peak of a step beside that of inference, by the account of torch's allocator.

    python -m bench.zeroth.memory

On a GPT of 10 million weights, 8 rows of 64 tokens, and on a packaged MiniLM with a classifier, 16
rows of 32. What a step takes beyond the peak of the same forward under ``no_grad`` is compared with
a bar of 1 MiB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch.nn import functional as F

import shoestring
from bench.harness import make_result, one_thread, source_hash, write_result
from bench.zeroth.finetune.data import Classifier, load
from bench.zeroth.gpt import made
from bench.zeroth.mezo import MeZO
from shoestring.core.errors import InfeasibleError
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.zeroth import LOZO, ZOSGD, HiZOO, JaguarSign

DEPENDS: Final = ("zeroth.hizoo", "zeroth.jaguar", "zeroth.lozo", "zeroth.sgd")
BAR: Final = 2**20

Closure = Callable[[], torch.Tensor]
Make = Callable[[torch.nn.Module], torch.optim.Optimizer]


def minilm() -> tuple[torch.nn.Module, Closure]:
    """Return MiniLM with a classifier, and the loss of a batch of tweets."""
    model = Classifier()
    rows = load().train.take(torch.arange(16))
    return model, lambda: F.cross_entropy(model(rows), rows.labels)


def planned() -> int:
    """Return the peak of AdamW on MiniLM with the smallest exact plan of a few."""
    model, rows = Classifier(), load().train.take(torch.arange(16))

    def loss(logits: torch.Tensor, _: object) -> torch.Tensor:
        return F.cross_entropy(logits, rows.labels)

    prof = shoestring.profile(model, {"rows": rows}, optimizer=torch.optim.AdamW, loss=loss)
    for share in range(30, 100, 5):
        try:
            plan = shoestring.plan(prof, shoestring.Budget(memory=f"{share}%"))
        except InfeasibleError:
            continue
        break
    else:
        raise RuntimeError("no plan takes less than the plain step")
    plan.apply(model)
    optimizer = plan.optimizer(model.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        with plan.context():
            for part, weight in plan.split({"rows": rows}):
                (loss(model(**part), part) * weight).backward()
        optimizer.step()

    for _ in range(2):
        step()
    return measure_step(step, roots=lambda: standing(model, {}, optimizer)).peak


def peak(model: torch.nn.Module, closure: Closure, make: Make | None) -> int:
    """Return the peak of a step, or of a forward.

    Args:
        model: that is trained.
        closure: returns its loss.
        make: makes the optimizer; None for a forward alone.
    """
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

    for _ in range(2):
        step()
    return measure_step(step, roots=lambda: standing(model, {}, optimizer)).peak


OURS: Final[dict[str, Make]] = {
    "ZOSGD": lambda model: ZOSGD(model.parameters(), lr=1e-6),
    "ZOSGD, pending": lambda model: ZOSGD(model.parameters(), lr=1e-6, pending=True),
    "JaguarSign": lambda model: JaguarSign(model.parameters(), lr=1e-6),
    "LOZO": lambda model: LOZO(model.parameters(), lr=1e-6),
    "HiZOO": lambda model: HiZOO(model.parameters(), lr=1e-6),
}
OTHERS: Final[dict[str, Make]] = {
    "MeZO, four passes": lambda model: MeZO(model.parameters(), lr=1e-6),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-6),
}
BARRED: Final = ("ZOSGD", "ZOSGD, pending")


def peaks() -> Iterator[tuple[str, str, int, int]]:
    """Yield model, step, peak of inference and peak of the step."""
    for name, build in {"GPT": lambda: made(8), "MiniLM": minilm}.items():
        inference = peak(*build(), None)
        for step, make in {**OURS, **OTHERS}.items():
            yield name, step, inference, peak(*build(), make)
    yield "MiniLM", "AdamW, planned", inference, planned()


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0]).parse_args()
    one_thread()
    before = source_hash(DEPENDS)
    for model, step, inference, found in peaks():
        words = "-".join(f"{model} {step}".lower().replace(",", "").split())
        result = make_result(
            f"zeroth-memory/{words}",
            ours=f"{model}: {step}",
            peer="bar",
            samples={
                "ours": [max(found - inference, 1)],
                "peer": [BAR],
                "inference": [inference],
                "step": [found],
            },
            unit="bytes",
            rooms=DEPENDS,
            command=["bench.zeroth.memory"],
            limit=1.0 if step in BARRED else None,
            made_with=before,
        )
        write_result(result)
        print(model, step, inference, found, found - inference, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
