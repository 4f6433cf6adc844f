"""The folder of a training run: what the run writes as it goes, and a report reads.

run.json        what was run, on what, and how it went: `Run`
log.jsonl       a line for each logged step or evaluation, as `Entry`
timeline.json   the memory of one step, plain and as planned, and the costs by module
count.json      the FLOPs and bytes of one step as planned, as `shoestring.Count` keeps them
checkpoints/    complete checkpoints
model/          the trained model, when the run has finished
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, get_args

from shoestring.core.documents import read_document, write_text
from shoestring.core.errors import InputError

RUN_SCHEMA: Final = "shoestring/run/1"
TIMELINE_SCHEMA: Final = "shoestring/timeline/1"

Status: TypeAlias = Literal["running", "finished", "stopped", "failed"]
Numbers: TypeAlias = dict[str, float]

_MOST_LOG_BYTES: Final = 256 * 2**20


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One training run.

    Attributes:
        model: name or path, as it was given.
        task: ``classification`` or ``lm``.
        command: the words that started it.
        seed: of weights, order and dropout.
        started: when, in UTC, as in ``2026-01-31T12:00:00Z``.
        status: how it stands; a run that was killed stays ``running``.
        steps: optimizer steps it is to take.
        step: optimizer steps it has taken.
        machine: name of the machine.
        versions: of Python and libraries, by name.
        data: sizes and names of the data, for people.
        options: what the run keeps to from its first step to its last, for people.
        budget: bytes of the whole step, or None.
        plan: the plan's own document.
        measured: ``peak`` and ``resident`` in bytes, ``seconds`` a step; what is not known is
            missing.
        note: why it failed or stopped, in a sentence; empty otherwise.
    """

    model: str
    task: str
    command: str
    seed: int
    started: str
    status: Status
    steps: int
    step: int
    machine: str
    versions: dict[str, str]
    data: dict[str, str]
    budget: int | None
    plan: dict[str, object]
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    measured: Numbers = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One line of a run's log.

    Attributes:
        step: optimizer steps taken.
        kind: ``train`` or ``eval``.
        values: ``loss``, ``lr``, ``grad_norm`` and ``seconds`` of a step; metrics by name.
    """

    step: int
    kind: Literal["train", "eval"]
    values: Numbers


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one step over time, thinned so that it can be drawn.

    Attributes:
        phases: of each point: forward, recompute, backward or optimizer.
        kinds: bytes at each point, by what they hold.
        peak: the most bytes at once, which some point shows.
    """

    phases: list[str]
    kinds: dict[str, list[int]]
    peak: int


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """What one step costs.

    Attributes:
        plain: memory of the plain step.
        planned: memory of the step as it is run.
        modules: costs of the plain step by module: ``path`` and numbers by name.
    """

    plain: Memory
    planned: Memory
    modules: list[dict[str, float | str]]


