"""What a process of `bench.trainers` is told, and the names of the ways to train.

Nothing beyond the standard library is imported here.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Final, Literal, Self, TypeAlias

Verb: TypeAlias = Literal["plan", "find", "train"]

PLAIN: Final = "plain"
SHARES: Final = (80, 60, 50)
"""Budgets in percent of the plain step's predicted peak."""
LEAST: Final = "plan-least"
"""The plan for the least memory that is reachable."""
SECONDS: Final = "plan-seconds"
"""The plan for the least memory within a step time."""
SLOWER: Final = 1.15
"""That step time over the predicted one of the plain step."""
CHECKPOINTING: Final = "gradient-checkpointing"
AUTO_FIND: Final = "auto-find-batch-size"
MATCHED: Final = "plan-60"
"""Whose memory `AUTO_FIND` is given."""
TITLES: Final = {
    PLAIN: "plain",
    **{f"plan-{share}": f"plan for {share} %" for share in SHARES},
    LEAST: "plan for the least memory",
    SECONDS: f"plan for {SLOWER} of the step time",
    CHECKPOINTING: "`gradient_checkpointing=True`",
    AUTO_FIND: "`auto_find_batch_size=True`",
}
"""The ways to train in words, in the order of the table."""
ANSWER: Final = "answer.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one process is told.

    Attributes:
        verb: what to do.
        job: name of the job.
        folder: for what is written; `ANSWER` in it is the answer.
        plan: name of the plan to train by, or empty.
        checkpointing: train with ``gradient_checkpointing=True``.
        auto_find: train with ``auto_find_batch_size=True``.
        rows: of the batch that is begun with.
        budget: bytes of the step that are enforced, to find a batch.
        warm_ups: steps before the first timed one.
        steps: timed steps.
        measure: whether the peak and the gradients are measured too.
    """

    verb: Verb
    job: str
    folder: str
    plan: str = ""
    checkpointing: bool = False
    auto_find: bool = False
    rows: int = 0
    budget: int = 0
    warm_ups: int = 2
    steps: int = 0
    measure: bool = False

    def to_json(self) -> str:
        """Return the settings as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read settings that `to_json` wrote.

        Args:
            text: JSON text.
        """
        return cls(**json.loads(text))
