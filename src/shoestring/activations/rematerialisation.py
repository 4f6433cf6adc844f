"""Rematerialisation of any model: operations of the forward run again in backward."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Self

from torch import nn

from shoestring.activations.remat.eager.front import front, smallest
from shoestring.activations.remat.eager.predict import recomputed
from shoestring.activations.remat.eager.recording import forget, record
from shoestring.activations.remat.eager.sites import Site, from_text, sites_of, to_text
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique


@dataclasses.dataclass(frozen=True)
class Rematerialisation(Technique):
    r"""Let go of what some operations of the forward make, and run them again in backward.

    What is kept and what is computed again is the solution of

        minimise :math:`\sum_k c_k r_k`   subject to   :math:`\sum_v m_v s_v \le M`

    over all operations k and values v of the step, with :math:`c_k` the seconds of an operation,
    :math:`r_k` whether it runs again, :math:`m_v` the bytes of a value, :math:`s_v` whether it is
    kept; a value that backward reads is kept, or its maker runs again, and what that reads is
    there likewise. The gradients are those of the plain step to the last bit: the same operators
    run with the same inputs and the same random numbers, and running statistics move once. It
    works on any Python code: nothing is compiled, and values are made again when autograd asks
    for them.

    Args:
        again: operations that run again, by module, operator and how many of that name ran before
            in it: lines such as ``layers.0.mlp: aten.silu.default 0, aten.mul.Tensor 0 1``.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
        >>> technique = Rematerialisation(again=("1: aten.gelu.default 0",))
        >>> technique.apply(model)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> technique.remove(model)

    Source:
        Jain et al., "Checkmate: Breaking the Memory Wall with Optimal Tensor Rematerialization",
        MLSys 2020, for what is asked; the reduction to a maximum-weight closure is our own.
    """

    again: tuple[str, ...]

    name: ClassVar[str] = "remat"
    slot: ClassVar[Slot] = Slot.REMAT

    def validate(self) -> None:
        """Raise InputError where a line names no operations.

        Raises:
            InputError: as it says.
        """
        self.sites()

    def sites(self) -> frozenset[Site]:
        """Return the operations that run again."""
        return from_text(self.again)

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT.

        Args:
            profile: the step it would change.
        """
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why nothing can be computed again, as a sentence; empty where it can.

        Args:
            profile: the step it would change.
        """
        if profile.step.recomputes:
            return "the model computes activations again already."
        if profile.step.offloads:
            return "activations wait in host memory, and nothing is made again from those."
        if not profile.trace.calls:
            return "the step does not call the model."
        if self.sites().isdisjoint(sites_of(profile.trace).values()):
            return "the step has none of the operations that are to run again."
        return ""

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        """Return choices along the front of memory and time, from the cheapest to the smallest.

        Args:
            profile: the step it would change.
        """
        if profile.step.recomputes or not profile.trace.calls:
            return []
        trace = profile.widest
        return [cls(again=to_text(choice.sites)) for choice in front(trace, profile.machine)]

    def refit(self, profile: Profile) -> Self:
        """Return the choice that takes least memory in another step.

        Args:
            profile: the other step.
        """
        if profile.step.recomputes or not profile.trace.calls:
            return self
        return type(self)(again=to_text(smallest(profile.widest, profile.machine).sites))

    def predict(self, profile: Profile) -> Profile:
        """Return the profile of the step with operations run again.

        Args:
            profile: the step before the change.
        """
        traces = tuple(recomputed(trace, self.sites()) for trace in profile.traces)
        step = dataclasses.replace(profile.step, recomputes=True)
        return dataclasses.replace(profile, traces=traces, step=step)

    def describe(self) -> str:
        """Return the change in a few words."""
        count = len(self.sites())
        return f"recompute {count} operation{'s' * (count != 1)}"

    def apply(self, model: nn.Module) -> None:
        """Let the model's forward record what is to run again.

        A `NoEffectWarning` follows after the first forward if it ran none of the operations.

        Args:
            model: keeps its class, state_dict keys and signature; copies of it are changed
                likewise and work on their own.

        Raises:
            RefusedError: it computes activations again already, or its forward was replaced by
                a function that does not take the model.
        """
        record(model, self.sites())

    def remove(self, model: nn.Module) -> None:
        """Let the model keep its activations again.

        Args:
            model: a model that `apply` changed, or a copy of one.

        Raises:
            RefusedError: it was not changed.
        """
        forget(model)
