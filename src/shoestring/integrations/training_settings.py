"""What ``shoestring train`` is told."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Final, Literal, TypeAlias

from shoestring.core.errors import InputError
from shoestring.integrations.zeroth_names import ZEROTH, Named, ZerothName

Task: TypeAlias = Literal["classification", "lm"]
OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd", ZerothName]
Metric: TypeAlias = Literal["accuracy", "f1"]

_RATE: Final = 5e-5
_ADAPTER_RATE: Final = 2e-4
_HEAD_RATE: Final = 1e-3
_CLIP: Final = 1.0
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
        lr: learning rate; None for 5e-5, 2e-4 with adapters or 1e-3 for the head alone; of a
            zeroth-order optimizer for what is measured.
        optimizer: adamw, adam or sgd, or one of zeroth order.
        eps: how far apart a zeroth-order optimizer asks for the loss; None for what is measured.
        q: its directions of a step; None for 1.
        directions: their family; None for the optimizer's own.
        maximise: metric of a batch that it makes large in place of making the loss small.
        lora: rank of adapters, or None to train all weights.
        head_only: train what was put on top of the base alone.
        probe: begin with the head's last layer fitted to the base's features.
        quantise: ``nf4`` or ``int8`` keeps the base's weights so; needs ``lora``.
        allow: techniques that do more than keep the gradients exact.
        without: techniques that are not to be used.
        bf16: mixed precision in bfloat16.
        clip: largest norm of the gradients; 0 for none; None for 1, where there are gradients.
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
    eps: float | None = None
    q: int | None = None
    directions: str | None = None
    maximise: Metric | None = None
    lora: int | None = None
    head_only: bool = False
    probe: bool = False
    quantise: Literal["nf4", "int8"] | None = None
    allow: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    bf16: bool = False
    clip: float | None = None
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
            ("q", self.q, 1),
            ("lora", self.lora, 1),
            ("save_every", self.save_every, 1),
        ):
            if value is not None and value < least:
                raise InputError(
                    f"{name.replace('_', '-')} must be at least {least}.", hint=f"got {value}."
                )
        if not 0 < self.epochs < math.inf or (self.lr is not None and not 0 < self.lr < math.inf):
            raise InputError("epochs and lr must be positive numbers.", hint="leave them out.")
        if self.eps is not None and not 0 < self.eps < math.inf:
            raise InputError("eps must be a positive number.", hint="leave it out.")
        if self.clip is not None and not 0 <= self.clip < math.inf:
            raise InputError("clip must be a number from 0 up.", hint="0 does not clip.")
        if self.quantise is not None and self.lora is None:
            raise InputError(
                "quantised weights cannot be trained.", hint="add adapters: --lora 16."
            )
        self._check_effects()

    def _check_effects(self) -> None:
        """Refuse options that would have no effect."""
        zeroth = self.zeroth is not None
        steps = f"with --optimizer {self.optimizer}"
        for name, given, useless, hint in (
            ("eps", self.eps, not zeroth, "it is of zeroth-order optimizers, as zo."),
            ("q", self.q, not zeroth, "it is of zeroth-order optimizers, as zo."),
            ("directions", self.directions, not zeroth, "it is of zeroth-order optimizers, as zo."),
            ("clip", self.clip, zeroth, "there is no gradient to clip."),
            ("allow", self.allow, zeroth, "there is no backward, whose memory could be saved."),
            ("without", self.without, zeroth, "there is no backward, whose memory could be saved."),
        ):
            if useless and given not in (None, ()):
                raise InputError(f"--{name} has no effect {steps}.", hint=hint)
        if self.maximise and not zeroth:
            raise InputError(
                f"{self.maximise} has no gradient, so {self.optimizer} cannot maximise it.",
                hint="add --optimizer zo.",
            )
        if self.zeroth is not None and self.zeroth.rate == "own" and self.lr is None:
            raise InputError(
                f"no learning rate can be measured for --optimizer {self.optimizer}.",
                hint="give --lr, or take zo or zo-sign, whose rates are measured.",
            )
        if self.bf16 and zeroth:
            raise InputError(
                "the differences of losses drown in the rounding of mixed precision.",
                hint="leave out --bf16.",
            )
        for name, classes in (
            ("maximise", self.maximise),
            ("probe", self.probe),
            ("head-only", self.head_only),
        ):
            if classes and self.task != "classification":
                raise InputError(
                    f"--{name} is of classes, and --task {self.task} has none.",
                    hint="leave it out, or take --task classification.",
                )
        if self.head_only and self.lora is not None:
            raise InputError(
                "--head-only trains the head alone, and --lora adapters of the base.",
                hint="leave one of them out.",
            )

    @property
    def zeroth(self) -> Named | None:
        """The zeroth-order optimizer that was chosen, or None."""
        return ZEROTH.get(self.optimizer)

    @property
    def clip_norm(self) -> float:
        """The largest norm of the gradients; 0 for none."""
        return (_CLIP if self.clip is None else self.clip) if self.zeroth is None else 0.0

    @property
    def rate(self) -> float | None:
        """The learning rate; None where it is to be measured."""
        if self.lr is not None or self.zeroth is not None:
            return self.lr
        return _HEAD_RATE if self.head_only else _RATE if self.lora is None else _ADAPTER_RATE

    @property
    def choices(self) -> dict[str, str]:
        """What a run keeps to from its first step to its last, as texts by name."""
        return {
            "memory": self.memory,
            "lr": _shown(self.rate),
            "optimizer": self.optimizer,
            **({} if self.zeroth is None else self._of_zeroth()),
            "clip": f"{self.clip_norm:g}",
            "precision": "bfloat16" if self.bf16 else "float32",
            "adapters": "none" if self.lora is None else f"rank {self.lora}",
            "base": self.quantise or "as it is",
            "trained": "the head" if self.head_only else "all",
            "begins with": "a linear probe" if self.probe else "the model as it is",
            "length of training": f"{self.epochs:g} epochs"
            if self.steps is None
            else f"{self.steps} steps",
            "allow": ", ".join(self.allow) or "nothing",
            "without": ", ".join(self.without) or "nothing",
        }

    def _of_zeroth(self) -> dict[str, str]:
        return {
            "eps": _shown(self.eps),
            "q": str(self.q or 1),
            "directions": self.directions or "the optimizer's",
            "objective": self.maximise or "the loss",
        }

    @property
    def batch_rows(self) -> int:
        """Rows of a batch."""
        return self.rows or _ROWS[self.task]


def _shown(rate: float | None) -> str:
    return "measured" if rate is None else f"{rate:g}"
