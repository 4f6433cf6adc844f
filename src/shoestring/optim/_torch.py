"""The one private attribute of torch that this room reads."""

from __future__ import annotations

from collections.abc import Callable

import torch


def accumulate_hooks(param: torch.Tensor) -> list[Callable[[torch.Tensor], None]]:
    """Return the hooks that run after a parameter's gradient was accumulated.

    torch offers a way to add one (`torch.Tensor.register_post_accumulate_grad_hook`) and to
    remove the one just added, and none to list them.

    Args:
        param: a leaf tensor.
    """
    hooks = getattr(param, "_post_accumulate_grad_hooks", None)
    return list(hooks.values()) if hooks else []
