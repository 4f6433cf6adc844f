"""Asks for losses without writing to the parameters, and in place where that cannot be."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.measure._torch import compiled_inside, has_compiled_calls
from shoestring.zeroth.asking import Asking, Closure, InPlace, Loss
from shoestring.zeroth.same_numbers import SameNumbers

T = TypeVar("T")

_REFUSALS: Final = (RuntimeError, ValueError, TypeError, AssertionError)
"""What torch raises where a closure cannot be called so."""


class TwinWarning(RuntimeWarning):
    """The parameters are moved in place, or copied, though they were not to be."""


class RefusedError(RuntimeError):
    """A loss cannot be found without writing to the parameters."""


class Watch:
    """What is known of a closure's functions and the trained parameters, from step to step.

    Args:
        model: whose parameters are trained.
        parameters: those that are, in the order of the directions.

    Attributes:
        parameters: the same.
        known: index of its parameter, by the id of every tensor that is a trained parameter.
        reason: why the parameters are moved in place; None where they are not.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[torch.Tensor]) -> None:
        named = list(model.named_parameters(remove_duplicate=False))
        self.parameters: Final = tuple(parameters)
        numbers = {_memory(p): k for k, p in reversed(list(enumerate(parameters)))}
        self._names = {numbers.get(_memory(p), -1): name for name, p in reversed(named)}
        self._kept = [*parameters, *(p for _, p in named)]  # so that no other tensor gets an id
        self.known: Final = {
            id(p): numbers[_memory(p)] for p in self._kept if _memory(p) in numbers
        }
        self._model = model
        self._unread: set[int] = set()
        self.reason: str | None = None

    def name(self, index: int) -> str:
        """Return the name of a parameter.

        Args:
            index: of the parameter.
        """
        return self._names.get(index, f"parameter {index}")

    def is_fit(self, *, statistics: bool) -> bool:
        """Return whether a step is to be tried; where it is not for the first time, say why.

        Args:
            statistics: whether a model may change its running statistics.
        """
        if self.reason is None and (found := _unfit(self._model, statistics)):
            self.refuse(found)
        return self.reason is None

    def refuse(self, reason: str) -> None:
        """Move the parameters in place from now on, and say why.

        Args:
            reason: what cannot be.
        """
        self.reason = reason
        words = f"the parameters are moved in place after all: {reason}."
        warnings.warn(words, TwinWarning, stacklevel=2)

    def missed(self, seen: Iterable[int], ask: Callable[[], torch.Tensor]) -> str | None:
        """Return why losses are wrong: a parameter matters that no function was given.

        Args:
            seen: indices of those that a function was given.
            ask: for the loss where the parameters are.
        """
        unseen = set(range(len(self.parameters))) - set(seen) - self._unread
        if unseen and self._are_read(sorted(unseen), ask):
            names = ", ".join(self.name(index) for index in sorted(unseen)[:5])
            return f"one of {names} is read through a tensor that was made before the closure"
        self._unread |= unseen
        return None

    def _are_read(self, indices: Sequence[int], ask: Callable[[], torch.Tensor]) -> bool:
        """Return whether the loss depends on parameters that no function was given."""
        before = ask()
        parameters = [self.parameters[k].detach() for k in indices]
        kept = [parameter.clone() for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.add_(1)
            after = ask()
        finally:
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
        return not torch.equal(before.nan_to_num(), after.nan_to_num())


class Beside(Asking, abc.ABC):
    """Asks for the losses of one step without writing, and in place where that cannot be.

    Args:
        watch: what is known of the closure.
        closure: returns the loss.
        in_place: what is asked else.
    """

    def __init__(self, watch: Watch, closure: Closure, in_place: InPlace) -> None:
        super().__init__()
        self._watch, self._closure, self._in_place = watch, closure, in_place
        self._same, self._reason = SameNumbers(), ""

    def here(self) -> float:
        """Return the loss at the parameters themselves; see `Asking.here`."""
        return self._take(self._same.call(self._closure))

    def ahead(self, index: int) -> float:
        """Return the loss on one side; see `Asking.ahead`."""
        found = self._try([index], [1])
        if found is None:
            return self._aside(lambda: self._in_place.ahead(index))
        return self._take(found[0])

    def sides(self, count: int) -> list[tuple[float, float]]:
        """Return the losses on both sides; see `Asking.sides`."""
        found = self._try(range(count), [1, -1])
        if found is None:
            return self._aside(lambda: self._in_place.sides(count))
        return [self._pair(*pair) for pair in zip(found[::2], found[1::2], strict=True)]

    def leave(self) -> None:
        """Put the parameters back, where they were moved in place; see `Asking.leave`."""
        self._in_place.leave()

    @abc.abstractmethod
    def _losses(
        self, indices: Sequence[int], signs: Sequence[int]
    ) -> tuple[Sequence[Loss], set[int]]:
        """Return the losses along directions, and which parameters a function was given.

        Args:
            indices: of the directions.
            signs: of the places along each.

        Returns:
            Losses direction by direction, and for each sign by sign; indices of parameters.
        """

    def _try(self, indices: Sequence[int], signs: Sequence[int]) -> Sequence[Loss] | None:
        """Return the losses along directions; None where that cannot be."""
        if self._watch.reason is not None:
            return None
        try:
            losses, seen = self._losses(indices, signs)
            reason = self._watch.missed(seen, self._plain)
        except InputError:
            raise
        except _REFUSALS as error:
            reason = f"{type(error).__name__}, {_first_sentence(error)}"
        if reason is None:
            return losses
        self._reason = reason
        return None

    def _plain(self) -> torch.Tensor:
        """Call the closure where the parameters are, under the same random numbers."""
        return torch.as_tensor(self._same.call(self._closure)).detach().clone()

    def _aside(self, ask: Callable[[], T]) -> T:
        """Ask with the parameters moved in place, and do so from now on."""
        start = len(self._in_place.losses)
        found = self._same.call(ask)
        self.losses += self._in_place.losses[start:]
        self.samples, self.errors = self._in_place.samples, self._in_place.errors
        if self._watch.reason is None:
            self._watch.refuse(self._reason)
        return found


def _memory(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    """Return what two tensors have in common that are the same parameter."""
    return tensor.data_ptr(), tensor.shape


def _first_sentence(error: Exception) -> str:
    """Return the beginning of what an error says."""
    words = " ".join(str(error).split())
    return words.split(". ")[0][:200].rstrip(".")


def _unfit(model: nn.Module, statistics: bool) -> str | None:
    """Return why a model's closure is not to be tried."""
    for name, module in model.named_modules():
        where = name or "the model"
        if compiled_inside(module) is not None or has_compiled_calls(module):
            return f"{where} is compiled"
        tracked = getattr(module, "running_mean", None) is not None
        if not statistics and module.training and tracked:
            return f"{where} changes its running statistics in training"
    return None
