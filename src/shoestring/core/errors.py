"""Every error that shoestring raises on purpose: one sentence, and a hint."""

from __future__ import annotations


class ShoestringError(ValueError):
    """An error that the user can act on.

    Args:
        message: one sentence that says what is wrong.
        hint: what to do about it; shown after ``hint:``.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(cls: type[ShoestringError], message: str, hint: str) -> ShoestringError:
    return cls(message, hint=hint)


class InputError(ShoestringError):
    """What the user gave cannot be used as it is."""


class InfeasibleError(ShoestringError):
    """No allowed plan meets the budget; the message says the least that is reachable."""

    exit_code = 3


class RefusedError(ShoestringError):
    """A technique does not work on this model or step, and says why."""


class NoEffectWarning(UserWarning):
    """A technique was applied and found nothing to change."""


class AssumptionWarning(UserWarning):
    """Something about the step had to be assumed; the text says what."""
