"""What the demo's three runs are told, and the arithmetic of their limit.

Only the standard library is imported here, so that the process which watches the others
stays small.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Final, Self

BUDGET_SHARE: Final = 0.6
"""The budget as a share of the plain step's measured peak."""

MIB: Final = 2**20

ALLOWANCE: Final = 16 * MIB
"""Room above libraries and budget for what is no tensor.

It holds Python's own objects (the model's modules, the plan), blocks under 64 KiB, which the C
library keeps on its heap, and the rounding of every larger block to whole pages.
"""

MEASURED_STEP: Final = 2
"""Index of the step that is measured: the third, when the optimizer's state has stood twice."""

FEWEST_STEPS: Final = 5
LONGEST_SHORT_FORM: Final = 20


class Mode(enum.StrEnum):
    """How a run trains."""

    PLAIN = "plain"
    SHOESTRING = "shoestring"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything one training process is told.

    Attributes:
        mode: the plain loop, or the same loop with a plan.
        model: folder of the pretrained model.
        steps: training steps.
        threads: of torch.
        test_rows: held-out tweets that accuracy is measured on.
        rows: tweets in a batch.
        length: tokens a tweet is padded or cut to.
        lr: learning rate of AdamW.
        seed: of the cut of the corpus, the new classifier and dropout.
        budget: bytes of the training step, or None for the run without a limit.
        limit: bytes of the process's data segments (RLIMIT_DATA), or None.
    """

    mode: Mode
    model: str
    steps: int
    threads: int
    test_rows: int
    rows: int = 32
    length: int = 64
    lr: float = 5e-5
    seed: int = 0
    budget: int | None = None
    limit: int | None = None

    def to_json(self) -> str:
        """Return the settings as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read settings that `to_json` wrote.

        Args:
            text: JSON text.
        """
        values = json.loads(text)
        return cls(**{**values, "mode": Mode(values["mode"])})


def budget_bytes(plain_peak: int) -> int:
    """Return the budget: a fixed share of the measured peak of the plain step.

    Args:
        plain_peak: bytes.

    Example:
        >>> budget_bytes(1000)
        600
    """
    return int(plain_peak * BUDGET_SHARE)


def limit_bytes(*, loaded: int, budget: int) -> int:
    """Return the RLIMIT_DATA that leaves a training step its budget and no more.

    The kernel counts a process's private writable memory as VmData, and refuses whatever
    would take it beyond RLIMIT_DATA. Part of it is there before the training begins:
    libraries, tokenised text, stacks of threads, work buffers of the matrix library. The
    budget is for the training step alone, so that it comes on top of that part.

    Args:
        loaded: VmData with all of that in place and no model loaded, in bytes.
        budget: bytes of the training step.

    Example:
        >>> limit_bytes(loaded=500 * MIB, budget=428 * MIB) // MIB
        944
    """
    return loaded + budget + ALLOWANCE


def rows_to_test(steps: int) -> int:
    """Return how many held-out tweets a run is tested on; the short form takes fewer.

    Args:
        steps: training steps.
    """
    return 512 if steps <= LONGEST_SHORT_FORM else 2048
