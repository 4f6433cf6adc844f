"""Physical lines of a text file, in bounded memory; what is wrong with one travels with it."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from shoestring.core.errors import InputError

MOST_LINE_BYTES: Final = 16 * 2**20
_BLOCK: Final = 2**20
_HEAD: Final = 8192
_MAGIC: Final = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"PAR1",
    b"ARROW1",
    b"\x89PNG",
    b"%PDF",
    b"\x28\xb5\x2f\xfd",
)
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TEXT_CONTROLS: Final = b"\t\n\v\f\r\x1b"
_MOST_STRANGE: Final = 0.05  # of the head of a file that still counts as text


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something cannot be used.

    Attributes:
        reason: a clause without a full stop, as in ``the label is missing``.
        hint: what to do about it, a clause too.
    """

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Line:
    r"""One line, as an editor numbers it.

    Attributes:
        number: from 1 on.
        text: with its line end, which is ``\n`` or ``\r\n``. Where the line is faulty, only
            good for finding where a record ends.
        fault: why the line cannot be used, or None.
    """

    number: int
    text: str
    fault: Fault | None = None

    @property
    def body(self) -> str:
        """The text without its line end."""
        return self.text[: self.end]

    @property
    def end(self) -> int:
        """Where the line end begins."""
        if self.text.endswith("\r\n"):
            return len(self.text) - 2
        return len(self.text) - self.text.endswith("\n")


class Lines:
    """Lines one after the other, of which some can be given back and taken again.

    Args:
        source: the lines.
    """

    def __init__(self, source: Iterable[Line]) -> None:
        self._source = iter(source)
        self._returned: list[Line] = []

    def take(self) -> Line | None:
        """Return the next line, or None after the last."""
        return self._returned.pop() if self._returned else next(self._source, None)

    def give_back(self, lines: Iterable[Line]) -> None:
        """Put lines before those that follow.

        Args:
            lines: in their order in the file.
        """
        self._returned.extend(reversed(list(lines)))


def open_text(path: Path) -> BinaryIO:
    """Open a file that has to be text; the caller closes it.

    Args:
        path: a regular file.

    Returns:
        The file, after a byte order mark if there is one.

    Raises:
        InputError: it is missing, not regular, cannot be read, or is not text in UTF-8.
    """
    try:
        # Before it is opened: opening a pipe would wait for whoever writes into it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(
                f"{path} is not a file.", hint="name a file on disk: it is read again on resuming."
            )
        file = path.open("rb", buffering=_BLOCK)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise unreadable(path, error) from None
    try:
        head = file.read(_HEAD)
        _check_is_text(path, head)
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
    except OSError as error:
        file.close()
        raise unreadable(path, error) from None
    except BaseException:
        file.close()
        raise
    return file


def lines_of(path: Path) -> Iterator[Line]:
    """Yield the lines of a text file.

    Args:
        path: a regular file.

    Raises:
        InputError: as for `open_text`, or reading fails on the way.
    """
    with open_text(path) as file:
        try:
            yield from split_lines(file)
        except OSError as error:
            raise unreadable(path, error) from None


def split_lines(file: BinaryIO, *, most_bytes: int = MOST_LINE_BYTES) -> Iterator[Line]:
    """Yield the lines of a stream, of which no more than one line and a block are held.

    A line that is too long is yielded, as a fault, before the rest of it is read.

    Args:
        file: a stream of bytes.
        most_bytes: the longest line accepted, in bytes.
    """
    number = 0
    while raw := file.readline(most_bytes + 1):
        number += 1
        if len(raw) > most_bytes:
            yield Line(number, "", _too_long(most_bytes))
            while not raw.endswith(b"\n") and (raw := file.readline(_BLOCK)):
                pass
            continue
        fault = None
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            text = raw.decode(errors="replace")
            fault = Fault(
                f"it is not UTF-8: byte {error.start + 1} of the line is 0x{raw[error.start]:02x}",
                "save the file as UTF-8, as with iconv -f cp1252 -t utf-8",
            )
        if fault is None and "\0" in text:
            at = text.index("\0") + 1
            fault = Fault(f"it holds a zero byte, as character {at}", "take zero bytes out")
        yield Line(number, text, fault)


def unreadable(path: Path, error: OSError | ValueError) -> InputError:
    """Return the error of a path that cannot be read.

    Args:
        path: the path.
        error: what the system said.
    """
    if isinstance(error, FileNotFoundError):
        return InputError(f"there is no file or folder {path}.", hint="check the path.")
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return InputError(
        f"{str(path)!r} cannot be read ({reason}).", hint="check the path and its rights."
    )


def _too_long(most_bytes: int) -> Fault:
    size = f"{most_bytes // 2**20} MiB" if most_bytes >= 2**20 else f"{most_bytes} bytes"
    return Fault(f"the line is longer than {size}", "break long texts into several rows or lines")


def _check_is_text(path: Path, head: bytes) -> None:
    if head.startswith(_UTF16):
        raise InputError(f"{path} is UTF-16 text, not UTF-8.", hint="save it again as UTF-8.")
    if head.startswith(_MAGIC) or _strange(head) > _MOST_STRANGE * len(head) + 1:
        raise InputError(
            f"{path} is a binary file, not text.",
            hint="give text in UTF-8: .csv, .tsv, .jsonl or .txt; unpack or export it first.",
        )


def _strange(head: bytes) -> int:
    """Return how many bytes text hardly has: zeros, and in what is no UTF-8 all controls."""
    try:
        # The head may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in head)
    return head.count(0)
