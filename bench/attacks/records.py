"""The results of this folder: one JSON file a cell, and whether it is still of today's code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from bench.harness import RESULTS, ROOT, machine, source_hash
from shoestring.core.documents import read_document, write_text

SCHEMA: Final = "shoestring/bench/attacks/1"
FOLDER: Final = "attacks"
ROOMS: Final = ("zeroth/attacks",)
"""Rooms of the package that ours depends on."""
SHARED: Final = ("counting.py", "networks.py", "pictures.py", "train.py")
"""Files of this folder that every cell depends on."""
NORMAL: Final = 1.959964
"""Quantile of a 95 % interval."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A cell's result.

    Attributes:
        who: ``ours/METHOD``, or a peer's name.
        network: that was attacked.
        norm: of the ball.
        eps: its radius.
        targeted: whether there were targets.
        queries: the budget.
        options: settings.
        version: of the library, where it is not ours.
        asked: queries of each image.
        success: query at which each image succeeded; 0 for never.
        lost: queries whose pixels are not numbers.
        seconds: of processor time.
        older: whether the code has changed since.
    """

    who: str
    network: str
    norm: str
    eps: float
    targeted: bool
    queries: int
    options: str
    version: str
    asked: tuple[int, ...]
    success: tuple[int, ...]
    lost: int
    seconds: float
    older: bool = False

    @property
    def name(self) -> str:
        """Name of the cell, and of its file."""
        aim = "targeted" if self.targeted else "untargeted"
        return f"{self.network}-{self.norm}-{aim}/{self.who.replace('/', '-')}"

    @property
    def wins(self) -> tuple[bool, ...]:
        """Whether each image succeeded within the budget."""
        return tuple(0 < query <= self.queries for query in self.success)

    @property
    def rate(self) -> float:
        """Share of the images that succeeded."""
        return sum(self.wins) / len(self.wins)

    def within(self, queries: int) -> float:
        """Return the share of images that succeeded within some queries.

        Args:
            queries: of each.
        """
        return sum(0 < q <= queries for q in self.success) / len(self.success)

    def median(self) -> int | None:
        """Return the median of the queries of those that succeeded; None without any."""
        found = sorted(q for q in self.success if 0 < q <= self.queries)
        return found[(len(found) - 1) // 2] if found else None


def wilson(wins: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share.

    Args:
        wins: successes.
        count: of how many.

    Example:
        >>> [round(end, 3) for end in wilson(50, 100)]
        [0.404, 0.596]
    """
    share, z = wins / count, NORMAL**2 / count
    middle = share + z / 2
    half = NORMAL * math.sqrt(share * (1 - share) / count + z / (4 * count))
    return (middle - half) / (1 + z), (middle + half) / (1 + z)


def paired(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[float, float, float]:
    """Return the difference of two shares on the same images, with its 95 % interval.

    Args:
        ours: successes.
        theirs: successes, image by image.

    Returns:
        Difference, lower and upper end: of the normal approximation for paired shares.

    Example:
        >>> [round(x, 3) for x in paired([True] * 6 + [False] * 4, [True] * 3 + [False] * 7)]
        [0.3, 0.016, 0.584]
    """
    count = len(ours)
    more = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    less = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    difference = (more - less) / count
    spread = math.sqrt(max(more + less - (more - less) ** 2 / count, 0)) / count
    return difference, difference - NORMAL * spread, difference + NORMAL * spread


def sources(who: str, torch_version: str = torch.__version__) -> str:
    """Return a hash of all that a cell depends on.

    Args:
        who: ``ours/METHOD``, or a peer's name.
        torch_version: of the torch that ran.
    """
    digest = hashlib.sha256(torch_version.encode())
    ours = who.startswith("ours/")
    if ours:
        digest.update(source_hash(ROOMS).encode())
    for name in (*SHARED, *(() if ours else ("peer.py",))):
        digest.update(name.encode())
        digest.update((ROOT / "bench" / FOLDER / name).read_bytes())
    return digest.hexdigest()[:16]


def path_of(name: str, results: Path = RESULTS) -> Path:
    """Return where a cell's result is kept.

    Args:
        name: of the cell.
        results: folder of all results.
    """
    return results / FOLDER / f"{name}.json"


def write(record: Record, *, made_with: str, results: Path = RESULTS) -> Path:
    """Write a cell's result, whole or not at all.

    Args:
        record: the result.
        made_with: `sources` from before the measurement.
        results: folder of all results.

    Returns:
        The file's path.
    """
    figures: dict[str, object] = {
        field.name: getattr(record, field.name) for field in dataclasses.fields(record)
    }
    del figures["older"]
    about = {
        "schema": SCHEMA,
        "command": f"python -m bench.attacks.run {record.name}",
        "machine": machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "source_hash": made_with,
    }
    path = path_of(record.name, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**about, **figures}) + "\n")
    return path


def read(path: Path) -> Record:
    """Read a result.

    Args:
        path: of its file.

    Raises:
        InputError: it is no JSON document of the schema.
        ValueError: a field is missing.
    """
    document = read_document(path, SCHEMA)
    fields = {field.name for field in dataclasses.fields(Record)} - {"older"}
    if missing := fields - set(document):
        raise ValueError(f"{path.name}: {', '.join(sorted(missing))} is missing")
    values = {name: document[name] for name in fields}
    then = sources(str(document["who"]), str(document["torch"]))
    for name in ("asked", "success"):
        values[name] = _whole(values[name])
    older = document["source_hash"] != then
    return Record(**values, older=older)  # type: ignore[arg-type]


def _whole(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError(f"a list is wanted, not {value!r}")
    return tuple(int(str(number)) for number in value)


def read_all(results: Path = RESULTS) -> list[Record]:
    """Return all results.

    Args:
        results: folder of all results.
    """
    return [read(path) for path in sorted((results / FOLDER).glob("*/*.json"))]


def is_current(name: str, about: Mapping[str, object], results: Path = RESULTS) -> bool:
    """Return whether a cell has a result of today's code and settings.

    Args:
        name: of the cell.
        about: fields that the result must have.
        results: folder of all results.
    """
    path = path_of(name, results)
    if not path.exists():
        return False
    record = read(path)
    return not record.older and all(getattr(record, key) == value for key, value in about.items())
