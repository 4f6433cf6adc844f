"""The one abstraction: a technique predicts a profile, and changes a step accordingly."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias

from shoestring.core.errors import InputError, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile

if TYPE_CHECKING:
    import torch

Option: TypeAlias = int | float | bool | str | tuple[str, ...]


class Slot(enum.IntEnum):
    """The fixed order in which techniques are applied and predicted."""

    COMPRESS = 0
    ACTIVATIONS = 1
    REMAT = 2
    STEP = 3
    PARALLEL = 4


@dataclasses.dataclass(frozen=True)
class Technique(abc.ABC):
    """A change of the training step.

    A technique is a frozen dataclass whose fields are its options (numbers, booleans, text,
    tuples of text), so that a plan can be written as data. It overrides `predict` and those
    of `apply`/`remove`, `make_optimizer`, `split`, `context` through which it acts.
    """

    name: ClassVar[str]
    """Its name in the catalogue, in plans and in ``allow=``."""
    slot: ClassVar[Slot]
    reported: ClassVar[bool] = False
    """Reported with its prediction; never part of a plan."""
    alone: ClassVar[bool] = False
    """Where it is reported, by itself and not with the exact changes that go with it."""

    @abc.abstractmethod
    def fidelity(self, profile: Profile) -> Fidelity:
        """Return what it does to the gradients of this step.

        Args:
            profile: the step it would change.
        """

    @abc.abstractmethod
    def refuse(self, profile: Profile) -> str:
        """Return why it cannot be used on this step, as a sentence; empty where it can.

        Args:
            profile: the step it would change.
        """

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        """Return the options worth trying on this step, the mildest first; by default its own.

        Args:
            profile: the step it would change.
        """
        return (cls(),)

    def refit(self, profile: Profile) -> Self:
        """Return it for another step, whose modules may have other names; by default as it is.

        Args:
            profile: the other step.
        """
        return self

    @abc.abstractmethod
    def predict(self, profile: Profile) -> Profile:
        """Return the profile of the changed step.

        Args:
            profile: the step before the change.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Return the change in a few words for a table, as in ``checkpoint 4 of 6 blocks``."""

    def confirm(self, profile: Profile) -> Self:
        """Return it as it is to be applied, once a planner has chosen it.

        The place for checks that take time, so that only the chosen ones are made.

        Args:
            profile: the plain step.

        Raises:
            RefusedError: a check failed; the planner chooses again without it.
        """
        return self

    def apply(self, model: torch.nn.Module) -> None:
        """Change the model in place.

        Args:
            model: keeps its class, state_dict keys and forward signature.
        """

    def remove(self, model: torch.nn.Module) -> None:
        """Undo `apply`.

        Args:
            model: a model that `apply` changed.
        """

    def make_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return an optimizer whose step is changed; by default the one given.

        Args:
            optimizer: the plain optimizer, just built.
        """
        return optimizer

    def split(
        self, batch: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...] | torch.Tensor
    ) -> Iterator[
        tuple[Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...] | torch.Tensor, float]
    ]:
        """Yield the parts of a batch with the weight of each part's loss.

        Args:
            batch: one batch.
        """
        yield batch, 1.0

    def context(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which forward and backward run."""
        return contextlib.nullcontext()

    def options(self) -> dict[str, Option]:
        """Return its options as plain data."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Build it from plain data that may come from a file.

        Args:
            options: what `options` returned; lists stand for tuples.

        Raises:
            InputError: an option is missing, unknown or of another type.
        """
        fields = {f.name: f for f in dataclasses.fields(cls)}
        values: dict[str, object] = {}
        for key, value in options.items():
            if key not in fields:
                raise InputError(
                    f"{cls.name} has no option {key!r}.", hint=f"it has {sorted(fields)}."
                )
            values[key] = tuple(value) if isinstance(value, list) else value
        for key, field in fields.items():
            required = field.default is dataclasses.MISSING
            if key not in values:
                if required:
                    raise InputError(f"{cls.name} lacks its option {key!r}.", hint="add it.")
                continue
            _check_type(cls.name, key, values[key], str(field.type))
        technique = cls(**values)
        technique.validate()
        return technique

    def validate(self) -> None:
        """Raise InputError where an option is out of range."""


_TYPES: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "float": (int, float),
    "bool": bool,
    "str": str,
    "tuple[str, ...]": tuple,
}


def _check_type(name: str, key: str, value: object, annotation: str) -> None:
    expected = _TYPES[annotation]
    right = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    if right and isinstance(value, tuple):
        right = all(isinstance(part, str) for part in value)
    if not right:
        raise InputError(f"option {key!r} of {name} must be {annotation}.", hint=f"got {value!r}.")


def refuse_unless_applicable(technique: Technique, profile: Profile) -> None:
    """Raise RefusedError where a technique cannot be used on a step.

    Args:
        technique: the technique.
        profile: the step.

    Raises:
        RefusedError: with the technique's own reason.
    """
    reason = technique.refuse(profile)
    if reason:
        raise RefusedError(f"{technique.name}: {reason}", hint="leave it out of allow=.")
