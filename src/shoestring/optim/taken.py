"""What stands in the place of a gradient that was used in backward and freed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NoReturn, Self

import torch

from shoestring.core.errors import RefusedError
from shoestring.measure._torch import tensor_without_storage

ONE_BACKWARD: Final = (
    "one backward a step: no accumulation, no retained graph. After an error in backward, load a "
    "checkpoint, or call step() to go on from the parameters as they are."
)


class TakenGradient(torch.Tensor):
    """A gradient that is gone: it has a shape and no data, and whatever reads it raises.

    With None in its place, clipping, scaling and averaging would find nothing to do and pass
    over it in silence.

    Args:
        param: whose gradient it was.

    Raises:
        RefusedError: something computes with it.

    Example:
        >>> TakenGradient(torch.zeros(3, 2))
        gradient of shape (3, 2), used in backward
    """

    @staticmethod
    def __new__(cls: type[Self], param: torch.Tensor) -> Self:
        """Return one without storage."""
        return tensor_without_storage(cls, tuple(param.shape), param.dtype, param.device)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own annotation lacks cls and func
        cls,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> NoReturn:
        """Refuse to compute with it; its shape and type can be read."""
        if func is torch.ops.aten.add_.Tensor:
            raise RefusedError(
                "a parameter got a second gradient in one step, and its first was used already.",
                hint=ONE_BACKWARD,
            )
        raise RefusedError(
            "gradients were used in backward and are gone, so that nothing can clip, scale, "
            "average or log them.",
            hint="say clip_norm=, accumulate=, ddp=, or for a GradScaler autocast=torch.float16, "
            "to shoestring.profile and plan again: then release-gradients is left out. The "
            "parameters are updated already.",
        )

    def __repr__(self) -> str:  # type: ignore[override]  # torch's takes options for its values
        return f"gradient of shape {tuple(self.shape)}, used in backward"
