"""Techniques that are reported with their predicted peak and never part of a plan.

They change what is learnt or how, so they are no answer to "make this step fit"; but a user
whose budget cannot be met exactly must see what each would reach.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Self

import torch

from shoestring.core.edit import Editor
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace, last_use

_MATMULS = ("aten.mm.", "aten.addmm.", "aten.bmm.", "aten.baddbmm.")


class _Reported(Technique):
    """What reported techniques share."""

    slot: ClassVar[Slot] = Slot.COMPRESS
    reported: ClassVar[bool] = True

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        """Return it once, where it can be used at all."""
        technique = cls()
        return () if technique.refuse(profile) else (technique,)


@dataclasses.dataclass(frozen=True)
class Bfloat16Autocast(_Reported):
    """Mixed precision: matrix products in bfloat16 under ``torch.autocast``.

    Source: Micikevicius et al., Mixed Precision Training, 2018.
    """

    name: ClassVar[str] = "bf16"

    def fidelity(self, profile: Profile) -> Fidelity:
        """Other rounding, so approximate."""
        return Fidelity.APPROXIMATE

    def refuse(self, profile: Profile) -> str:
        """Refuse where the step is in low precision already or cannot be traced again."""
        if profile.step.autocast or profile.step.custom:
            return "the step has its own precision."
        if profile.retrace is None or profile.fidelity is not Fidelity.EXACT:
            return "the profile cannot be traced again."
        low = sum(op.flops for op in profile.trace.ops if op.dtype in ("bfloat16", "float16"))
        if low > 0.9 * profile.flops:
            return "the model computes in low precision already."
        return ""

    def predict(self, profile: Profile) -> Profile:
        """Trace the step again under autocast."""
        assert profile.retrace is not None
        trace = profile.retrace(autocast=torch.bfloat16)
        return dataclasses.replace(
            profile, traces=(trace,), fidelity=Fidelity.APPROXIMATE, retrace=None
        )

    def describe(self) -> str:
        """Return the change in a few words."""
        return "bf16 autocast"


@dataclasses.dataclass(frozen=True)
class Lora(_Reported):
    """Frozen weights with low-rank adapters on the blocks' matrix products.

    Weight W [n, m] stays; A [r, m] and B [n, r] learn: y = W x + B A x. The input of every
    adapted product is still kept for A's gradient.

    Source: Hu et al., LoRA, 2021, section 4.1.

    Args:
        rank: r.
    """

    name: ClassVar[str] = "lora"
    rank: int = 16

    def fidelity(self, profile: Profile) -> Fidelity:
        """Another model is trained."""
        return Fidelity.RETRAIN

    def refuse(self, profile: Profile) -> str:
        """Refuse where no block holds a matrix product with a weight."""
        return "" if _adapted(profile.trace) else "no block holds a matrix product with a weight."

    def predict(self, profile: Profile) -> Profile:
        """Drop the gradients and the optimizer state of what is frozen; add the adapters'."""
        traces = tuple(self._freeze(trace) for trace in profile.traces)
        return dataclasses.replace(profile, traces=traces, fidelity=Fidelity.RETRAIN, retrace=None)

    def _freeze(self, trace: Trace) -> Trace:
        adapters = sum(_adapter_bytes(trace.storages[w], self.rank) for w in _adapted(trace))
        trained = [s for s in trace.storages if s.kind is Kind.PARAMETER]
        states = sum(s.nbytes for s in trace.storages if s.kind is Kind.OPTIMIZER)
        share = states / max(sum(s.nbytes for s in trained), 1)
        makers = {s.birth for s in trace.storages if s.kind is Kind.GRADIENT}
        editor = Editor(trace)
        for index, storage in enumerate(trace.storages):
            if storage.kind in (Kind.GRADIENT, Kind.OPTIMIZER):
                editor.storages[index] = dataclasses.replace(storage, nbytes=0, per_row=0.0)
        for index, op in enumerate(trace.ops):
            if op.phase is Phase.OPTIMIZER:
                editor.drop(index)
            elif index in makers:
                idle = dataclasses.replace(op, flops=0, traffic=0, workspace=0, seconds=0.0)
                editor.replace(index, idle)
        for nbytes, kind in (
            (adapters, Kind.PARAMETER),
            (adapters, Kind.GRADIENT),
            (round(adapters * share), Kind.OPTIMIZER),
        ):
            editor.add(Storage(nbytes, kind, ALWAYS, None, "adapters", 0.0))
        return editor.trace()

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"LoRA, rank {self.rank}"


@dataclasses.dataclass(frozen=True)
class Nf4Base(_Reported):
    """Adapters over a base in 4-bit NormalFloat, dequantised for each product.

    A weight takes 4 bits and a share of the scales: with blocks of 64 and double
    quantisation 8/64 + 32/(64*256) = 0.127 bits more.

    Source: Dettmers et al., QLoRA, 2023, section 3.

    Args:
        rank: of the adapters.
    """

    name: ClassVar[str] = "nf4"
    rank: int = 16

    def fidelity(self, profile: Profile) -> Fidelity:
        """Another model is trained."""
        return Fidelity.RETRAIN

    def refuse(self, profile: Profile) -> str:
        """Refuse where adapters are refused."""
        return Lora(self.rank).refuse(profile)

    def predict(self, profile: Profile) -> Profile:
        """Predict adapters, shrink the adapted weights, and dequantise one at each use."""
        adapted = Lora(self.rank).predict(profile)
        traces = tuple(self._shrink(trace) for trace in adapted.traces)
        return dataclasses.replace(adapted, traces=traces)

    def _shrink(self, trace: Trace) -> Trace:
        bits = 4 + 8 / 64 + 32 / (64 * 256)
        weights = {w: trace.storages[w] for w in _adapted(trace)}
        editor = Editor(trace)
        for index, weight in weights.items():
            small = round(weight.nbytes / weight.itemsize * bits / 8)
            editor.storages[index] = dataclasses.replace(weight, nbytes=small)
        for index, op in enumerate(trace.ops):
            whole = [weights[s].nbytes for s in op.reads if s in weights]
            if whole and op.flops:
                space, traffic = op.workspace + max(whole), op.traffic + 2 * max(whole)
                editor.replace(index, dataclasses.replace(op, workspace=space, traffic=traffic))
        return editor.trace()

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"4-bit base (NF4) + LoRA, rank {self.rank}"


