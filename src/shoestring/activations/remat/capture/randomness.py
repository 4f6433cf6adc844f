"""Operations of a step that draw random numbers, run again with the same numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch._ops import OpOverload


def random_state(device: torch.device) -> torch.Tensor:
    """Return the state of a device's generator.

    Args:
        device: whose numbers are drawn next.
    """
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()


def replay(
    state: torch.Tensor,
    device: torch.device,
    operator: OpOverload,
    args: Sequence[object],
    kwargs: Mapping[str, object],
) -> object:
    """Run an operator with the random numbers that it drew before.

    Args:
        state: of the generator before it ran.
        device: of the generator.
        operator: what is run.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        Its result; the generator stands as it stood.
    """
    before = random_state(device)
    _set_state(state, device)
    try:
        return operator(*args, **kwargs)
    finally:
        _set_state(before, device)


def dropout_from_mask(input: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:  # noqa: A002
    """Return what dropout returned, from the mask that it drew.

    Two roundings, as in torch's own: ``(x * mask) * scale``.

    Args:
        input: of the dropout.
        mask: True where a number was kept.
        scale: ``1 / (1 - p)``.
    """
    return input.mul(mask).mul_(scale)


def _set_state(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
