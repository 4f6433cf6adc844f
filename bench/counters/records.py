"""One file a case: its count by hand, by ours and by the others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from bench.counters.judge import Judgement, Verdict, judge
from bench.harness import RESULTS, ROOT, has_changed, read_fields
from shoestring.core.documents import write_text

SCHEMA: Final = "shoestring/bench/counters/1"
ROOMS: Final = ("core", "measure")
FOLDER: Final = "counters"
FORWARD_TABLE: Final = "forward"
STEP_TABLE: Final = "step"
NOT_INSTALLED: Final = "not installed: "
Number: TypeAlias = int | float

_INPUTS: Final = ("hand", "models", "case", "cases", "steps", "peers")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one counter said of a case.

    Attributes:
        title: of the counter.
        version: of the counter, or empty where it is not installed.
        used: the call whose answer was taken.
        note: how the answer is to be read, or empty.
        answer: in the case's unit, or None where it gave none.
        added: what it says itself it counted beside contractions.
        terms: what its rules may add in this case, by kind.
        error: why there is no answer, or empty.
    """

    title: str
    version: str
    used: str
    note: str
    answer: Number | None
    added: Mapping[str, Number]
    terms: Mapping[str, Number]
    error: str = ""

    def judged(self, right: int) -> Judgement:
        """Judge the answer.

        Args:
            right: the count by hand.
        """
        if self.answer is not None:
            return judge(right, self.answer, self.added, self.terms)
        missing = self.error.startswith(NOT_INSTALLED)
        return Judgement(Verdict.MISSING if missing else Verdict.CRASHED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One case, counted by all.

    Attributes:
        case: its name; also the file's.
        title: for people.
        table: that shows it, `FORWARD_TABLE` or `STEP_TABLE`.
        place: in the table.
        unit: of all counts.
        formula: of the hand count, in words.
        hand: by phase.
        ours: by phase.
        unknown: operators that ours has no formula for -> calls.
        error: why ours gave none, or empty.
        peers: what the others said, by name, in the table's order.
        inputs: hash of the cases and of the way the others are used.
        torch: version.
        rooms: rooms of the package that ours depends on.
        source_hash: of their sources when it was made.
        command: that makes it again.
    """

    case: str
    title: str
    table: str
    place: int
    unit: str
    formula: str
    hand: Mapping[str, int]
    ours: Mapping[str, int]
    unknown: Mapping[str, int]
    error: str
    peers: Mapping[str, Said]
    inputs: str
    torch: str
    rooms: tuple[str, ...] = ROOMS
    source_hash: str
    command: str

    @property
    def right(self) -> int:
        """The count by hand, of all phases."""
        return sum(self.hand.values())

    @property
    def ours_is_right(self) -> bool:
        """Whether ours is right in every phase, and knew every operator."""
        phases = {*self.hand, *self.ours}
        same = all(self.hand.get(phase, 0) == self.ours.get(phase, 0) for phase in phases)
        return same and not self.error and not self.unknown

    @property
    def older(self) -> bool:
        """Whether the code of ours has changed since."""
        return has_changed(self.rooms, self.source_hash)

    def to_json(self) -> str:
        """Return the record as JSON text with its schema."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"


def inputs_hash(folder: Path = ROOT / "bench" / "counters") -> str:
    """Return a hash of the cases and of the way the others are used.

    Args:
        folder: of these sources.
    """
    digest = hashlib.sha256()
    for name in _INPUTS:
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]


def path_of(case: str, results: Path = RESULTS) -> Path:
    """Return where a record is kept.

    Args:
        case: its name.
        results: folder of all results.
    """
    return results / FOLDER / f"{case}.json"


def write(record: Record, results: Path = RESULTS) -> Path:
    """Write a record, whole or not at all.

    Args:
        record: it.
        results: folder of all results.

    Returns:
        The file's path.
    """
    path = path_of(record.case, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, record.to_json())
    return path


def read(path: Path) -> Record:
    """Read a record.

    Args:
        path: of its file.

    Raises:
        InputError: it is no JSON document of the schema.
        ValueError: a field is missing, unknown or of another kind.
    """
    fields = read_fields(path, SCHEMA, Record)
    peers = fields["peers"]
    if not isinstance(peers, dict) or not all(isinstance(said, dict) for said in peers.values()):
        raise ValueError(f"{path.name}: peers are {peers!r}")
    for name in ("hand", "ours", "unknown"):
        _check_numbers(path, name, fields[name])
    try:
        fields["peers"] = {name: Said(**said) for name, said in peers.items()}
    except TypeError as error:
        raise ValueError(f"{path.name}: {error}") from None
    for name, said in fields["peers"].items():
        if said.answer is not None:
            _check_numbers(path, name, {"answer": said.answer})
        _check_numbers(path, name, said.added)
        _check_numbers(path, name, said.terms)
    rooms = fields["rooms"]
    if not isinstance(rooms, list):
        raise ValueError(f"{path.name}: rooms are {rooms!r}")
    fields["rooms"] = tuple(rooms)
    return Record(**fields)  # type: ignore[arg-type]


def _check_numbers(path: Path, name: str, value: object) -> None:
    numbers = value.values() if isinstance(value, dict) else [None]
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        raise ValueError(f"{path.name}: {name} is {value!r}")


def read_all(results: Path = RESULTS) -> list[Record]:
    """Return every record, in the order of the tables.

    Args:
        results: folder of all results.
    """
    found = [read(path) for path in (results / FOLDER).glob("*.json")]
    return sorted(found, key=lambda record: (record.table, record.place))
