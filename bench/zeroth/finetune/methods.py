"""The optimizers that are compared, and the learning rates that each is tried with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import nn

from bench.zeroth.finetune.task import Task
from bench.zeroth.mezo import MeZO
from shoestring import zeroth

Make: TypeAlias = Callable[[Sequence[nn.Parameter], float], torch.optim.Optimizer]

EPS: Final = 1e-3
RATES: Final = 8


class Method(NamedTuple):
    """An optimizer.

    Attributes:
        title: as the tables name it.
        make: makes it for parameters and a learning rate.
        kind: what its rate is like: ``slope`` (times the slope along a direction), ``sign`` (what
            each weight moves by), ``matrix`` (what each singular value moves by), ``adam``.
        evaluations: of the loss in a step; 0 for backward.
        modes: what of the model it trains.
    """

    title: str
    make: Make
    kind: str
    evaluations: int
    modes: tuple[str, ...] = ("full", "lora", "head")


def _hundredth(params: Sequence[nn.Parameter]) -> int:
    """Return how many entries are drawn in a step: as many as the published code draws, about."""
    return max(1, sum(parameter.numel() for parameter in params) // 100)


def _jaguar_sign(params: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return zeroth.JaguarSign(params, lr, EPS, coords=_hundredth(params))


def _jaguar_muon(params: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return zeroth.JaguarMuon(params, lr, EPS, coords=_hundredth(params))


METHODS: Final = {
    "zosgd": Method("ZOSGD", lambda p, lr: zeroth.ZOSGD(p, lr, EPS, pending=True), "slope", 2),
    "mezo": Method(
        "MeZO, four passes", lambda p, lr: MeZO(p, lr, EPS), "slope", 2, ("full", "head")
    ),
    "jaguar-sign": Method("JaguarSign", _jaguar_sign, "sign", 2),
    "lozo": Method("LOZO", lambda p, lr: zeroth.LOZO(p, lr, EPS), "slope", 2, ("full", "head")),
    "hizoo": Method("HiZOO", lambda p, lr: zeroth.HiZOO(p, lr, EPS), "slope", 3, ("full", "head")),
    # A polar factor of every matrix at every step costs five times the two forwards in full.
    "zo-muon": Method(
        "ZOMuon", lambda p, lr: zeroth.ZOMuon(p, lr, EPS), "matrix", 2, ("lora", "head")
    ),
    "jaguar-muon": Method("JaguarMuon", _jaguar_muon, "matrix", 2, ("lora", "head")),
    "adamw": Method("AdamW", lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.0), "adam", 0),
}


def rates(kind: str, task: Task) -> list[float]:
    """Return the learning rates that are tried: half a decade apart, around what is measured.

    Args:
        kind: of the method.
        task: whose slopes and curvature are measured.
    """
    if kind == "adam":
        return [10 ** (-6 + k / 2) for k in range(RATES)]
    index = next(task.batches())
    labels = task.parts.train.labels[index]

    def closure() -> torch.Tensor:
        logits = task.logits(task.parts.train, index)
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    found = zeroth.survey(task.parameters(), closure)
    middle = 1 / (3 * found.curvature)
    if kind != "slope":
        middle *= math.hypot(found.slope, found.noise)
    if kind == "matrix":
        longest = [max(p.shape) for p in task.parameters() if p.dim() > 1]
        middle *= math.sqrt(sum(longest) / len(longest))
    return [middle * 10 ** ((k - RATES + 2) / 2) for k in range(RATES)]
