"""Rows of CSV, TSV and JSON-lines files, one after the other; a bad row does not end the file."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoestring.core.errors import InputError
from shoestring.integrations.text_lines import MOST_LINE_BYTES, Fault, Line, Lines, lines_of

TABLE_KINDS: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_DELIMITERS: Final = (",", ";", "\t", "|")
_SAMPLE: Final = 20  # rows by which the delimiter is told
_SAMPLE_CHARACTERS: Final = 2**20
_IN_QUOTES: Final = re.compile(r'(?:[^"]++|"")*+')
_QUOTE_HINT: Final = 'put a text that holds quotes into quotes and double those inside: "a ""b"" c"'


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        place: where it is, as in ``train.csv, line 12``.
        cells: its values by column.
    """

    place: str
    cells: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be used.

    Attributes:
        place: where it is.
        fault: why.
    """

    place: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with named columns.

    Attributes:
        name: what messages call it.
        columns: names of the columns; of JSON lines, the keys of the first good row.
        rows: the rows, read once.
        fixed: whether every row has exactly these columns.
    """

    name: str
    columns: tuple[str, ...]
    rows: Iterator[Row | Bad]
    fixed: bool


def read_table(path: Path, *, name: str) -> Table:
    """Open a table.

    Args:
        path: a file of one of `TABLE_KINDS`.
        name: what messages call it.

    Returns:
        The table, of which little more than the header has been read.

    Raises:
        InputError: the file cannot be read, is empty, or its header cannot be used.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv_table(path, name)
    return _json_table(path, name)


# --- CSV ----------------------------------------------------------------------------------------


class _Broken(Exception):  # noqa: N818 - never leaves this module
    """A record that does not follow the rules of quoting."""

    def __init__(self, fault: Fault, used: list[Line]) -> None:
        super().__init__(fault.reason)
        self.fault = fault
        self.used = used


def _csv_table(path: Path, name: str) -> Table:
    lines = Lines(lines_of(path))
    first = _first_line(lines)
    if first is None:
        raise InputError(f"{name} is empty.", hint="give a file with a header and rows.")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _sniff(lines)
    header = _header(lines, delimiter, name)
    return Table(name, header, _csv_rows(lines, header, delimiter, name), fixed=True)


def _first_line(lines: Lines) -> Line | None:
    """Return the first line that is not blank, which is not taken, and drop those before it."""
    while (line := lines.take()) is not None:
        if line.fault or line.text.strip():
            lines.give_back([line])
            return line
    return None


def _header(lines: Lines, delimiter: str, name: str) -> tuple[str, ...]:
    first = lines.take()
    assert first is not None  # the caller has looked
    try:
        cells, used = _record(lines, first, delimiter)
        fault = next((line.fault for line in used if line.fault), None)
    except _Broken as broken:
        fault = broken.fault
    if fault is not None:
        raise InputError(
            f"{name}, line {first.number}, has no usable header: {fault.reason}.",
            hint=f"{fault.hint}.",
        )
    header = tuple(cell.strip() for cell in cells)
    named = [column for column in header if column]
    twice = next((column for column in named if named.count(column) > 1), None)
    if twice is not None:
        raise InputError(
            f"{name} has the column {_shown(twice)} twice.", hint="rename or drop one of the two."
        )
    if not named:
        raise InputError(
            f"{name}, line {first.number}, is a header without names.",
            hint="the first line of the file has to name the columns.",
        )
    return header


def _csv_rows(
    lines: Lines, header: tuple[str, ...], delimiter: str, name: str
) -> Iterator[Row | Bad]:
    while (first := lines.take()) is not None:
        if not (first.fault or first.body):
            continue
        place = f"{name}, line {first.number}"
        try:
            cells, used = _record(lines, first, delimiter)
        except _Broken as broken:
            # The quote may have swallowed good rows: reading goes on with the very next line.
            lines.give_back(broken.used[1:])
            yield Bad(place, broken.fault)
            continue
        faulty = next((line for line in used if line.fault), None)
        if faulty is not None and faulty.fault is not None:
            yield Bad(f"{name}, line {faulty.number}", faulty.fault)
        elif len(cells) != len(header):
            fields = "1 field" if len(cells) == 1 else f"{len(cells)} fields"
            yield Bad(
                place,
                Fault(
                    f"the row has {fields}, the header has {len(header)}",
                    f"put texts that hold {_shown(delimiter)} or line ends into quotes",
                ),
            )
        else:
            yield Row(place, dict(zip(header, cells, strict=True)))


def _record(lines: Lines, first: Line, delimiter: str) -> tuple[list[str], list[Line]]:
    """Return the fields of the record that begins with a line, and the lines it has."""
    line, at, used = first, 0, [first]
    if '"' not in line.text and "\r" not in line.body:
        return line.body.split(delimiter), used
    fields: list[str] = []
    while True:
        if line.text.startswith('"', at):
            field, line, at = _quoted(lines, line, at + 1, used)
        else:
            stop = line.text.find(delimiter, at, line.end)
            stop = line.end if stop < 0 else stop
            field, at = line.text[at:stop], stop
            if "\r" in field:
                reason = "a carriage return stands alone outside of quotes"
                raise _Broken(Fault(reason, "save the file with the line ends of Linux"), used)
        fields.append(field)
        if at == line.end:
            return fields, used
        if not line.text.startswith(delimiter, at):
            where = "" if line is first else f" on line {line.number}"
            raise _Broken(Fault(f"text follows a closing quote{where}", _QUOTE_HINT), used)
        at += len(delimiter)


def _quoted(lines: Lines, line: Line, at: int, used: list[Line]) -> tuple[str, Line, int]:
    """Return a field in quotes, the line it ends on, and the place after its closing quote."""
    parts: list[str] = []
    size, opened = len(line.text), line.number
    while True:
        inside = _IN_QUOTES.match(line.text, at)
        assert inside is not None  # it matches the empty text too
        parts.append(inside.group())
        if inside.end() < len(line.text):
            return "".join(parts).replace('""', '"'), line, inside.end() + 1
        following = lines.take()
        if following is not None:
            used.append(following)
            size += len(following.text)
        if following is None or size > MOST_LINE_BYTES:
            within = "" if following is None else f" within {MOST_LINE_BYTES // 2**20} MiB"
            where = "" if opened == used[0].number else f" on line {opened}"
            reason = f"the quote opened{where or ' here'} is not closed{within}"
            raise _Broken(Fault(reason, _QUOTE_HINT), used)
        line, at = following, 0


def _sniff(lines: Lines) -> str:
    """Return the delimiter that gives most rows as many fields as the header; none is taken."""
    sample: list[Line] = []
    size = 0
    while len(sample) < 2 * _SAMPLE and size < _SAMPLE_CHARACTERS:
        line = lines.take()
        if line is None:
            break
        sample.append(line)
        size += len(line.text)
    lines.give_back(sample)
    return max(_DELIMITERS, key=lambda delimiter: _regularity(sample, delimiter))


def _regularity(sample: list[Line], delimiter: str) -> tuple[int, int]:
    """Return how many rows have as many fields as the header, and that number."""
    lines = Lines(sample)
    counts: list[int] = []
    while len(counts) < _SAMPLE and (first := lines.take()) is not None:
        try:
            counts.append(len(_record(lines, first, delimiter)[0]))
        except _Broken:
            break
    if not counts or counts[0] < 2:
        return 0, 0
    return counts.count(counts[0]), counts[0]


# --- JSON lines ---------------------------------------------------------------------------------


def _json_table(path: Path, name: str) -> Table:
    lines = Lines(lines_of(path))
    first = _first_line(lines)
    if first is None:
        raise InputError(f"{name} is empty.", hint="give a file with a JSON object on each line.")
    if _is_one_array(lines):
        raise InputError(
            f"{name} is one JSON array, not one JSON object on each line.",
            hint=f"rewrite it: jq -c '.[]' {name} > rows.jsonl",
        )
    rows = _json_rows(lines, name)
    before: list[Row | Bad] = []
    columns: tuple[str, ...] = ()
    for row in rows:
        before.append(row)
        if isinstance(row, Row):
            columns = tuple(row.cells)
            break
    return Table(name, columns, itertools.chain(before, rows), fixed=False)


def _is_one_array(lines: Lines) -> bool:
    """Whether the file as a whole is an array, and not its first row alone; none is taken."""
    first = lines.take()
    assert first is not None  # the caller has looked
    second = _first_line(lines)
    lines.give_back([first])
    if first.fault is not None or not first.text.lstrip().startswith("["):
        return False
    return second is None or isinstance(_parsed(f'{{"": {first.body}}}'), Fault)


def _json_rows(lines: Lines, name: str) -> Iterator[Row | Bad]:
    while (line := lines.take()) is not None:
        place = f"{name}, line {line.number}"
        if line.fault is not None:
            yield Bad(place, line.fault)
        elif line.text.strip():
            value = _parsed(line.body)
            yield Bad(place, value) if isinstance(value, Fault) else Row(place, value)


def _parsed(text: str) -> dict[str, object] | Fault:
    hint = 'write one JSON object on each line, as in {"text": "...", "label": "..."}'
    try:
        value: object = json.loads(text, object_pairs_hook=_unique)
    except _TwiceError as error:
        return Fault(f"the key {_shown(str(error))} is there twice", "keep one of the two")
    except json.JSONDecodeError as error:
        message = error.msg.lower().removesuffix(" at")
        return Fault(f"it is not JSON: {message} at column {error.colno}", hint)
    except RecursionError:
        return Fault("the JSON is nested too deeply", hint)
    except ValueError:  # an integer of thousands of digits
        return Fault("it holds a number that is too large", "use numbers of 64 bits")
    if not isinstance(value, dict):
        return Fault("it is JSON, but no object with keys and values", hint)
    return value


class _TwiceError(ValueError):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return made


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
