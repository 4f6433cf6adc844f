"""Techniques that are reported with their predicted peak and never part of a plan.

They change what is learnt or how, so they are no answer to "make this step fit"; but a user
whose budget cannot be met exactly must see what each would reach.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import ClassVar, Self

import numpy as np
import torch
from torch import nn

from shoestring.core.edit import Editor
from shoestring.core.errors import InputError, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace, total
from shoestring.planner.adapters import add_adapters
from shoestring.planner.zeroth import Moves

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
    alone: ClassVar[bool] = True

    def fidelity(self, profile: Profile) -> Fidelity:
        """Other rounding, so approximate."""
        return Fidelity.APPROXIMATE

    def refuse(self, profile: Profile) -> str:
        """Refuse where the step is in low precision already or cannot be traced again."""
        if profile.step.autocast or profile.step.custom:
            return "the step has its own precision."
        if profile.retrace is None:
            return "the profile cannot be traced again."
        low = sum(op.flops for op in profile.trace.ops if op.dtype in ("bfloat16", "float16"))
        if low > 0.9 * profile.flops:
            return "the model computes in low precision already."
        return ""

    def predict(self, profile: Profile) -> Profile:
        """Trace the step again under autocast."""
        assert profile.retrace is not None
        retrace = functools.partial(profile.retrace, autocast=torch.bfloat16)
        return _retraced(profile, retrace, Fidelity.APPROXIMATE)

    def describe(self) -> str:
        """Return the change in a few words."""
        return "bf16 autocast"


class _Adapters(_Reported):
    """Adapters over a frozen base: the adapted twin is traced.

    The optimizer's state grows with the adapters as it did with the weights.
    """

    def fidelity(self, profile: Profile) -> Fidelity:
        """Another model is trained."""
        return Fidelity.RETRAIN

    def refuse(self, profile: Profile) -> str:
        """Refuse where no block holds a matrix product with a weight."""
        if profile.step.custom:
            return "the step is the user's own."
        if profile.retrace is None:
            return "the profile cannot be traced again."
        if 2 * profile.step.num_trainable < profile.step.num_parameters:
            return "most of the weights are frozen already."
        return "" if _has_products(profile.trace) else "no block holds a product with a weight."

    @abc.abstractmethod
    def adapt(self, model: nn.Module) -> None:
        """Adapt a twin.

        Args:
            model: the twin; changed in place.
        """

    def predict(self, profile: Profile) -> Profile:
        """Trace the adapted step, and add the adapters' part of the optimizer's step."""
        assert profile.retrace is not None
        retrace = functools.partial(
            _with_optimizer, profile.trace, functools.partial(profile.retrace, change=self.adapt)
        )
        return _retraced(profile, retrace, Fidelity.RETRAIN)


@dataclasses.dataclass(frozen=True)
class Lora(_Adapters):
    """Frozen weights with low-rank adapters on the linear layers of the blocks.

    Weight W [n, m] stays; A [r, m] and B [n, r] learn: y = W x + B A x. Predicted as peft runs
    it: adapters of a half-precision base are in float32, and keep its input in float32.

    Source: Hu et al., LoRA, 2021, section 4.1.

    Args:
        rank: r.
    """

    name: ClassVar[str] = "lora"
    rank: int = 16

    def adapt(self, model: nn.Module) -> None:
        """Adapt a twin.

        Args:
            model: the twin; changed in place.
        """
        add_adapters(model, self.rank)

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"LoRA, rank {self.rank}"


@dataclasses.dataclass(frozen=True)
class Nf4Base(_Adapters):
    """Adapters over a base in 4-bit NormalFloat, dequantised for each product.

    A weight takes 4 bits and a share of the scales: with blocks of 64 and double
    quantisation 8/64 + 32/(64*256) = 0.127 bits more. Predicted as peft and bitsandbytes run it.

    Source: Dettmers et al., QLoRA, 2023, section 3.

    Args:
        rank: of the adapters.
    """

    name: ClassVar[str] = "nf4"
    rank: int = 16

    def adapt(self, model: nn.Module) -> None:
        """Quantise and adapt a twin.

        Args:
            model: the twin; changed in place.
        """
        add_adapters(model, self.rank, nf4=True)

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"4-bit base (NF4) + LoRA, rank {self.rank}"


@dataclasses.dataclass(frozen=True)
class Adam8bit(_Reported):
    """Optimizer state in 8 bits with a 32-bit scale for each block of 256.

    The update is one kernel without temporaries. Parameters of fewer than 4096 elements keep
    a state in float32.

    Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021.
    """

    name: ClassVar[str] = "adam8bit"
    slot: ClassVar[Slot] = Slot.STEP

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
        return dataclasses.replace(
            profile,
            traces=tuple(_in_8_bits(trace) for trace in profile.traces),
            fidelity=Fidelity.APPROXIMATE,
            retrace=None,
        )

    def describe(self) -> str:
        """Return the change in a few words."""
        return "8-bit optimizer state"


@dataclasses.dataclass(frozen=True)
class ZerothOrder(_Reported):
    """Forward passes alone: two losses give a slope along a random direction.

    No gradient, no optimizer state and nothing kept for a backward. Predicted as
    `shoestring.zeroth.ZOSGD` runs it.

    Source: Malladi et al., MeZO, 2023, algorithm 1.
    """

    name: ClassVar[str] = "zeroth-order"
    alone: ClassVar[bool] = True

    def fidelity(self, profile: Profile) -> Fidelity:
        """The slope is unbiased for a smoothed loss, and noisy."""
        return Fidelity.UNBIASED

    def refuse(self, profile: Profile) -> str:
        """Refuse where forward and backward cannot be told apart."""
        if profile.step.custom:
            return "the step is the user's own."
        return "" if profile.retrace is not None else "the profile cannot be traced again."

    def predict(self, profile: Profile) -> Profile:
        """Trace the forward alone, and run it twice."""
        assert profile.retrace is not None
        retrace = functools.partial(_forward_twice, profile.trace, profile.retrace)
        return _retraced(profile, retrace, Fidelity.UNBIASED)

    def describe(self) -> str:
        """Return the change in a few words."""
        return "zeroth-order (two forward passes)"


def _retraced(profile: Profile, retrace: Callable[..., Trace], fidelity: Fidelity) -> Profile:
    """Return the profile of the changed step; bytes per row are known where they were.

    Of several batches the first is traced again, which tells the time, and the one with the
    highest peak.
    """
    by_row = any(s.per_row is not None for s in profile.trace.storages)
    batches = dict.fromkeys((0, profile.traces.index(profile.widest)))
    try:
        traces = tuple(retrace(which=which, by_row=by_row and which == 0) for which in batches)
    except InputError as error:
        raise RefusedError(
            f"the changed step cannot be traced: {error.message}", hint="leave it out."
        ) from error
    return dataclasses.replace(profile, traces=traces, fidelity=fidelity, retrace=None)


def _forward_twice(
    plain: Trace, retrace: Callable[..., Trace], *, which: int, by_row: bool
) -> Trace:
    trace = retrace(which=which, by_row=by_row, optimizer=False, backward=False)
    trained = [s for s in plain.storages if s.kind is Kind.GRADIENT]
    # Weights of fewer bits than float32 are put aside while they are perturbed.
    copied = sum(s.nbytes for s in trained if s.itemsize < 4)
    return Moves(2, sum(s.nbytes for s in trained), held=copied, most=copied).after(trace)


def _with_optimizer(
    plain: Trace, retrace: Callable[..., Trace], *, which: int, by_row: bool
) -> Trace:
    trace = retrace(which=which, by_row=by_row, optimizer=False)
    trained = sum(s.nbytes for s in trace.storages if s.kind is Kind.GRADIENT)
    kinds = dict.fromkeys(Kind, 0)
    for storage in plain.storages:
        kinds[storage.kind] += storage.nbytes
    share = trained / max(kinds[Kind.GRADIENT], 1)
    last = [op for op in plain.ops if op.phase is Phase.OPTIMIZER]
    if not last:
        return trace
    editor = Editor(trace)
    state = editor.add(Storage(round(share * kinds[Kind.OPTIMIZER]), Kind.OPTIMIZER, ALWAYS, None))
    step = Op(
        "optimizer.step",
        Phase.OPTIMIZER,
        "",
        reads=(state,),
        writes=(state,),
        workspace=round(share * _most_temporary(plain)),
        **total(last).times(share)._asdict(),
    )
    at = editor.insert(len(trace.ops), step)
    for index, storage in enumerate(trace.storages):
        if storage.kind is Kind.GRADIENT and storage.death is None:
            editor.storages[index] = dataclasses.replace(storage, death=at)
    return editor.trace()


def _most_temporary(trace: Trace) -> int:
    """Return the most bytes that the optimizer's step holds beside what is there anyway."""
    steps = np.array([op.phase is Phase.OPTIMIZER for op in trace.ops])
    spaces = np.array([op.workspace for op in trace.ops])
    return int((trace.resident(lambda s: s.kind is Kind.TEMPORARY) + spaces)[steps].max())