class RunFolder:
    """Writes and reads a run's folder.

    Every file is whole at any time; only the log grows, and a line that was cut short by a
    crash is passed over.

    Args:
        path: the folder; made when something is first written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def count(self) -> Path:
        """Where the count of the step goes."""
        return self.path / "count.json"

    @property
    def model(self) -> Path:
        """Where the trained model goes."""
        return self.path / "model"

    def exists(self) -> bool:
        """Whether a run has been written there."""
        return (self.path / "run.json").is_file()

    def write(self, run: Run) -> None:
        """Write what is known of the run.

        Args:
            run: replaces what was written before.

        Raises:
            InputError: the folder cannot be written.
        """
        self._make()
        data = {"schema": RUN_SCHEMA, **dataclasses.asdict(run)}
        write_text(self.path / "run.json", json.dumps(data, indent=1, allow_nan=False) + "\n")

    def read(self) -> Run:
        """Return what is known of the run.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = self.path / "run.json"
        if self.path.is_dir() and not path.exists():
            raise InputError(
                f"{self.path} is not the folder of a run.", hint="name what train --out made."
            )
        data = read_document(path, RUN_SCHEMA)
        del data["schema"]
        run = _made(Run, data, path)
        if run.status not in get_args(Status):
            raise _damaged(path, f"the status {run.status!r} is unknown")
        return run

    def append(self, entry: Entry) -> None:
        """Add a line to the log.

        Args:
            entry: numbers that are not finite are written as text.

        Raises:
            InputError: the log cannot be written.
        """
        self._make()
        values = {k: v if math.isfinite(v) else str(v) for k, v in entry.values.items()}
        line = json.dumps({"step": entry.step, "kind": entry.kind, **values})
        try:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise InputError(
                f"the log in {self.path} cannot be written ({error.strerror}).",
                hint="free some space; the checkpoints that stand are whole.",
            ) from error

    def log(self) -> list[Entry]:
        """Return the log; lines that are no entries are passed over.

        Raises:
            InputError: the log cannot be read, or is too large.
        """
        path = self.path / "log.jsonl"
        try:
            if not path.exists():
                return []
            if path.stat().st_size > _MOST_LOG_BYTES:
                raise InputError(f"{path} is too large.", hint="it cannot be such a log.")
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}).", hint="check its rights."
            ) from error
        return [entry for line in text.splitlines() if (entry := _entry(line)) is not None]

    def cut(self, step: int) -> None:
        """Drop log entries after a step, to go on from there.

        Args:
            step: the last one that is kept.

        Raises:
            InputError: the log cannot be written.
        """
        kept = [entry for entry in self.log() if entry.step <= step]
        lines = [json.dumps({"step": e.step, "kind": e.kind, **e.values}) for e in kept]
        write_text(self.path / "log.jsonl", "".join(line + "\n" for line in lines))

    def write_timeline(self, timeline: Timeline) -> None:
        """Write what one step costs.

        Args:
            timeline: replaces what was written before.

        Raises:
            InputError: the folder cannot be written.
        """
        self._make()
        data = {"schema": TIMELINE_SCHEMA, **dataclasses.asdict(timeline)}
        write_text(self.path / "timeline.json", json.dumps(data, allow_nan=False) + "\n")

    def timeline(self) -> Timeline:
        """Return what one step costs.

        Raises:
            InputError: it was not written, or is damaged.
        """
        path = self.path / "timeline.json"
        data = read_document(path, TIMELINE_SCHEMA)
        del data["schema"]
        for name in ("plain", "planned"):
            part = data.get(name)
            if not isinstance(part, dict):
                raise _damaged(path, f"it lacks {name!r}")
            memory = _made(Memory, part, path)
            lengths = {len(memory.phases), *(len(sizes) for sizes in memory.kinds.values())}
            if len(lengths) != 1:
                raise _damaged(path, f"the columns of {name!r} differ in length")
            data[name] = memory
        return _made(Timeline, data, path)

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be made ({error.strerror}).",
                hint="name a folder in a place that may be written.",
            ) from error


def _entry(line: str) -> Entry | None:
    try:
        data = json.loads(line)
        step, kind = data.pop("step"), data.pop("kind")
        values = {str(k): float(v) for k, v in data.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if kind not in ("train", "eval") or type(step) is not int:
        return None
    return Entry(step, kind, values)


_SHAPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "str": str,
    "Status": str,
    "int": int,
    "int | None": (int, type(None)),
    "dict[str, str]": dict,
    "dict[str, object]": dict,
    "Numbers": dict,
    "list[str]": list,
    "dict[str, list[int]]": dict,
    "list[dict[str, float | str]]": list,
    "Memory": Memory,
}


_Record = TypeVar("_Record", Run, Memory, Timeline)


def _made(kind: type[_Record], data: Mapping[str, object], path: Path) -> _Record:
    """Return a record made of a document's object, whose fields are checked."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in _first(set(data) - set(fields)):
        raise _damaged(path, f"it has the unknown key {name!r}")
    required = {n for n, f in fields.items() if f.default is f.default_factory}
    for name in _first(required - set(data)):
        raise _damaged(path, f"it lacks {name!r}")
    for name, value in data.items():
        shape = str(fields[name].type)
        if not isinstance(value, _SHAPES[shape]) or isinstance(value, bool):
            raise _damaged(path, f"{name!r} is of another type")
        if not _holds(value, shape):
            raise _damaged(path, f"{name!r} holds values of another type")
    return kind(**data)  # type: ignore[arg-type]  # checked just above, by name


def _holds(value: object, shape: str) -> bool:
    if shape == "dict[str, str]":
        return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if shape == "Numbers":
        return isinstance(value, dict) and all(type(v) in (int, float) for v in value.values())
    if shape == "list[str]":
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if shape == "dict[str, list[int]]":
        lists = value.values() if isinstance(value, dict) else ()
        return all(isinstance(v, list) and all(type(n) is int for n in v) for v in lists)
    if shape.startswith("list[dict"):
        rows = value if isinstance(value, list) else []
        return all(isinstance(row, dict) and isinstance(row.get("path"), str) for row in rows)
    return True


def _first(names: Iterable[str]) -> list[str]:
    return sorted(names)[:1]


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} is damaged: {what}.", hint="run the training again.")
