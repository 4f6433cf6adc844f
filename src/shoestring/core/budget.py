"""What the user has."""

from __future__ import annotations

import dataclasses

from shoestring.core.errors import InputError
from shoestring.core.units import parse_bytes, parse_percent, parse_seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget for one training step.

    Args:
        memory: the total of the step (parameters, gradients, optimizer state, batch,
            activations, temporaries): ``"24GiB"``, a percentage of the plain step's peak
            ``"60%"``, or ``"auto"`` for what is free on the machine.
        seconds: the longest step, ``"2s"`` or a number of seconds.
        activations: the peak of forward and backward above parameters and buffers, a size
            or a percentage of the plain one.

    Raises:
        InputError: a text is not understood, or nothing is given.

    Example:
        >>> Budget(memory="600MiB").memory_bytes(plain_peak=10**9)
        629145600
    """

    memory: str | int | None = None
    seconds: str | float | None = None
    activations: str | int | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.seconds is None and self.activations is None:
            raise InputError(
                "the budget is empty.", hint='give memory, as in Budget(memory="4GiB").'
            )
        if self.memory != "auto":
            _resolve(self.memory, 1)
        _resolve(self.activations, 1)
        if self.seconds is not None:
            parse_seconds(self.seconds)

    def memory_bytes(self, *, plain_peak: int, free: int | None = None) -> int | None:
        """Return the memory budget in bytes.

        Args:
            plain_peak: the plain step's peak in bytes, which a percentage refers to.
            free: the bytes free on the machine, for ``"auto"``.

        Returns:
            Bytes, or None where memory is not limited.

        Raises:
            InputError: ``"auto"`` on a machine whose memory is not known.
        """
        if self.memory == "auto":
            if free is None:
                raise InputError(
                    "how much memory is free is not known.", hint="name a size, as in 24GiB."
                )
            return free
        return _resolve(self.memory, plain_peak)

    def activation_bytes(self, *, plain_peak: int) -> int | None:
        """Return the activation budget in bytes, or None.

        Args:
            plain_peak: the plain step's peak above parameters and buffers, in bytes.

        Returns:
            Bytes, or None where activations are not limited.
        """
        return _resolve(self.activations, plain_peak)

    def step_seconds(self) -> float | None:
        """Return the longest step in seconds, or None."""
        return None if self.seconds is None else parse_seconds(self.seconds)


def _resolve(value: str | int | None, whole: int) -> int | None:
    if value is None:
        return None
    fraction = parse_percent(value) if isinstance(value, str) else None
    return int(whole * fraction) if fraction is not None else parse_bytes(value)
