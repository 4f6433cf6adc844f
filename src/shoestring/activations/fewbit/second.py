"""What a function does that has a first derivative and no second."""

from __future__ import annotations

import torch


def refuse_second(what: str) -> None:
    """Raise where a backward is itself to be differentiated.

    What is kept for backward is less than a second derivative needs, so that autograd would find a
    wrong one without a word.

    Args:
        what: the function, as the sentence begins.

    Raises:
        RuntimeError: gradients are enabled, as they are within ``create_graph=True``.

    Example:
        >>> with torch.no_grad():
        ...     refuse_second("the norm")
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{what} cannot be differentiated twice.\n"
            "hint: leave out create_graph=True, or take torch's own layer."
        )
