"""JSON documents: written whole or not at all, and read with limits.

A document is a JSON object whose ``schema`` names what it is. One that is read may come from
anywhere, so its size, depth and numbers are bounded before any of it is used.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

from shoestring.core.errors import InputError

_MOST_BYTES: Final = 16 * 2**20
_MOST_DEPTH: Final = 64
_MOST_INT: Final = 2**63 - 1
_LONGEST_NUMBER: Final = 40
_LOOK: Final = 1024


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole or not at all.

    The text goes to a new file in the same folder, which then takes the name; whatever
    happens in between leaves an older file as it was.

    Args:
        path: the file to write.
        text: its content, written as UTF-8.

    Raises:
        InputError: the folder cannot be written, the disk is full, the name is that of a
            device, or the like.
    """
    # A link is followed, so that the file it points to is replaced and not the link.
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise InputError(
            f"{os.fspath(path)} is no regular file.", hint="name a file; devices are left alone."
        )
    data = text.encode()
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        _write_new(temporary, data)
        temporary.replace(target)
    except OSError as error:
        _discard(temporary)
        raise InputError(
            f"{os.fspath(path)} cannot be written ({_reason(error)}).",
            hint="name a file in an existing folder that may be written and has room.",
        ) from error
    except BaseException:
        _discard(temporary)
        raise


def check_replaced(path: str | os.PathLike[str], mark: str, what: str, *, hint: str) -> None:
    """Refuse to replace a file that is not of our making.

    Args:
        path: where a file is to be written; there may be none yet, or an empty one.
        mark: text that stands among the first of our own files.
        what: the others are not, as in ``no report``.
        hint: what to do about it.

    Raises:
        InputError: there is another file, or it cannot be read.
    """
    place = Path(path)
    try:
        if not place.is_file():
            return
        with place.open("rb") as file:
            start = file.read(_LOOK)
    except OSError as error:
        raise InputError(f"{place} cannot be read ({_reason(error)}).", hint=hint) from error
    if start and mark.encode() not in start:
        raise InputError(f"{place} is there already, and is {what}.", hint=hint)


def read_document(
    path: str | os.PathLike[str], schema: str, *, most_bytes: int = _MOST_BYTES
) -> dict[str, object]:
    """Read a JSON document that may come from anywhere.

    Args:
        path: the file to read.
        schema: the schema it must have, as in ``shoestring/plan/1``.
        most_bytes: the largest size accepted, in bytes.

    Returns:
        The document, its ``schema`` included. Numbers are finite and integers fit into 64
        bits.

    Raises:
        InputError: the file cannot be read, is too large, is no JSON object of this schema,
            or breaks a limit.
    """
    name = os.fspath(path)
    return _parsed(_read_bytes(name, most_bytes), schema, name)


def parse_document(
    text: str, schema: str, *, name: str = "the text", most_bytes: int = _MOST_BYTES
) -> dict[str, object]:
    """Read a JSON document from text, as `read_document` does from a file.

    Args:
        text: the document.
        schema: the schema it must have, as in ``shoestring/plan/1``.
        name: what errors call it.
        most_bytes: the largest size accepted, in bytes.

    Returns:
        The document, its ``schema`` included.

    Raises:
        InputError: it is too large, is no JSON object of this schema, or breaks a limit.
    """
    data = text.encode(errors="surrogatepass")
    _check_size(data, name, most_bytes)
    return _parsed(data, schema, name)


def _parsed(data: bytes, schema: str, name: str) -> dict[str, object]:
    try:
        return _parse(data, schema)
    except _Fault as fault:
        raise InputError(f"{name} {fault.sentence}", hint=fault.hint) from None


class _Fault(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with a document, as the rest of a sentence that begins with its name."""

    def __init__(self, sentence: str, hint: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint


def _write_new(path: Path, data: bytes) -> None:
    # Mode 0666 less the umask, as any new file; `tempfile` would make it private.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # It could not even be made, for example because its folder is a file.
        return


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _read_bytes(name: str, most_bytes: int) -> bytes:
    try:
        # A device or a pipe has no size, and may never end.
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise InputError(f"{name} is not a file.", hint="name a JSON file.")
        with open(name, "rb") as file:
            data = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise InputError(f"there is no file {name}.", hint="check the path.") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(
            f"{name!r} cannot be read ({_reason(error)}).", hint="check the path and its rights."
        ) from None
    _check_size(data, name, most_bytes)
    return data


def _check_size(data: bytes, name: str, most_bytes: int) -> None:
    if len(data) > most_bytes:
        raise InputError(
            f"{name} has more than {most_bytes} bytes.", hint="it cannot be such a document."
        )


def _parse(data: bytes, schema: str) -> dict[str, object]:
    family = schema.split("/")[1] if schema.count("/") else schema
    hint = f"write the {family} again with shoestring."
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _Fault("is not JSON: it is not text.", hint) from None
    try:
        document: object = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise _Fault(_syntax(error, text), hint) from None
    except RecursionError:
        raise _Fault(f"is nested more than {_MOST_DEPTH} deep.", hint) from None
    _check_depth_and_text(document, hint)
    if not isinstance(document, dict) or not isinstance(document.get("schema"), str):
        raise _Fault('is not a document: it has no "schema".', hint)
    if document["schema"] != schema:
        raise _Fault(f"has schema {document['schema'][:60]!r}, not {schema!r}.", hint)
    return document


def _syntax(error: json.JSONDecodeError, text: str) -> str:
    if not text.strip():
        return "is empty."
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return "is cut short: the JSON does not end."
    return f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg.lower()}."


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Fault(f"has the key {key[:60]!r} twice.", "keep one of the two.")
            seen.add(key)
    return made


def _whole(literal: str) -> int:
    # The length first: converting a million digits takes seconds.
    if len(literal) > _LONGEST_NUMBER or abs(int(literal)) > _MOST_INT:
        _refuse_number(literal)
    return int(literal)


def _finite(literal: str) -> float:
    if len(literal) > _LONGEST_NUMBER or not math.isfinite(float(literal)):
        _refuse_number(literal)
    return float(literal)


def _refuse_number(literal: str) -> NoReturn:
    shown = literal if len(literal) <= _LONGEST_NUMBER else literal[:12] + "..."
    raise _Fault(f"has the number {shown}, which is too large.", "use 64-bit numbers.")


def _refuse_constant(literal: str) -> NoReturn:
    raise _Fault(f"has the number {literal}, which JSON does not have.", "use finite numbers.")


def _check_depth_and_text(document: object, hint: str) -> None:
    """Refuse deep nesting and broken text, without recursion."""
    level: list[object] = [document]
    depth = 0
    while level:
        if depth > _MOST_DEPTH:
            raise _Fault(f"is nested more than {_MOST_DEPTH} deep.", hint)
        below: list[object] = []
        for value in level:
            below.extend(_children(value))
            # Half a surrogate pair cannot be printed or written again.
            if isinstance(value, str) and not _is_text(value):
                raise _Fault("has text that is not Unicode.", hint)
        level = below
        depth += 1


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else ()


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
