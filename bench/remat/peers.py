"""Ours beside what torch and Hugging Face offer, at the peak that the other one reaches.

    python -m bench.remat.peers CELL ...

The other side is run first, and its peak above parameters measured. Ours is then fitted into
that peak. All are compared with the plain step too: in time, and in what they give.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bench.harness import ratio_and_spread
from bench.remat._torch import forget_compiled, torch_budget
from bench.remat.models import SUBJECTS, ResNet, gpt, pictures, tokens
from bench.remat.records import Figures
from bench.remat.steps import (
    SCALARS,
    Side,
    differences,
    fresh_cache,
    least_of,
    overhead,
    take_turns,
)
from shoestring.activations.remat.fitting import fit
from shoestring.core.errors import InfeasibleError
from tests.zoo.case import seeded

SECONDS: Final = 30.0
"""Spent on timing a cell, about."""
WIDTH, LENGTH, WORDS = 256, 256, 8192
"""Of the Transformers that are compared beside GPT-12."""

Peer: TypeAlias = Callable[[nn.Module], contextlib.AbstractContextManager[nn.Module]]
"""Changes a model; in its context the model, or what runs it, can be called."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """One other way to save memory, on one model.

    Attributes:
        model: for people.
        peer: for people.
        build: makes the model.
        batch: its batch.
        change: makes the peer of it.
    """

    model: str
    peer: str
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[torch.Tensor, ...]]
    change: Peer


class Checkpointed(nn.Module):
    """A block whose values are computed again in backward.

    Args:
        block: it.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the block returns."""
        out: torch.Tensor = checkpoint(self.block, x, use_reentrant=False)
        return out


def checkpointed(every: int) -> Peer:
    """Return the peer that checkpoints blocks with ``torch.utils.checkpoint``.

    Args:
        every: first of so many blocks that is checkpointed; 1 takes all.
    """

    @contextlib.contextmanager
    def change(model: nn.Module) -> Iterator[nn.Module]:
        for blocks in block_lists(model):
            for place in range(0, len(blocks), every):
                blocks[place] = Checkpointed(blocks[place])
        yield model

    return change


def block_lists(model: nn.Module) -> list[nn.ModuleList]:
    """Return the lists of a model's blocks, each of which takes one tensor.

    Args:
        model: of `bench.remat.models`.

    Raises:
        ValueError: it has none.
    """
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("blocks", "down", "up")
    ]
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of blocks")
    return found


class Language(nn.Module):
    """A decoder of transformers that returns its loss alone."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        self.network = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=WORDS,
                hidden_size=WIDTH,
                intermediate_size=688,
                num_hidden_layers=8,
                num_attention_heads=4,
                max_position_embeddings=LENGTH,
                use_cache=False,
            )
        )

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Return the loss of each next word of rows [N, T]."""
        loss: torch.Tensor = self.network(input_ids=words, labels=words).loss
        return loss


@contextlib.contextmanager
def hugging_face(model: nn.Module) -> Iterator[nn.Module]:
    """Turn on the gradient checkpointing of transformers.

    Args:
        model: a `Language`.
    """
    assert isinstance(model, Language)
    enable: Callable[..., None] = model.network.gradient_checkpointing_enable
    enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    yield model


def budgeted(share: float) -> Peer:
    """Return the peer that is torch's own memory budget.

    Args:
        share: of the bytes that torch's plain selection saves.
    """

    @contextlib.contextmanager
    def change(model: nn.Module) -> Iterator[nn.Module]:
        forget_compiled()
        with torch_budget(share) as backend:
            yield _Compiled(model, torch.compile(model, backend=backend, fullgraph=True))

    return change


class _Compiled(nn.Module):
    """A model and what runs it, under the model's own names."""

    def __init__(self, model: nn.Module, run: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.model, self._run = model, [run]

    def forward(self, *batch: torch.Tensor) -> torch.Tensor:
        return self._run[0](*batch)


def _small(dropout: float) -> Callable[[], nn.Module]:
    return gpt(8, width=WIDTH, heads=4, vocabulary=WORDS, length=LENGTH, dropout=dropout)


def _every() -> Iterator[tuple[str, Comparison]]:
    for (name, rows), every in itertools.product(
        {"gpt12": 3, "resnet50": 4, "unet": 4}.items(), (1, 2)
    ):
        subject, which = SUBJECTS[name], "each block" if every == 1 else "every second block"
        yield (
            f"checkpoint-{name}-{every}",
            Comparison(
                f"{subject.title}, {rows} rows",
                f"torch.utils.checkpoint, {which}",
                subject.build,
                lambda subject=subject, rows=rows: subject.batch(rows),  # type: ignore[misc]
                checkpointed(every),
            ),
        )
    words: Callable[[], tuple[torch.Tensor, ...]] = lambda: tokens(4, LENGTH, WORDS)  # noqa: E731
    shape = f"8 layers, d {WIDTH}, T {LENGTH}, vocabulary {WORDS}, 4 rows"
    yield (
        "hugging-face-llama",
        Comparison(
            f"Llama, {shape}",
            "transformers, gradient checkpointing",
            seeded(Language),
            words,
            hugging_face,
        ),
    )
    others = {
        "checkpoint-gpt-1": ("torch.utils.checkpoint, each block", checkpointed(1)),
        "checkpoint-gpt-2": ("torch.utils.checkpoint, every second block", checkpointed(2)),
        "budget-gpt-70": ("torch's memory budget 0.7", budgeted(0.7)),
        "budget-gpt-50": ("torch's memory budget 0.5", budgeted(0.5)),
        "budget-gpt-20": ("torch's memory budget 0.2", budgeted(0.2)),
    }
    for cell, (peer, change) in others.items():
        yield cell, Comparison(f"GPT, {shape}, no dropout", peer, _small(0.0), words, change)
    yield (
        "budget-gpt-dropout",
        Comparison(
            f"GPT, {shape}, dropout 0.5",
            "torch's memory budget 0.5",
            _small(0.5),
            words,
            budgeted(0.5),
        ),
    )
    yield (
        "budget-resnet",
        Comparison(
            "ResNet-50 of width 16 at 64, 8 rows",
            "torch's memory budget 0.3",
            seeded(lambda: ResNet(16)),
            lambda: pictures(8, 64),
            budgeted(0.3),
        ),
    )


COMPARISONS: Final[dict[str, Comparison]] = dict(_every())
"""The comparisons by name of their cell."""
CELLS: Final = tuple(COMPARISONS)


def measure(name: str) -> Figures:
    """Measure one cell.

    Args:
        name: one of `CELLS`.

    Returns:
        Peaks, times, and what each side gives that the plain step does not. A side that fails
        has ``error``.
    """
    compared = COMPARISONS[name]
    plain = Side(compared.build(), compared.batch())
    wanted = plain.outcome()
    figures: Figures = {
        "model": compared.model,
        "peer": compared.peer,
        "plain_peak": plain.peak(),
    }
    with compared.change(compared.build()) as changed:
        peer = Side(changed, compared.batch())
        try:
            figures["peer_different"] = differences(peer.outcome(), wanted)
        except RuntimeError as error:
            said = str(error).partition("\n")[0]
            return {**figures, "error": f"{type(error).__name__}: {said}"}
        peer.step()  # what is compiled on its second shape or call is not billed to the peak
        figures["peer_peak"] = peer.peak()
    ours = Side(compared.build(), compared.batch())
    figures |= _fit_into(ours, peer.peak())
    figures["different"] = differences(ours.outcome(), wanted)
    figures["peak"] = ours.peak()
    del wanted
    gc.collect()
    sides = {"ours": ours.step, "peer": peer.step, "plain": plain.step}
    samples = take_turns(sides, seconds=SECONDS)
    ratio, spread = ratio_and_spread(samples["ours"], samples["peer"])
    return {
        **figures,
        "samples": samples,
        "ratio": ratio,
        "spread": list(spread),
        "overhead": overhead(samples["ours"], samples["plain"]),
        "peer_overhead": overhead(samples["peer"], samples["plain"]),
        "plain_seconds": statistics.median(samples["plain"]),
    }


def _fit_into(side: Side, peak: int) -> Figures:
    with fresh_cache():
        try:
            schedule, refusal = fit(side.model, side.batch, activations=peak - SCALARS), ""
        except InfeasibleError as error:
            refusal = str(error).partition("\n")[0]
            schedule = fit(side.model, side.batch, activations=least_of(error))
    return {
        "predicted_overhead": schedule.overhead,
        "refusal": refusal,
        "solver": schedule.answer.solver,
    }


if __name__ == "__main__":
    from bench.remat.child import main

    main("peers", CELLS, measure)
