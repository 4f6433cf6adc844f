"""The optimizer's own step: without temporaries, or during backward without gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

import torch

from shoestring.core.errors import RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile, Step
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import Trace
from shoestring.optim import rewrite
from shoestring.optim.released import (
    ReleasedAdam,
    ReleasedAdamW,
    ReleasedOptimizer,
    ReleasedSGD,
    released_by,
)
from shoestring.optim.sliced import SlicedAdam, SlicedAdamW, SlicedOptimizer, SlicedSGD

_SLICED: Final[Mapping[type[torch.optim.Optimizer], type[SlicedOptimizer]]] = {
    torch.optim.Adam: SlicedAdam,
    torch.optim.AdamW: SlicedAdamW,
    torch.optim.SGD: SlicedSGD,
}
_RELEASED: Final[Mapping[type[torch.optim.Optimizer], type[ReleasedOptimizer]]] = {
    torch.optim.Adam: ReleasedAdam,
    torch.optim.AdamW: ReleasedAdamW,
    torch.optim.SGD: ReleasedSGD,
    SlicedAdam: ReleasedAdam,
    SlicedAdamW: ReleasedAdamW,
    SlicedSGD: ReleasedSGD,
}
_LOOPS: Final = (
    torch.optim.Adadelta,
    torch.optim.Adafactor,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
)
"""Classes that update each parameter by itself, with torch's for-loop where foreach is off."""


@dataclasses.dataclass(frozen=True)
class SlicedStep(Technique):
    """Run the optimizer's step slice by slice, so that it makes no large temporaries.

    torch's for-loop form of AdamW holds ``sqrt(v)`` and its quotient, each of the size of a
    parameter, while it updates that parameter; its foreach form holds them for all at once.
    Here the same torch routines run on slices of 2^18 elements (2^22 on a device of its
    own) and give the same bits. The optimizer stays an instance of its torch class, with the
    same groups and the same ``state_dict``.

    Adam, AdamW and SGD are sliced; with ``fused=True``, which makes no temporaries, they run
    torch's fused kernel as before. torch's other per-parameter optimizers are set to their
    for-loop form, one parameter at a time. Anything else is refused.

    On several threads torch's for-loop in bfloat16 and float16 rounds differently for
    elements at the end of a thread's share, so that it depends on the number of threads; the
    sliced form gives the one-thread bits there.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = SlicedStep().make_optimizer(torch.optim.AdamW(model.parameters()))
        >>> isinstance(optimizer, torch.optim.AdamW)
        True
    """

    name: ClassVar[str] = "sliced-step"
    slot: ClassVar[Slot] = Slot.STEP

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT: the arithmetic is torch's own.

        Args:
            profile: the step it would change.
        """
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why it cannot be used on this step, as a sentence; empty where it can.

        Args:
            profile: the step it would change.
        """
        reason = _unsupported(profile.step)
        if not reason and profile.step.optimizer_options.get("fused"):
            return "the optimizer is fused and makes no temporaries as it is."
        return reason

    def predict(self, profile: Profile) -> Profile:
        """Return the profile with one update a parameter, whose workspace is a few slices.

        Args:
            profile: the step before the change.
        """
        return _predicted(profile, rewrite.sliced)

    def describe(self) -> str:
        """Return the change in a few words."""
        return "optimizer step in slices"

    def make_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimizer in its sliced form; the one given must not be used afterwards.

        Args:
            optimizer: a plain torch optimizer, just built.

        Returns:
            For Adam, AdamW and SGD another object with the same groups and state; for
            torch's other per-parameter optimizers the one given.

        Raises:
            RefusedError: its class is not known to update each parameter by itself, it is
                changed already, or it has a scheduler.
        """
        if type(optimizer) in _LOOPS:
            for options in (optimizer.defaults, *optimizer.param_groups):
                _refuse_options(optimizer, options)
                options.update({k: False for k in ("foreach", "fused") if k in options})
            return optimizer
        return _converted(self.name, optimizer, _SLICED)


@dataclasses.dataclass(frozen=True)
class ReleaseGradients(Technique):
    """Update each parameter as soon as its gradient is complete, and free the gradient.

    A hook on every parameter runs the sliced update during backward, so that gradients are
    never all alive at once; ``optimizer.step()`` then only finishes what came through no
    hook. The trajectory is the plain one's, bit for bit.

    It cannot work where something must see all gradients before the first update, or more
    than one backward makes a gradient: clipping by the global norm, GradScaler,
    accumulation, several processes. A second gradient for a parameter within one step
    raises, and so does whatever reads a gradient after backward.

    A model that reads a parameter's value during backward outside of what autograd tracks
    (a detached use inside an earlier checkpointed block) would read the updated one.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = ReleaseGradients().make_optimizer(torch.optim.SGD(model.parameters()))
        >>> model(torch.ones(1, 3)).sum().backward()
        >>> model.weight.grad
        gradient of shape (2, 3), used in backward
        >>> optimizer.step()
        >>> optimizer.close()  # plain again
    """

    name: ClassVar[str] = "release-gradients"
    slot: ClassVar[Slot] = Slot.STEP

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT: each update is torch's own, only earlier.

        Args:
            profile: the step it would change.
        """
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why it cannot be used on this step, as a sentence; empty where it can.

        Args:
            profile: the step it would change.
        """
        step = profile.step
        reason = _unsupported(step)
        if reason:
            return reason
        if step.clip_norm is not None:
            return "clipping by the global norm needs all gradients before the first update."
        if step.accumulate > 1:
            return "gradients are accumulated over several backward passes."
        if not step.set_to_none:
            return "gradients are kept between steps (set_to_none=False)."
        if step.ddp:
            return "gradients are averaged over the processes before the first update."
        if step.autocast == "float16":
            return "float16 autocast needs GradScaler, which looks at all gradients first."
        return ""

    def predict(self, profile: Profile) -> Profile:
        """Return the profile in which each gradient dies in the update that follows it.

        Args:
            profile: the step before the change.
        """
        return _predicted(profile, rewrite.released)

    def describe(self) -> str:
        """Return the change in a few words."""
        return "gradients used in backward"

    def make_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimizer with hooks on its parameters.

        Args:
            optimizer: a plain Adam, AdamW or SGD, just built; not to be used afterwards.

        Returns:
            An instance of the same torch class, with ``close()`` and ``pending`` beside.

        Raises:
            RefusedError: it is of another class, changed already, or has a scheduler; or
                another optimizer releases a gradient of these parameters.
        """
        return _converted(self.name, optimizer, _RELEASED)

    def remove(self, model: torch.nn.Module) -> None:
        """Close every optimizer that releases gradients of the model.

        Args:
            model: whose parameters have hooks.
        """
        for parameter in model.parameters():
            optimizer = released_by(parameter)
            if optimizer is not None:
                optimizer.close()


