"""Small JSON files in the user's cache folder: what was measured on this machine before.

A cache may be missing, damaged, foreign or impossible to write; none of that is an error, it
only means measuring again.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from shoestring.core.documents import read_document, write_text
from shoestring.core.errors import InputError


def cache_folder() -> Path:
    """Return the folder for what shoestring measured; it need not exist.

    ``SHOESTRING_CACHE`` names another one.

    Returns:
        ``~/.cache/shoestring`` on Linux, and the like on macOS and Windows.
    """
    own = os.environ.get("SHOESTRING_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "shoestring"


def read_cache(path: Path, schema: str) -> dict[str, object]:
    """Read a cache file.

    Args:
        path: the file.
        schema: its format; a file of another format counts as missing.

    Returns:
        Its rows, in a dict of the caller's own whose values are shared and are not to be
        changed; empty where the file is missing, damaged, too large or of another format.
    """
    try:
        found = path.stat()
        return dict(_rows(path, schema, (found.st_ino, found.st_mtime_ns, found.st_size)))
    except (OSError, InputError):
        return {}


@functools.lru_cache(maxsize=8)
def _rows(path: Path, schema: str, state: tuple[int, ...]) -> Mapping[str, object]:
    """Read a file once for each state it is in: parsing a large one takes longer than a trace."""
    rows = read_document(path, schema).get("rows")
    return rows if isinstance(rows, dict) else {}


def write_cache(path: Path, schema: str, rows: dict[str, object]) -> bool:
    """Write a cache file whole, so that no reader sees half of it.

    Args:
        path: the file; its folder is made.
        schema: its format.
        rows: what JSON can hold.

    Returns:
        Whether it was written; a full disk or a folder without permission is no error.
    """
    document = {"schema": schema, "rows": rows}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(document, separators=(",", ":")))
    except (OSError, InputError):
        return False
    return True
