"""A count as a JSON document and as CSV; what is read may come from anywhere."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

from shoestring.core.documents import parse_document, read_document, write_text
from shoestring.core.errors import InputError
from shoestring.core.trace import Phase, Work
from shoestring.measure.counting.counts import (
    FIGURES,
    Count,
    Counted,
    Row,
    figures_of,
    sum_up,
)

SCHEMA: Final = "shoestring/count/1"

CsvLines: TypeAlias = Literal["row", "module", "phase", "op"]

_MOST_BYTES: Final = 64 * 2**20
_MOST_WHOLE: Final = 2**63 - 1
_LONGEST_TEXT: Final = 10_000
_NAMED: Final = ("phase", "module", "op", "dtype")
"""Columns of texts: each text stands once in a list, and the rows hold its place there."""
_KEYS: Final = ("schema", "title", "params", "activation_bytes", "bytes_in", "bytes_out")


def count_json(count: Count) -> str:
    """Return a count as JSON text with a schema name.

    The rows are columns, so that the document of a model with a thousand layers stays small.
    ``total`` is what they sum to, for those who want no more.

    Args:
        count: what was counted.
    """
    counted = count.counted
    names = {key: list(dict.fromkeys(_text_of(row, key) for row in counted.rows)) for key in _NAMED}
    places = {key: {text: i for i, text in enumerate(texts)} for key, texts in names.items()}
    rows: dict[str, list[int] | list[bool]] = {
        **{key: [places[key][_text_of(row, key)] for row in counted.rows] for key in _NAMED},
        "known": [row.known for row in counted.rows],
        "calls": [row.calls for row in counted.rows],
        **{key: [getattr(row.work, key) for row in counted.rows] for key in Work._fields},
    }
    data = {
        "schema": SCHEMA,
        "title": counted.title,
        "params": counted.params,
        "activation_bytes": counted.activation_bytes,
        "bytes_in": counted.bytes_in,
        "bytes_out": counted.bytes_out,
        "total": dataclasses.asdict(count.total),
        "unknown_ops": count.unknown_ops,
        "names": names,
        "rows": rows,
    }
    return json.dumps(data, separators=(",", ":"))


def _text_of(row: Row, key: str) -> str:
    return str(getattr(row, key))


def save_count(count: Count, path: str | os.PathLike[str]) -> None:
    """Write a count to a file, whole or not at all.

    Args:
        count: what was counted.
        path: where to; an existing file is replaced.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, count_json(count) + "\n")


def load_count(path: str | os.PathLike[str]) -> Count:
    """Read a count; the file is not trusted.

    Args:
        path: a file that `save_count` wrote, or that ``shoestring count --json`` printed.

    Raises:
        InputError: it is no such file, and what is wrong with it.
    """
    name = os.fspath(path)
    return _count(read_document(path, SCHEMA, most_bytes=_MOST_BYTES), name)


def parse_count(text: str) -> Count:
    """Read a count from JSON text, which is not trusted.

    Args:
        text: what `count_json` returned.

    Raises:
        InputError: it is no such text, and what is wrong with it.
    """
    name = "the text"
    return _count(parse_document(text, SCHEMA, name=name, most_bytes=_MOST_BYTES), name)


# --- reading ---------------------------------------------------------------------------------