def _unsupported(step: Step) -> str:
    if step.custom:
        return "the step is a function of the user's own, which may do anything with gradients."
    if not step.optimizer:
        return "the step has no optimizer."
    if step.optimizer not in rewrite.SUPPORTED:
        known = ", ".join(rewrite.SUPPORTED.values())
        return f"it knows {known}, and the step uses {step.optimizer}."
    for option in ("capturable", "differentiable"):
        if step.optimizer_options.get(option):
            return f"the optimizer has {option}=True."
    return ""


def _predicted(profile: Profile, change: Callable[[Trace, Step, Machine], Trace]) -> Profile:
    traces = tuple(change(trace, profile.step, profile.machine) for trace in profile.traces)
    return dataclasses.replace(profile, traces=traces)


def _refuse_options(optimizer: torch.optim.Optimizer, options: Mapping[str, object]) -> None:
    for option in ("capturable", "differentiable"):
        if options.get(option):
            raise RefusedError(
                f"{type(optimizer).__name__} has {option}=True, which needs its own step.",
                hint=f"leave {option} out.",
            )


def _converted(
    name: str,
    optimizer: torch.optim.Optimizer,
    kinds: Mapping[type[torch.optim.Optimizer], type[SlicedOptimizer]],
) -> SlicedOptimizer:
    """Return an object of our class that shares groups, state and hooks with the one given."""
    if isinstance(optimizer, ReleasedOptimizer) or type(optimizer) in set(kinds.values()):
        raise RefusedError(
            f"{name}: the optimizer is a {type(optimizer).__name__} already.",
            hint="apply it once, to a plain torch optimizer.",
        )
    kind = kinds.get(type(optimizer))
    if kind is None:
        known = ", ".join(cls.__name__ for cls in _SLICED)
        raise RefusedError(
            f"{name} is not known to be exact for {type(optimizer).__name__}.",
            hint=f"it knows torch's own {known}.",
        )
    if "step" in optimizer.__dict__:
        raise RefusedError(
            f"{name} must be applied before a learning-rate scheduler wraps the optimizer.",
            hint="build the scheduler on the optimizer that make_optimizer returns.",
        )
    for group in optimizer.param_groups:
        _refuse_options(optimizer, group)
    state = dict(optimizer.__dict__)
    state.pop("_step_supports_amp_scaling", None)  # that was the fused form's
    changed = kind.__new__(kind)
    changed.__setstate__(state)
    return changed
