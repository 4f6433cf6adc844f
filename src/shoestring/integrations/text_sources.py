"""From a file, a folder or an object with columns to tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from shoestring.core.errors import InputError
from shoestring.integrations.text_lines import Fault, Line, lines_of, unreadable
from shoestring.integrations.text_tables import TABLE_KINDS, Bad, Row, Table, read_table

_TRAINING: Final = ("train", "training")
_TESTING: Final = ("test", "testing", "valid", "validation", "val", "dev", "eval")


@runtime_checkable
class Columnar(Protocol):
    """Rows with named columns, as a ``Dataset`` of the library datasets."""

    @property
    def column_names(self) -> Sequence[str]:
        """Names of the columns."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, object]: ...


def tables_of_path(source: str | os.PathLike[str], *, labelled: bool) -> Iterator[Table]:
    """Yield the tables of a file or folder, each opened when the one before has been read.

    Args:
        source: the path.
        labelled: whether the texts need labels.

    Raises:
        InputError: there is nothing usable at the path.
    """
    text = os.fspath(source)
    if not isinstance(text, str) or not text:
        raise InputError("the path of the data is empty.", hint="name a file or a folder.")
    path = Path(text)
    try:
        is_folder = path.is_dir()
        path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if is_folder:
        yield from _folder(path, labelled)
    elif path.suffix.lower() == ".txt":
        if labelled:
            raise InputError(
                f"{path} is plain text, which has no labels.",
                hint="give a .csv or .jsonl file, or a folder with a folder of .txt files for "
                "each class.",
            )
        yield Table(path.name, ("text",), _paragraphs(path, path.name), fixed=True)
    elif path.suffix.lower() in TABLE_KINDS or not path.is_file():
        yield read_table(path, name=path.name)
    else:
        raise InputError(
            f"{path} is of no known kind.",
            hint=f"its name has to end in {', '.join(TABLE_KINDS)} or .txt.",
        )


def _folder(path: Path, labelled: bool) -> Iterator[Table]:
    entries = _entries(path)
    tables = [p for p in entries if p.suffix.lower() in TABLE_KINDS and p.is_file()]
    if labelled:
        classes = {p: texts for p in entries if p.is_dir() and (texts := _texts(_entries(p)))}
        other = [p for p in entries if p.is_dir() and p not in classes]
        what, texts = "folders of .txt files", [text for c in classes.values() for text in c]
        _refuse_mixed_splits(path, [*tables, *classes, *other])
    else:
        texts = _texts_below(path)
        what = ".txt files"
        _refuse_mixed_splits(path, tables or [path / p.relative_to(path).parts[0] for p in texts])
    if tables and texts:
        raise InputError(
            f"{path} holds both tables ({tables[0].name}) and {what}.", hint="name one of them."
        )
    if tables:
        for table in tables:
            yield read_table(table, name=table.name)
    elif texts and labelled:
        yield Table(path.name, ("text", "label"), _documents(path, texts), fixed=True)
    elif texts:
        for text in texts:
            name = str(text.relative_to(path))
            yield Table(name, ("text",), _paragraphs(text, name), fixed=True)
    else:
        wanted = "folders of .txt files, one for each class" if labelled else ".txt files"
        raise InputError(
            f"the folder {path} holds no usable file.",
            hint=f"it has to hold {', '.join(TABLE_KINDS)} files, or {wanted}.",
        )


def _refuse_mixed_splits(path: Path, parts: Sequence[Path]) -> None:
    """Refuse to train on what is kept for testing."""
    train = next((p for p in parts if _is_for(p, _TRAINING)), None)
    test = next((p for p in parts if _is_for(p, _TESTING)), None)
    if train is not None and test is not None:
        raise InputError(
            f"{path} holds both {train.name} and {test.name}, which would be mixed.",
            hint=f"name one of them: {train}",
        )


def _is_for(path: Path, words: tuple[str, ...]) -> bool:
    name = path.name.lower() if path.is_dir() else path.stem.lower()
    parts = re.split(r"[-_. ]", name)
    return parts[0] in words or parts[-1] in words


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise unreadable(path, error) from None


def _texts(entries: Sequence[Path]) -> list[Path]:
    return [p for p in entries if p.suffix.lower() == ".txt" and p.is_file()]


