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

Make: TypeAlias = Callable[[Sequence[nn.Parameter], float, float], torch.optim.Optimizer]

RATES: Final = 8


class Method(NamedTuple):
    """An optimizer.

    Attributes:
        title: as the tables name it.
        make: makes it for parameters, a learning rate and eps.
        kind: what its rate is like: ``slope`` (times the slope along a direction), ``sign`` (what
            each weight moves by), ``matrix`` (what each singular value moves by), ``adam``.
        evaluations: of the loss in a step; 0 for backward.
        modes: what of the model it trains.
        module: of the package, where its class is; none for what is not ours.
    """

    title: str
    make: Make
    kind: str
    evaluations: int
    modes: tuple[str, ...]
    module: str = ""


def _hundredth(params: Sequence[nn.Parameter]) -> int:
    """Return how many entries are drawn in a step: as many as the published code draws, about."""
    return max(1, sum(parameter.numel() for parameter in params) // 100)


def _jaguar_sign(params: Sequence[nn.Parameter], lr: float, eps: float) -> torch.optim.Optimizer:
    return zeroth.JaguarSign(params, lr, eps, coords=_hundredth(params))


def _jaguar_muon(params: Sequence[nn.Parameter], lr: float, eps: float) -> torch.optim.Optimizer:
    return zeroth.JaguarMuon(params, lr, eps, coords=_hundredth(params))


_ALL: Final = ("full", "lora", "head")
_MATRICES: Final = ("full", "head")
"""Of methods that take apart what LoRA has taken apart already."""
_FACTORS: Final = ("lora", "head")
"""A polar factor of every matrix at every step costs five times the two forwards in full."""

METHODS: Final = {
    "zosgd": Method(
        "ZOSGD", lambda p, lr, eps: zeroth.ZOSGD(p, lr, eps, pending=True), "slope", 2, _ALL, "sgd"
    ),
    "mezo": Method("MeZO, four passes", MeZO, "slope", 2, _MATRICES),
    "jaguar-sign": Method("JaguarSign", _jaguar_sign, "sign", 2, _ALL, "jaguar"),
    "lozo": Method("LOZO", zeroth.LOZO, "slope", 2, _MATRICES, "lozo"),
    "hizoo": Method("HiZOO", zeroth.HiZOO, "slope", 3, _MATRICES, "hizoo"),
    "zo-muon": Method("ZOMuon", zeroth.ZOMuon, "matrix", 2, _FACTORS, "muon"),
    "jaguar-muon": Method("JaguarMuon", _jaguar_muon, "matrix", 2, _FACTORS, "jaguar"),
    "adamw": Method(
        "AdamW", lambda p, lr, _: torch.optim.AdamW(p, lr, weight_decay=0.0), "adam", 0, _ALL
    ),
}


def rates(kind: str, task: Task, rows: int) -> list[float]:
    """Return the learning rates that are tried: half decades around what is measured.

    Args:
        kind: of the method.
        task: whose slopes and curvature are measured.
        rows: of a batch.
    """
    if kind == "adam":
        return [10 ** (-6 + k / 2) for k in range(RATES)]
    index = next(task.batches(rows))
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
    near = round(2 * math.log10(middle))
    return [10 ** ((near + k - RATES + 2) / 2) for k in range(RATES)]
