"""What a row of the catalogue says."""

from __future__ import annotations

import dataclasses
from typing import Literal

from shoestring.catalog import papers

Kind = Literal["technique", "verb", "record", "optimizer", "integration", "function"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One public name.

    Attributes:
        name: the name in plans, in ``allow=`` and on the command line.
        path: where it is imported from, ``package.module:Name``.
        kind: what it is.
        saves: the resource it saves, in a word or two; empty for verbs and records.
        fidelity: what it does to the gradients; empty for verbs and records.
        summary: one line.
        paper: the work it follows, or None.
    """

    name: str
    path: str
    kind: Kind
    summary: str
    saves: str = ""
    fidelity: str = ""
    paper: papers.Paper | None = None
