"""A user's own texts: CSV, TSV, JSON lines, plain text, folders and columnar objects.

Every fault is an `InputError` that names the file and the line; with ``skip_bad`` a bad row is
left out and listed instead.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from shoestring.core.errors import InputError
from shoestring.integrations.text_lines import Fault
from shoestring.integrations.text_sources import Columnar, table_of_rows, tables_of_path
from shoestring.integrations.text_tables import Bad, Row, Table

Task: TypeAlias = Literal["classification", "lm"]

TEXT_COLUMNS: Final = (
    "text", "sentence", "content", "tweet", "review", "comment", "message", "document", "body",
    "post", "article", "utterance",
)  # fmt: skip
LABEL_COLUMNS: Final = (
    "label", "labels", "class", "target", "sentiment", "category", "polarity", "stars", "rating",
)  # fmt: skip
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_FRACTION: Final = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was left out.

    Attributes:
        place: where it is, as in ``train.csv, line 12``.
        reason: why, as in ``the label is missing``.
    """

    place: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """Texts, and the class of each.

    Attributes:
        texts: as they were read.
        labels: of each text an index into ``names``; None where the task has no classes.
        names: the classes, sorted; by value where all of them are whole numbers.
        skipped: rows that were left out.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...] | None
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    def __len__(self) -> int:
        return len(self.texts)


def read_examples(
    source: str | os.PathLike[str] | Columnar,
    *,
    task: Task,
    text_column: str | None = None,
    label_column: str | None = None,
    names: Sequence[str] | None = None,
    skip_bad: bool = False,
) -> Examples:
    """Read texts, for classification with their labels.

    Args:
        source: one of

            - a .csv or .tsv file in UTF-8, whose first line names the columns; the delimiter
              is a comma, semicolon, tab or bar, whichever fits the rows;
            - a .jsonl, .ndjson or .json file with one JSON object on each line;
            - a .txt file, for lm only: its paragraphs, which blank lines part; where it has no
              blank line, its lines;
            - a folder of tables with the same columns, of .txt files (for lm, those of its
              folders too), or, for classification, of folders of .txt files: one folder a
              class, one file a text;
            - an object with ``column_names`` whose rows are mappings.

        task: ``classification`` or ``lm``.
        text_column: column of the texts; without it the only one, or one with a usual name.
        label_column: column of the labels; without it one with a usual name.
        names: the classes known from training; without them those that occur.
        skip_bad: leaves bad rows out and lists them, instead of stopping at the first.

    Returns:
        The texts in the order of the files, which are sorted by name.

    Raises:
        InputError: something cannot be used; the message says what, in which file and line.

    Example:
        >>> rows = [{"text": "fine", "label": 1}, {"text": "poor", "label": 0}]
        >>> class Data(list):
        ...     column_names = ["text", "label"]
        >>> read_examples(Data(rows), task="classification").labels
        (1, 0)
    """
    _check_options(task, label_column, names)
    if isinstance(source, (str, os.PathLike)):
        tables = tables_of_path(source, labelled=task == "classification")
    else:
        tables = iter([table_of_rows(source)])
    reader = _Reader(task, text_column, label_column, None if names is None else tuple(names))
    skipped: list[Skipped] = []
    for bad in reader.read(tables):
        if not skip_bad:
            raise InputError(
                f"{bad.place}: {bad.fault.reason}.",
                hint=f"{bad.fault.hint}; --skip-bad leaves such rows out.",
            )
        skipped.append(Skipped(bad.place, bad.fault.reason))
    return reader.examples(tuple(skipped))


def split_examples(examples: Examples, *, share: float, seed: int) -> tuple[Examples, Examples]:
    """Hold some examples out, of each class about the same share.

    Texts that are equal but for case and white space stay on one side. Which are held out
    depends on the texts and the seed alone, not on their order.

    Args:
        examples: what to split.
        share: of the rows that are held out, above 0 and below 1; at least one row is.
        seed: of the choice.

    Returns:
        The examples to train on, among which every class is, and those held out; both in
        their order. What was skipped stays with the former.

    Raises:
        InputError: the share is not between 0 and 1, or no text can be spared.

    Example:
        >>> data = Examples(("a", "b", "c", "d"), (0, 1, 0, 1), ("no", "yes"), ())
        >>> train, held_out = split_examples(data, share=0.5, seed=0)
        >>> len(train), len(held_out), sorted(held_out.labels)
        (2, 2, [0, 1])
    """
    if not 0 < share < 1:
        raise InputError(
            f"a share of {share} cannot be held out.", hint="use one between 0 and 1, as in 0.1."
        )
    labels = examples.labels or (0,) * len(examples)
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(examples.texts):
        groups.setdefault(" ".join(text.split()).casefold(), []).append(i)
    held = _held_out(groups, labels, share, seed)
    if not held:
        raise InputError(
            f"none of the {len(groups)} different texts can be held out for evaluation.",
            hint="each class needs two texts: add some, or evaluate on a file of its own.",
        )
    train = _part(examples, [i for i in range(len(examples)) if i not in held])
    rest = _part(examples, sorted(held))
    return train, dataclasses.replace(rest, skipped=())


def _held_out(
    groups: Mapping[str, list[int]], labels: Sequence[int], share: float, seed: int
) -> set[int]:
    """Return the rows to hold out: whole groups, and never all rows of a class."""

    def order(text: str) -> bytes:
        return hashlib.blake2b(f"{seed} {text}".encode()).digest()

    counts = collections.Counter(labels)
    wanted = _quotas(counts, share)
    # Equal texts may have different labels.
    taken = {text: collections.Counter(labels[i] for i in rows) for text, rows in groups.items()}
    held: set[int] = set()
    for text in sorted(groups, key=order):
        if all(n <= wanted[label] for label, n in taken[text].items()):
            held.update(groups[text])
            wanted.subtract(taken[text])
    if held:
        return held
    # Every group is larger than its class's share: the smallest will do.
    for text in sorted(groups, key=lambda text: (len(groups[text]), order(text))):
        if all(n < counts[label] for label, n in taken[text].items()):
            return set(groups[text])
    return held


def _quotas(counts: Mapping[int, int], share: float) -> collections.Counter[int]:
    """Return how many rows to hold out of each class, never all; their sum is near the share."""
    total = sum(counts.values())
    exact = {label: share * n for label, n in counts.items()}
    quotas = collections.Counter({k: min(int(n), counts[k] - 1) for k, n in exact.items()})
    missing = max(1, round(share * total)) - sum(quotas.values())
    by_rest = sorted(counts, key=lambda label: (quotas[label] - exact[label], label))
    for label in [label for label in by_rest if quotas[label] < counts[label] - 1][:missing]:
        quotas[label] += 1
    return quotas


def _part(examples: Examples, rows: Sequence[int]) -> Examples:
    labels = examples.labels
    return dataclasses.replace(
        examples,
        texts=tuple(examples.texts[i] for i in rows),
        labels=None if labels is None else tuple(labels[i] for i in rows),
    )


class _Reader:
    """Takes rows from tables; what cannot be taken is yielded."""

    def __init__(
        self, task: Task, text: str | None, label: str | None, names: tuple[str, ...] | None
    ) -> None:
        self._labelled = task == "classification"
        self._text, self._label = text, label
        self._names = names or ()
        self._known = frozenset(self._names)
        self._texts: list[str] = []
        self._labels: list[str] = []
        self._first: Table | None = None

    def read(self, tables: Iterable[Table]) -> Iterator[Bad]:
        for table in tables:
            rows, chosen = 0, False
            for row in table.rows:
                rows += 1
                if not chosen and isinstance(row, Row):
                    # Only now: a table without one good row need not have columns.
                    self._choose_columns(table)
                    chosen = True
                fault = row.fault if isinstance(row, Bad) else self._take(row)
                if fault is not None:
                    yield Bad(row.place, fault)
            if not rows:
                raise InputError(f"{table.name} has a header and no rows.", hint="add some rows.")

    def examples(self, skipped: tuple[Skipped, ...]) -> Examples:
        """Return what was taken."""
        if not self._texts:
            left_out = "1 was" if len(skipped) == 1 else f"{len(skipped)} were"
            raise InputError(
                f"no row can be used: {left_out} left out, the first of them {skipped[0].place}, "
                f"because {skipped[0].reason}.",
                hint="look at the file, and at the columns named.",
            )
        if not self._labelled:
            return Examples(tuple(self._texts), None, (), skipped)
        names = self._names or _sorted_names(set(self._labels))
        if len(names) == 1:
            raise InputError(
                f"all {len(self._texts)} rows have the label {_shown(names[0])}.",
                hint="classification needs two classes: check the data and --label-column.",
            )
        index = {name: i for i, name in enumerate(names)}
        return Examples(
            tuple(self._texts), tuple(index[label] for label in self._labels), names, skipped
        )

    def _take(self, row: Row) -> Fault | None:
        text = _text_of(row, self._text)
        if isinstance(text, Fault):
            return text
        if self._labelled:
            label = _label_of(row, self._label)
            if isinstance(label, Fault):
                return label
            if self._names and label not in self._known:
                known = ", ".join(_shown(name) for name in self._names[:8])
                more = ", ..." if len(self._names) > 8 else ""
                return Fault(
                    f"the label {_shown(label)} was not there in training",
                    f"the classes are {known}{more}",
                )
            self._labels.append(label)
        self._texts.append(text)
        return None

    def _choose_columns(self, table: Table) -> None:
        if self._first is None:
            self._first = table
            self._text = _column(table, self._text, "text", TEXT_COLUMNS)
            if self._labelled:
                self._label = _column(table, self._label, "label", LABEL_COLUMNS)
                if self._label == self._text:
                    raise InputError(
                        f"{table.name}: the column {_shown(self._text)} is both text and label.",
                        hint=f"{_listed(table)}; name two with --text-column and --label-column.",
                    )
        elif self._first.fixed and table.fixed and set(table.columns) != set(self._first.columns):
            raise InputError(
                f"{table.name} has other columns than {self._first.name}: "
                f"{_columns(table)} and {_columns(self._first)}.",
                hint="give files with the same columns, or one of them.",
            )


# --- columns ------------------------------------------------------------------------------------


def _column(table: Table, given: str | None, kind: str, usual: tuple[str, ...]) -> str:
    """Return the column that holds the texts or the labels."""
    option = f"--{kind}-column"
    if given is not None:
        # Rows of JSON differ: each is looked at on its own.
        if table.fixed and given not in table.columns:
            near = difflib.get_close_matches(given, table.columns, n=1)
            raise InputError(
                f"{table.name} has no column {_shown(given)}.",
                hint=f"did you mean {near[0]}?" if near else f"{_listed(table)}.",
            )
        return given
    named = [column for column in table.columns if column]
    if kind == "text" and len(named) == 1:
        return named[0]
    # The plain name wins; else just one may have a usual name.
    if usual[0] in named:
        return usual[0]
    found = [column for column in named if column.strip().lower() in usual]
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} columns may hold" if found else "no column is known to hold"
    raise InputError(
        f"{table.name}: {several} the {kind}s.", hint=f"{_listed(table)}; name one with {option}."
    )


def _columns(table: Table) -> str:
    shown = ", ".join(_shown(column, 40) for column in table.columns[:12])
    return shown + (", ..." if len(table.columns) > 12 else "")


def _listed(table: Table) -> str:
    return f"its columns are {_columns(table)}"


# --- cells --------------------------------------------------------------------------------------


def _text_of(row: Row, column: str | None) -> str | Fault:
    assert column is not None  # chosen before the first row
    if column not in row.cells:
        return _lacks(row, column)
    value = row.cells[column]
    if value is None or value == "":
        return Fault("the text is missing", "fill it in")
    if not isinstance(value, str):
        return Fault(f"the text is {_kind(value)}, not text", "check --text-column")
    if value.isspace():
        return Fault("the text is blank", "fill it in")
    if not _is_unicode(value):
        return Fault("the text holds half of a surrogate pair", "write the text as Unicode")
    return value


def _label_of(row: Row, column: str | None) -> str | Fault:
    assert column is not None
    if column not in row.cells:
        return _lacks(row, column)
    value = row.cells[column]
    if value is None or (isinstance(value, str) and not value.strip()):
        return Fault("the label is missing", "fill it in")
    return _label_name(value)


def _label_name(value: object) -> str | Fault:
    """Return the name of a class: numbers that are equal have the same."""
    hint = "a class is a whole number or a name; check --label-column"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        name = value.strip()
        if name.lower() in ("nan", "+nan", "-nan"):
            return Fault("the label is NaN", hint)
        if not _is_unicode(name):
            return Fault("the label holds half of a surrogate pair", "write it as Unicode")
        if not _FRACTION.fullmatch(name):
            return name
        value = float(name)
    if not isinstance(value, float):
        return Fault(f"the label is {_kind(value)}", hint)
    if not value.is_integer():  # neither are NaN and the infinities
        kind = "NaN" if math.isnan(value) else f"the fraction {value:g}"
        return Fault(f"the label is {kind}", hint)
    return str(int(value))


def _lacks(row: Row, column: str) -> Fault:
    keys = ", ".join(_shown(str(key), 40) for key in list(row.cells)[:12]) or "none"
    return Fault(f"there is no {_shown(column)}", f"the row's keys are {keys}")


def _sorted_names(names: set[str]) -> tuple[str, ...]:
    if all(_WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _kind(value: object) -> str:
    words = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return words.get(type(value), "an object" if isinstance(value, dict) else "of another type")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")


# --- options ------------------------------------------------------------------------------------


def _check_options(task: Task, label_column: str | None, names: Sequence[str] | None) -> None:
    if task not in ("classification", "lm"):
        raise InputError(f"the task {task!r} is unknown.", hint="use classification or lm.")
    if task == "lm" and (label_column is not None or names):  # the names of lm are ()
        raise InputError(
            "a language model is trained without labels.", hint="leave --label-column out."
        )
    if names is not None and (isinstance(names, str) or len(set(names)) != len(names)):
        raise InputError("the names of the classes are not distinct.", hint="give each name once.")
    if task == "classification" and names is not None and len(names) < 2:
        raise InputError("fewer than two classes are named.", hint="name all of training's.")
