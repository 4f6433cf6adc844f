"""One file a run of `bench.trainers`: what a way to train took, and the plain runs beside it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.harness import RESULTS, Plain, has_changed, ratio_and_spread, read_fields
from shoestring.core.documents import write_text

SCHEMA: Final = "shoestring/bench/trainers/1"
ROOMS: Final = ("activations", "core", "integrations", "measure", "optim", "planner")
POINTS: Final = 0.10
"""What a plan's extra time may be above the predicted extra, as a share of the plain step."""
SAME: Final = 1e-4
"""Relative difference up to which gradients are the same but for rounding in float32."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one way to train took, against plain runs made in turns with it.

    Attributes:
        job: which training it is.
        description: of the job, in words.
        side: the way to train, as in ``plan-60``; with the job the file's name.
        title: the same in words.
        changes: of the plan, in words.
        budget: bytes that the plan or the process was given, or None.
        feasible: whether any plan meets the budget.
        predicted_peak: of the plan or the plain step in bytes, or None.
        predicted_ratio: the plan's predicted time over that of the plain step, or None.
        peak: measured bytes, or None.
        gradient_error: difference of the first step's gradients from those of the plain step,
            relative to their norm; None where it was not measured.
        asked_rows: rows of the batch that was asked for.
        rows: rows of the batch that was trained on.
        length: tokens of a row, padding included.
        own: processor seconds of every timed step, a list for each round.
        plain: the same of the plain step, measured in the same rounds.
        error: what ended it, or empty.
        max_grad_norm: that gradients are clipped to.
        optimizer: in words.
        threads: of torch.
        dtype: of the model.
        machine: processor and number of cores.
        torch: version.
        transformers: version.
        accelerate: version.
        rooms: rooms of the package whose code the result depends on.
        source_hash: of their sources when it was made.
        command: that makes it again.
    """

    job: str
    description: str
    side: str
    title: str
    changes: tuple[str, ...] = ()
    budget: int | None = None
    feasible: bool = True
    predicted_peak: int | None = None
    predicted_ratio: float | None = None
    peak: int | None = None
    gradient_error: float | None = None
    asked_rows: int
    rows: int
    length: int
    own: tuple[tuple[float, ...], ...] = ()
    plain: tuple[tuple[float, ...], ...] = ()
    error: str = ""
    max_grad_norm: float
    optimizer: str
    threads: int
    dtype: str
    machine: Mapping[str, Plain]
    torch: str
    transformers: str
    accelerate: str
    rooms: tuple[str, ...] = ROOMS
    source_hash: str
    command: str

    @property
    def timed(self) -> bool:
        """Whether there is a time to compare."""
        return bool(self.own and self.plain)

    @property
    def time(self) -> tuple[float, tuple[float, float]]:
        """Time of a token over that of the plain run, with its 10th and 90th percentile."""
        own = [seconds / self.rows for steps in self.own for seconds in steps]
        plain = [seconds / self.asked_rows for steps in self.plain for seconds in steps]
        return ratio_and_spread(own, plain)

    @property
    def speed(self) -> tuple[float, tuple[float, float]]:
        """Tokens a second over those of the plain run, with their 10th and 90th percentile."""
        ratio, (low, high) = self.time
        return 1 / ratio, (1 / high, 1 / low)

    @property
    def met(self) -> bool | None:
        """Whether a plan's extra time is within the bar; None where nothing was predicted."""
        if self.predicted_ratio is None or not self.timed:
            return None
        return self.time[0] <= self.predicted_ratio + POINTS

    @property
    def same_gradients(self) -> bool | None:
        """Whether the gradients are those of the plain run; None where that is not known."""
        if self.rows != self.asked_rows:
            return False
        return None if self.gradient_error is None else self.gradient_error <= SAME

    def stands(self, rounds: int) -> bool:
        """Whether nothing has to be run again.

        Args:
            rounds: that are wanted.
        """
        return (
            not self.error
            and not has_changed(self.rooms, self.source_hash)
            and (not self.feasible or (len(self.own) >= rounds and self.peak is not None))
        )

    def median(self) -> float:
        """Return the median step in processor seconds."""
        return statistics.median(seconds for steps in self.own for seconds in steps)

    def to_json(self) -> str:
        """Return the outcome as JSON text with its schema."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"


def path_of(job: str, side: str, results: Path = RESULTS) -> Path:
    """Return where an outcome is kept.

    Args:
        job: its name.
        side: its name.
        results: folder of all results.
    """
    return results / "trainers" / f"{job}-{side}.json"


def write(outcome: Outcome, results: Path = RESULTS) -> Path:
    """Write an outcome, whole or not at all.

    Args:
        outcome: it.
        results: folder of all results.

    Returns:
        The file's path.
    """
    path = path_of(outcome.job, outcome.side, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, outcome.to_json())
    return path


def read(path: Path) -> Outcome:
    """Read an outcome.

    Args:
        path: of its file.

    Raises:
        InputError: it is no JSON document of the schema.
        ValueError: a field is missing, unknown or of another kind.
    """
    fields = read_fields(path, SCHEMA, Outcome)
    for name, value in fields.items():
        if not _KINDS[name](value):
            raise ValueError(f"{path.name}: {name} is {value!r}")
    for name in ("own", "plain"):
        fields[name] = tuple(tuple(steps) for steps in fields[name])  # type: ignore[attr-defined]
    for name in ("changes", "rooms"):
        fields[name] = tuple(fields[name])  # type: ignore[arg-type]
    return Outcome(**fields)  # type: ignore[arg-type]


def read_all(results: Path = RESULTS) -> list[Outcome]:
    """Return every outcome that there is.

    Args:
        results: folder of all results.
    """
    return [read(path) for path in sorted((results / "trainers").glob("*.json"))]


# --- kinds of fields -------------------------------------------------------------------------


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [None]


_TEXT: Final = _is(str)
_WHOLE: Final = _is(int)
_SIZE: Final = _is(int, type(None))
_SHARE: Final = _is(int, float, type(None))


def _texts(value: object) -> bool:
    return all(map(_TEXT, _items(value)))


def _rounds(value: object) -> bool:
    return all(all(map(_is(int, float), _items(steps))) for steps in _items(value))


_KINDS: Final[dict[str, Callable[[object], bool]]] = {
    **{field.name: _TEXT for field in dataclasses.fields(Outcome)},
    **dict.fromkeys(("asked_rows", "rows", "length", "threads"), _WHOLE),
    **dict.fromkeys(("budget", "predicted_peak", "peak"), _SIZE),
    **dict.fromkeys(("predicted_ratio", "gradient_error"), _SHARE),
    **dict.fromkeys(("own", "plain"), _rounds),
    **dict.fromkeys(("changes", "rooms"), _texts),
    "feasible": _is(bool),
    "max_grad_norm": _is(int, float),
    "machine": _is(dict),
}
