"""What a run of the fine-tuning depends on."""

from __future__ import annotations

from typing import Final

from bench.zeroth.sources import sources as sources_of

FILES: Final = ("finetune/data.py", "finetune/runs.py", "finetune/task.py", "mezo.py")


def sources(module: str) -> str:
    """Return a hash of what a method's results depend on.

    Args:
        module: of the room, where its class is; none for what is not ours.
    """
    return sources_of(module, *FILES)