class _Reader:
    """Takes a document's parts, each checked.

    Args:
        name: of the document, for errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def damaged(self, what: str) -> InputError:
        """Return the error that says what is wrong."""
        return InputError(
            f"{self._name} is damaged: {what}.", hint="write the count again with shoestring."
        )

    def part(self, data: Mapping[str, object], key: str) -> object:
        """Return a part that must be there."""
        if key not in data:
            raise self.damaged(f"it lacks {key!r}")
        return data[key]

    def mapping(self, data: Mapping[str, object], key: str) -> dict[str, object]:
        """Return an object."""
        value = self.part(data, key)
        if not isinstance(value, dict):
            raise self.damaged(f"{key!r} is no object")
        return value

    def whole(self, value: object, key: str) -> int:
        """Return a whole number from 0."""
        if type(value) is not int or not 0 <= value <= _MOST_WHOLE:
            raise self.damaged(f"{key!r} must be a whole number from 0")
        return value

    def text(self, value: object, key: str) -> str:
        """Return a text."""
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise self.damaged(f"{key!r} must be a text, and no long one")
        return value

    def column(self, data: Mapping[str, object], key: str) -> list[object]:
        """Return a list."""
        value = self.part(data, key)
        if not isinstance(value, list):
            raise self.damaged(f"{key!r} is no list")
        return value

    def only(self, data: Mapping[str, object], keys: Sequence[str], what: str) -> None:
        """Refuse what is not known: a newer version may mean something by it."""
        extra = sorted(set(data) - set(keys))
        if extra:
            raise self.damaged(f"{what} has the unknown key {extra[0][:60]!r}")


def _count(data: Mapping[str, object], name: str) -> Count:
    read = _Reader(name)
    read.only(data, (*_KEYS, "total", "unknown_ops", "names", "rows"), "it")
    rows = _rows(read, data)
    total = read.mapping(data, "total")
    # Not read as figures: a list of rows that was cut would be seen here.
    if total != dataclasses.asdict(sum_up(rows)):
        raise read.damaged("the rows do not sum to its total")
    made = Counted(
        title=read.text(read.part(data, "title"), "title"),
        params=read.whole(read.part(data, "params"), "params"),
        rows=rows,
        activation_bytes=read.whole(read.part(data, "activation_bytes"), "activation_bytes"),
        bytes_in=read.whole(read.part(data, "bytes_in"), "bytes_in"),
        bytes_out=read.whole(read.part(data, "bytes_out"), "bytes_out"),
    )
    count = Count(lambda: made)
    if read.part(data, "unknown_ops") != count.unknown_ops:
        raise read.damaged("the operators without a formula are not those of its rows")
    return count


def _rows(read: _Reader, data: Mapping[str, object]) -> tuple[Row, ...]:
    columns = read.mapping(data, "rows")
    keys = (*_NAMED, "known", "calls", *Work._fields)
    read.only(columns, keys, "'rows'")
    found = {key: read.column(columns, key) for key in keys}
    if len({len(column) for column in found.values()}) != 1:
        raise read.damaged("the columns of its rows differ in length")
    texts = {key: _named(read, data, key, found[key]) for key in _NAMED}
    phases = {phase.value: phase for phase in Phase}
    for text in texts["phase"]:
        if text not in phases:
            raise read.damaged(f"the phase {text[:60]!r} is unknown")
    if not all(isinstance(value, bool) for value in found["known"]):
        raise read.damaged("'known' must be true or false")
    numbers = {key: [read.whole(v, key) for v in found[key]] for key in ("calls", *Work._fields)}
    works = map(Work, *(numbers[key] for key in Work._fields))
    made = zip(
        (phases[text] for text in texts["phase"]),
        texts["module"],
        texts["op"],
        texts["dtype"],
        (value is True for value in found["known"]),
        works,
        numbers["calls"],
        strict=True,
    )
    return tuple(Row(*values) for values in made)


def _named(
    read: _Reader, data: Mapping[str, object], key: str, column: Sequence[object]
) -> list[str]:
    """Return a column of texts."""
    names = read.mapping(data, "names")
    read.only(names, _NAMED, "'names'")
    texts = [read.text(text, key) for text in read.column(names, key)]
    places = [read.whole(place, key) for place in column]
    if any(place >= len(texts) for place in places):
        raise read.damaged(f"{key!r} names what is not in its list")
    return [texts[place] for place in places]


# --- CSV -------------------------------------------------------------------------------------


def count_csv(count: Count, by: CsvLines = "row", depth: int | None = None) -> str:
    """Return a count as CSV with a line of names.

    Args:
        count: what was counted.
        by: ``row`` for a line for every kind of call, with its figures times the calls; or a
            line for every module (what is inside it included), phase or operator.
        depth: of the modules; all by default.

    Raises:
        InputError: ``by`` is none of these.
    """
    out = io.StringIO()
    texts = (text for row in count.rows for text in (row.module, row.op, row.dtype))
    bare = any("\r" in text for text in texts)
    # Python's writer leaves a carriage return bare where it ends no line of its own.
    writer = csv.writer(
        out,
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL,
    )
    if by == "row":
        writer.writerow(["phase", "module", "op", "dtype", "known", *FIGURES])
        for row in count.rows:
            head = [row.phase.value, row.module, row.op, row.dtype, str(row.known).lower()]
            writer.writerow([*head, *figures_of(sum_up([row]))])
        return out.getvalue()
    if by not in ("module", "phase", "op"):
        raise InputError(f"by={by!r} is not known.", hint='use "row", "module", "phase" or "op".')
    costs = {
        "module": lambda: count.by_module(depth),
        "phase": count.by_phase,
        "op": count.by_op,
    }[by]()
    writer.writerow([by, *FIGURES])
    for name, cost in costs.items():
        writer.writerow([name, *figures_of(cost)])
    return out.getvalue()
