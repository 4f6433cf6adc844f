"""The tables of the techniques' pages: what each saves, was predicted to save, and costs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bench.harness import RESULTS, has_changed
from shoestring import catalog
from shoestring.core.documents import read_document
from shoestring.core.units import format_bytes

Record: TypeAlias = dict[str, object]

SCHEMA: Final = "shoestring/bench/technique/1"


def technique(results: Path = RESULTS, *, name: str) -> str:
    """Return the table of one technique, a row a step.

    Args:
        results: folder of all results.
        name: of the technique.
    """
    # Here, since `bench.tables` lists these tables among its own.
    from bench.tables import FOOTNOTE, NOT_RUN, OLDER, _grid

    path = results / "techniques" / f"{name}.json"
    if not path.exists():
        return NOT_RUN
    document = read_document(path, SCHEMA)
    rows = _rows(document["rows"])
    older = has_changed(_texts(document["rooms"]), str(document["source_hash"]))
    timed = any(row.get("time_ratio") is not None for row in rows)
    varies = len({row["change"] for row in rows if "change" in row}) > 1
    head = ["model", *(["change"] if varies else []), "batch", "plain", "with it", "predicted"]
    head += ["error", *(["time", "predicted time"] if timed else [])]
    lines = [_line(row, varies, timed, OLDER if older else "") for row in rows]
    said = [
        "Plain and with it: measured peak of a steady step with AdamW in float32 on one CPU "
        "thread, and its share of the plain one. Error: of the predicted peak."
    ]
    if timed:
        said.append("Time: of a step against plain, processor time, with its 10 to 90 % range.")
    said += [str(document["note"]), FOOTNOTE if older else ""]
    return f"{_grid(head, lines, left=2 if varies else 1)}\n\n" + " ".join(filter(None, said))


def _line(row: Record, varies: bool, timed: bool, mark: str) -> list[str]:
    from bench.tables import _percent

    optimizer = "" if row["optimizer"] == "AdamW" else f", {row['optimizer']}"
    first = [f"{row['model']}{optimizer}"]
    if "error" in row:
        blank = [""] * (3 + 2 * timed)
        return [*first, *([""] if varies else []), str(row["batch"]), "failed", *blank]
    plain, measured, predicted = (_number(row[key]) for key in ("plain", "measured", "predicted"))
    return [
        *first,
        *([str(row["change"])] if varies else []),
        str(row["batch"]),
        format_bytes(plain),
        f"{format_bytes(measured)}, {100 * measured / plain:.0f} %{mark}",
        format_bytes(predicted),
        _percent(predicted / measured - 1) + mark,
        *(_times(row, mark) if timed else []),
    ]


def _times(row: Record, mark: str) -> list[str]:
    if row["time_ratio"] is None:
        return ["", ""]
    spread = row["time_spread"]
    assert isinstance(spread, list)
    low, high = map(_number, spread)
    return [
        f"{_number(row['time_ratio']):.2f} ({low:.2f} to {high:.2f}){mark}",
        f"{_number(row['predicted_time_ratio']):.2f}{mark}",
    ]


def _rows(value: object) -> list[Record]:
    return [dict(item) for item in _items(value) if isinstance(item, dict)]


def _texts(value: object) -> list[str]:
    return [str(item) for item in _items(value)]


def _items(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError("a list is wanted in a technique's result")
    return value


def _number(value: object) -> float:
    return float(str(value))


TECHNIQUES: Final[dict[str, Callable[[Path], str]]] = {
    f"technique-{row.name}": functools.partial(technique, name=row.name)
    for row in catalog.rows()
    if row.kind == "technique"
}
"""The tables by the name that a page calls them by."""
