"""The catalogue: one row for every public name and technique, as pure data.

The command line's list, the tables of README and docs, `cite` and the parametrisation of the
contract tests are all made from these rows. Nothing here imports torch, or anything else of
the package, so that listing and citing are instant.
"""

from __future__ import annotations

import difflib
from typing import Final

from shoestring.catalog import fewbit, spine, steps, zeroth
from shoestring.catalog.row import Row as Row

_SOFTWARE: Final = """\
@software{shoestring,
  title = {shoestring: train, compress and measure PyTorch models on a budget},
  author = {{The shoestring developers}},
  license = {Apache-2.0},
}"""


class UnknownNameError(ValueError):
    """A name that the catalogue does not have.

    Args:
        message: one sentence that says what is wrong.
        hint: what to do about it; shown after ``hint:``.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}"


_ROWS: Final = (*spine.ROWS, *steps.ROWS, *zeroth.ROWS, *fewbit.ROWS)


def rows() -> tuple[Row, ...]:
    """Return every row: verbs, records, then techniques."""
    return _ROWS


def find(name: str) -> Row:
    """Return the row of a name.

    Args:
        name: a name of the catalogue, as in ``remat``.

    Returns:
        Its row.

    Raises:
        UnknownNameError: the catalogue has no such name.

    Example:
        >>> find("lora").saves
        'gradients, optimizer state'
    """
    for row in _ROWS:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, [row.name for row in _ROWS], n=1)
    hint = f"did you mean {near[0]}?" if near else "see shoestring list."
    raise UnknownNameError(f"the catalogue has no {name[:60]!r}.", hint=hint)


def cite(subject: object) -> str:
    """Return the BibTeX entry of a technique or another public name.

    Args:
        subject: a name of the catalogue, or the class, function or instance itself.

    Returns:
        The entry of the paper it follows; the package's own entry where it follows none.

    Raises:
        UnknownNameError: the catalogue does not have it.

    Example:
        >>> cite("remat").splitlines()[0]
        '@inproceedings{jain2020checkmate,'
    """
    row = find(subject) if isinstance(subject, str) else _row_of(subject)
    return row.paper.bibtex() if row.paper else _SOFTWARE


def _row_of(subject: object) -> Row:
    # A class or function knows where it was defined; an instance's class does.
    named = subject if hasattr(subject, "__qualname__") else type(subject)
    path = f"{named.__module__}:{getattr(named, '__qualname__', '')}"
    for row in _ROWS:
        if row.path == path:
            return row
    raise UnknownNameError(f"the catalogue has no {path}.", hint="see shoestring list.")