def _in_8_bits(trace: Trace) -> Trace:
    states = {i for i, s in enumerate(trace.storages) if s.kind is Kind.OPTIMIZER}
    updates = {i for i, op in enumerate(trace.ops) if not states.isdisjoint(op.reads)}
    # What the plain update makes on the way lies between its first and last use of the state.
    inside = range(min(updates), max(updates) + 1) if updates else range(0)
    editor = Editor(trace)
    for index, storage in enumerate(trace.storages):
        if index in states and storage.nbytes >= 4096 * storage.itemsize:
            small = round(storage.nbytes / storage.itemsize * (1 + 4 / 256))
            editor.storages[index] = dataclasses.replace(storage, nbytes=small)
        elif storage.birth in inside:
            editor.storages[index] = dataclasses.replace(storage, nbytes=0)
    for index in inside:
        editor.replace(index, dataclasses.replace(trace.ops[index], workspace=0))
    return editor.trace()


def _has_products(trace: Trace) -> bool:
    """Whether a block multiplies with a matrix of weights."""
    return any(
        op.name.startswith(_MATMULS)
        and any(
            trace.storages[s].kind is Kind.PARAMETER and len(trace.storages[s].shape) == 2
            for s in op.reads
        )
        for block in trace.blocks
        for op in trace.ops[slice(*block.forward)]
    )