@dataclasses.dataclass(frozen=True)
class Adam8bit(_Reported):
    """Optimizer state in 8 bits with a 32-bit scale for each block of 256.

    Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021.
    """

    name: ClassVar[str] = "adam8bit"

    def fidelity(self, profile: Profile) -> Fidelity:
        """Other updates, close to the plain ones."""
        return Fidelity.APPROXIMATE

    def refuse(self, profile: Profile) -> str:
        """Refuse where there is no state to shrink."""
        if not any(s.kind is Kind.OPTIMIZER and s.nbytes > 4096 for s in profile.trace.storages):
            return "the optimizer keeps no state."
        return ""

    def predict(self, profile: Profile) -> Profile:
        """Shrink the state of every parameter of at least 4096 elements."""

        def shrink(trace: Trace) -> Trace:
            storages = tuple(
                dataclasses.replace(s, nbytes=round(s.nbytes / s.itemsize * (1 + 4 / 256)))
                if s.kind is Kind.OPTIMIZER and s.nbytes >= 4096 * s.itemsize
                else s
                for s in trace.storages
            )
            return dataclasses.replace(trace, storages=storages)

        return dataclasses.replace(
            profile,
            traces=tuple(shrink(trace) for trace in profile.traces),
            fidelity=Fidelity.APPROXIMATE,
            retrace=None,
        )

    def describe(self) -> str:
        """Return the change in a few words."""
        return "8-bit optimizer state"


@dataclasses.dataclass(frozen=True)
class ZerothOrder(_Reported):
    """Forward passes alone: two losses give a slope along a random direction.

    No gradient, no optimizer state and nothing kept for a backward.

    Source: Malladi et al., MeZO, 2023, algorithm 1.
    """

    name: ClassVar[str] = "zeroth-order"

    def fidelity(self, profile: Profile) -> Fidelity:
        """The slope is unbiased for a smoothed loss, and noisy."""
        return Fidelity.UNBIASED

    def refuse(self, profile: Profile) -> str:
        """Refuse where forward and backward cannot be told apart."""
        return "the step is the user's own." if profile.step.custom else ""

    def predict(self, profile: Profile) -> Profile:
        """Keep the forward alone, let every value die at its last use, and run it twice."""
        return dataclasses.replace(
            profile,
            traces=tuple(_forward_twice(trace) for trace in profile.traces),
            fidelity=Fidelity.UNBIASED,
            retrace=None,
        )

    def describe(self) -> str:
        """Return the change in a few words."""
        return "zeroth-order (two forward passes)"


def _forward_twice(trace: Trace) -> Trace:
    count = next((i for i, op in enumerate(trace.ops) if op.phase is not Phase.FORWARD), None)
    count = len(trace.ops) if count is None else count
    last = last_use(trace.ops, 0, count)
    storages = []
    for index, s in enumerate(trace.storages):
        if s.kind in (Kind.GRADIENT, Kind.OPTIMIZER):
            storages.append(dataclasses.replace(s, nbytes=0, birth=ALWAYS, death=None, per_row=0.0))
        elif s.birth == ALWAYS:
            storages.append(s)
        elif s.birth >= count:
            storages.append(dataclasses.replace(s, nbytes=0, birth=ALWAYS, death=None, per_row=0.0))
        else:
            end = s.death if s.death is not None and s.death < count else last.get(index, s.birth)
            storages.append(dataclasses.replace(s, kind=Kind.TEMPORARY, death=max(end, s.birth)))
    ops = tuple(
        dataclasses.replace(op, flops=2 * op.flops, traffic=2 * op.traffic)
        for op in trace.ops[:count]
    )
    size = sum(s.nbytes for s in trace.storages if s.kind is Kind.PARAMETER)
    perturb = Op("perturb", Phase.OPTIMIZER, "", traffic=4 * 2 * size)
    return Trace(
        ops=(*ops, perturb), storages=tuple(storages), rows=trace.rows, blocks=(), accumulated={}
    )


def _adapted(trace: Trace) -> list[int]:
    """Return the weights that the blocks' matrix products read."""
    found: dict[int, None] = {}
    for block in trace.blocks:
        for op in trace.ops[slice(*block.forward)]:
            if op.name.startswith(_MATMULS):
                weights = [s for s in op.reads if trace.storages[s].kind is Kind.PARAMETER]
                weights = [s for s in weights if len(trace.storages[s].shape) == 2]
                found.update(dict.fromkeys(weights))
    return list(found)


def _adapter_bytes(weight: Storage, rank: int) -> int:
    return rank * sum(weight.shape) * weight.itemsize
