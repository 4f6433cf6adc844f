"""The commands ``list`` and ``cite``: the catalogue on the terminal."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Final

from shoestring import catalog
from shoestring.core.errors import InputError

SCHEMA: Final = "shoestring/catalogue/1"


def list_rows(*, json: bool = False) -> int:
    """List the techniques and public names.

    Args:
        json: print JSON instead of a table.

    Returns:
        The exit code.
    """
    sys.stdout.write(_as_json() if json else _as_table())
    return 0


def cite(name: str, /) -> int:
    """Print the BibTeX entry of a technique.

    Args:
        name: a name that `shoestring list` shows.

    Returns:
        The exit code.

    Raises:
        InputError: the catalogue has no such name.
    """
    try:
        entry = catalog.cite(name)
    except catalog.UnknownNameError as error:
        raise InputError(error.message, hint=error.hint) from error
    sys.stdout.write(entry + "\n")
    return 0


def _as_json() -> str:
    rows = [dataclasses.asdict(row) for row in catalog.rows()]
    return json.dumps({"schema": SCHEMA, "rows": rows}, indent=1) + "\n"


def _as_table() -> str:
    rows = catalog.rows()
    width = max(len(row.name) for row in rows)
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        lines += ["", f"{kind}s"]
        for row in rows:
            if row.kind == kind:
                lines.append(f"  {row.name:<{width}}  {row.summary}")
                if row.saves:
                    lines.append(f"  {'':<{width}}  saves {row.saves}; {row.fidelity}")
    return "\n".join(lines[1:]) + "\n"
