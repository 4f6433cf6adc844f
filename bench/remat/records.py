"""The results of this folder: one JSON file a cell, and whether it is still of today's code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

import torch

from bench.harness import RESULTS, ROOT, Plain, machine, source_hash
from shoestring.core.documents import read_document, write_text

SCHEMA: Final = "shoestring/bench/remat/1"
FOLDER: Final = "remat"
ROOMS: Final = ("activations/remat", "core", "measure")
"""Rooms of the package that every cell depends on."""
SHARED: Final = (
    "bench/harness.py",
    "bench/remat/_torch.py",
    "bench/remat/models.py",
    "bench/remat/records.py",
    "bench/remat/steps.py",
    "tests/zoo/case.py",
    "tests/zoo/images.py",
    "tests/zoo/sequences.py",
    "tests/zoo/signals.py",
    "tests/zoo/text.py",
)
"""Files that every cell depends on beside the one that measures it."""

Figures: TypeAlias = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A result that was read.

    Attributes:
        part: which of the measurements it is of.
        name: of the cell.
        place: of the cell among those of its part.
        figures: what was measured; ``error`` where that failed.
        older: whether the code has changed since.
    """

    part: str
    name: str
    place: int
    figures: Figures
    older: bool

    def number(self, *keys: str) -> float:
        """Return a figure, found through nested tables.

        Args:
            keys: name of the figure, those of the tables that it lies in before it.
        """
        found: object = self.figures
        for key in keys:
            found = as_table(found)[key]
        return float(str(found))


def as_table(value: object) -> Figures:
    """Return a nested table of figures.

    Args:
        value: what was found in a result.

    Raises:
        TypeError: it is no table.
    """
    if not isinstance(value, dict):
        raise TypeError(f"a table is wanted, not {value!r}")
    return value


def as_numbers(value: object) -> list[float]:
    """Return a list of figures.

    Args:
        value: what was found in a result.

    Raises:
        TypeError: it is no list.
    """
    if not isinstance(value, list):
        raise TypeError(f"a list is wanted, not {value!r}")
    return [float(str(item)) for item in value]


def sources(part: str, torch_version: str = torch.__version__) -> str:
    """Return a hash of all that a cell's figures depend on.

    Args:
        part: name of the module that measures it.
        torch_version: of the torch that measured.
    """
    digest = hashlib.sha256(torch_version.encode())
    digest.update(source_hash(ROOMS).encode())
    for name in (*SHARED, f"bench/remat/{part}.py"):
        digest.update(name.encode())
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def path_of(part: str, name: str, results: Path = RESULTS) -> Path:
    """Return where a cell's result is kept.

    Args:
        part: which of the measurements.
        name: of the cell.
        results: folder of all results.
    """
    return results / FOLDER / part / f"{name}.json"


def is_current(part: str, name: str, results: Path = RESULTS) -> bool:
    """Return whether a cell has a result that is of today's code.

    Args:
        part: which of the measurements.
        name: of the cell.
        results: folder of all results.
    """
    path = path_of(part, name, results)
    return path.exists() and not _read(path, part).older


def write(
    part: str,
    name: str,
    figures: Mapping[str, object],
    *,
    made_with: str,
    place: int = 0,
    results: Path = RESULTS,
) -> Path:
    """Write a cell's result, whole or not at all.

    Args:
        part: which of the measurements.
        name: of the cell.
        figures: what was measured.
        made_with: `sources` from before the measurement, so that what was edited meanwhile makes
            the result an older one.
        place: of the cell among those of its part.
        results: folder of all results.

    Returns:
        The file's path.
    """
    about: dict[str, Plain | Mapping[str, Plain]] = {
        "schema": SCHEMA,
        "part": part,
        "name": name,
        "place": place,
        "command": f"python -m bench.remat.{part} {name}",
        "machine": machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "source_hash": made_with,
    }
    path = path_of(part, name, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**about, "figures": dict(figures)}, indent=1) + "\n")
    return path


def read_part(part: str, results: Path = RESULTS) -> list[Record]:
    """Return the results of a part, in the order of its cells.

    Args:
        part: which of the measurements.
        results: folder of all results.
    """
    found = [_read(path, part) for path in (results / FOLDER / part).glob("*.json")]
    return sorted(found, key=lambda record: (record.place, record.name))


def _read(path: Path, part: str) -> Record:
    document = read_document(path, SCHEMA)
    then = sources(part, str(document["torch"]))
    figures = as_table(document["figures"])
    place = int(str(document["place"]))
    return Record(part, path.stem, place, figures, older=document["source_hash"] != then)