def _texts_below(path: Path) -> list[Path]:
    found: list[Path] = []
    for folder, below, files in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        found += _texts([Path(folder, name) for name in files if not name.startswith(".")])
    return sorted(found)


# --- plain text ---------------------------------------------------------------------------------


def _paragraphs(path: Path, name: str) -> Iterator[Row | Bad]:
    """Yield what blank lines part; where there is none, each line."""
    lines = list(lines_of(path))
    filled = [i for i, line in enumerate(lines) if line.fault or line.text.strip()]
    if not filled:
        raise InputError(f"{name} is empty.", hint="give a file with text.")
    lines = lines[filled[0] : filled[-1] + 1]
    if len(filled) == len(lines):
        groups = [[line] for line in lines]
    else:
        groups = [[]]
        for line in lines:
            if line.fault or line.text.strip():
                groups[-1].append(line)
            elif groups[-1]:
                groups.append([])
    for group in groups:
        yield _joined(group, name, {})


def _documents(path: Path, texts: Sequence[Path]) -> Iterator[Row | Bad]:
    """Yield each file as one text, with the name of its folder as the label."""
    for text in texts:
        name = str(text.relative_to(path))
        try:
            lines = list(lines_of(text))
        except InputError as error:
            # Each file is a row of its own here, and can be left out as one.
            yield Bad(name, Fault(error.message.removesuffix("."), error.hint.removesuffix(".")))
            continue
        yield _joined(lines, name, {"label": text.parent.name}, numbered=False)


def _joined(
    lines: Sequence[Line], name: str, cells: dict[str, str], *, numbered: bool = True
) -> Row | Bad:
    faulty = next((line for line in lines if line.fault), None)
    if faulty is not None and faulty.fault is not None:
        return Bad(f"{name}, line {faulty.number}", faulty.fault)
    text = "\n".join(line.body for line in lines).strip()
    place = f"{name}, line {lines[0].number}" if numbered else name
    return Row(place, {"text": text, **cells})


# --- objects ------------------------------------------------------------------------------------


def table_of_rows(source: object) -> Table:
    """Return the table that an object with columns is.

    Args:
        source: a `Columnar`.

    Raises:
        InputError: it is something else, or has no rows.
    """
    kind = type(source).__name__
    columns = getattr(source, "column_names", None)
    if isinstance(columns, Mapping):
        parts = ", ".join(str(key) for key in columns)
        raise InputError(f"the {kind} holds several data sets ({parts}).", hint="pass one of them.")
    if not isinstance(source, Columnar) or not columns:
        raise InputError(
            f"texts cannot be read from an object of type {kind}.",
            hint="pass a path, or a Dataset of the library datasets.",
        )
    if len(source) == 0:
        raise InputError(f"the {kind} is empty.", hint="pass one with rows.")
    twice = next((name for name in columns if list(columns).count(name) > 1), None)
    if twice is not None:
        raise InputError(f"the {kind} has the column {twice!r} twice.", hint="drop one.")
    return Table(f"the {kind}", tuple(columns), _columnar_rows(source, kind), fixed=True)


def _columnar_rows(source: Columnar, kind: str) -> Iterator[Row | Bad]:
    names = _class_names(source)
    for index in range(len(source)):
        place = f"{kind}, row {index + 1} (index {index})"
        cells: object = source[index]
        if not isinstance(cells, Mapping):
            yield Bad(place, Fault("the row is no mapping of columns to values", "pass a Dataset"))
            continue
        yield Row(place, {column: named(_plain(cells[column])) for column, named in names.items()})


def _plain(value: object) -> object:
    """Return a number of numpy, or a tensor of one number, as Python's own."""
    item = getattr(value, "item", None)
    if not callable(item):
        return value
    try:
        return item()
    except (ValueError, RuntimeError):  # it has several
        return value


def _class_names(source: Columnar) -> dict[str, Callable[[object], object]]:
    """Return by column how its values are read: numbers of named classes become the names."""
    features = getattr(source, "features", None)
    made: dict[str, Callable[[object], object]] = {}
    for column in source.column_names:
        feature = features.get(column) if isinstance(features, Mapping) else None
        known = getattr(feature, "names", None)
        made[column] = _namer(known) if isinstance(known, list) else lambda value: value
    return made


def _namer(known: list[str]) -> Callable[[object], object]:
    def name(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        # Published test sets have -1 where the label is kept secret.
        return known[value] if 0 <= value < len(known) else None

    return name
