"""What ``shoestring train`` is told."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Final, Literal, TypeAlias

from shoestring.core.errors import InputError

Task: TypeAlias = Literal["classification", "lm"]
OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd"]

_RATE: Final = 5e-5
_ADAPTER_RATE: Final = 2e-4
_ROWS: Final = {"classification": 32, "lm": 8}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextTraining:
    """What to train, on what, and within what.

    Attributes:
        model: folder of a transformers model with its tokenizer, or a name in the local cache.
        data: file or folder of texts.
        task: ``classification`` or ``lm`` (the next token).
        out: folder of the run.
        memory: budget of the whole step, as in ``600MiB``, ``60%`` or ``auto``.
        eval_data: file or folder to evaluate on; by default a tenth of the data is held out.
        rows: of a batch; None for 32, or 8 for ``lm``.
        length: most tokens of a row; None for what covers 99 % of the texts, up to 512.
        epochs: passes over the data, where ``steps`` is None.
        steps: optimizer steps.
        lr: learning rate; None for 5e-5, or 2e-4 with adapters.
        optimizer: adamw, adam or sgd.
        lora: rank of adapters, or None to train all weights.
        quantise: ``nf4`` or ``int8`` keeps the base's weights so; needs ``lora``.
        allow: techniques that do more than keep the gradients exact.
        without: techniques that are not to be used.
        bf16: mixed precision in bfloat16.
        clip: largest norm of the gradients; 0 for none.
        seed: of weights, order and dropout.
        save_every: steps between checkpoints; None for ten in all.
        text_column: of the data, where it cannot be told.
        label_column: of the data, where it cannot be told.
        skip_bad: leave out rows that cannot be used, and count them.
        command: the words that started it, for the record.
    """

    model: str
    data: Path
    task: Task
    out: Path
    memory: str = "auto"
    eval_data: Path | None = None
    rows: int | None = None
    length: int | None = None
    epochs: float = 3.0
    steps: int | None = None
    lr: float | None = None
    optimizer: OptimizerName = "adamw"
    lora: int | None = None
    quantise: Literal["nf4", "int8"] | None = None
    allow: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    bf16: bool = False
    clip: float = 1.0
    seed: int = 0
    save_every: int | None = None
    text_column: str | None = None
    label_column: str | None = None
    skip_bad: bool = False
    command: str = ""

    def check(self) -> None:
        """Refuse what can be refused before anything is read.

        Raises:
            InputError: an option is out of range, or would have no effect.
        """
        for name, value, least in (
            ("rows", self.rows, 1),
            ("length", self.length, 8),
            ("steps", self.steps, 1),
            ("lora", self.lora, 1),
            ("save_every", self.save_every, 1),
        ):
            if value is not None and value < least:
                raise InputError(
                    f"{name.replace('_', '-')} must be at least {least}.", hint=f"got {value}."
                )
        if not 0 < self.epochs < math.inf or (self.lr is not None and not 0 < self.lr < math.inf):
            raise InputError("epochs and lr must be positive numbers.", hint="leave them out.")
        if not 0 <= self.clip < math.inf:
            raise InputError("clip must be a number from 0 up.", hint="0 does not clip.")
        if self.quantise is not None and self.lora is None:
            raise InputError(
                "quantised weights cannot be trained.", hint="add adapters: --lora 16."
            )

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.lr or (_RATE if self.lora is None else _ADAPTER_RATE)

    @property
    def choices(self) -> dict[str, str]:
        """What a run keeps to from its first step to its last, as texts by name."""
        return {
            "memory": self.memory,
            "lr": f"{self.rate:g}",
            "optimizer": self.optimizer,
            "clip": f"{self.clip:g}",
            "precision": "bfloat16" if self.bf16 else "float32",
            "adapters": "none" if self.lora is None else f"rank {self.lora}",
            "base": self.quantise or "as it is",
            "length of training": f"{self.epochs:g} epochs"
            if self.steps is None
            else f"{self.steps} steps",
            "allow": ", ".join(self.allow) or "nothing",
            "without": ", ".join(self.without) or "nothing",
        }

    @property
    def batch_rows(self) -> int:
        """Rows of a batch."""
        return self.rows or _ROWS[self.task]
