"""What a result depends on: the sources that an optimizer's module imports, and those of the runs.

The whole room would be too much: a run takes hours, and an attack or a survey is no part of it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.harness import ROOT, SOURCE

ROOMS: Final = ("shoestring.zeroth.", "shoestring.kernels.")
NOT_TAKEN: Final = ("shoestring.zeroth.twin", "shoestring.zeroth.scratch")
"""Forwards that no run asks for."""


@functools.cache
def sources(module: str, *files: str) -> str:
    """Return a hash of what results depend on.

    Args:
        module: of the room, whose imports count; none for what is not ours.
        files: of the folder of this one, which count as well.
    """
    paths = [Path(__file__).parent / name for name in files]
    if module:
        paths += sorted(imported(f"{ROOMS[0]}{module}"))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def imported(module: str) -> set[Path]:
    """Return the files of the two rooms that importing a module runs.

    Args:
        module: its full name.
    """
    found: set[Path] = set()
    open_modules = [module]
    while open_modules:
        path = _path(open_modules.pop())
        if path not in found:
            found.add(path)
            open_modules += _imports(path)
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        name = node.module if isinstance(node, ast.ImportFrom) else None
        if name and name.startswith(ROOMS) and not name.startswith(NOT_TAKEN):
            yield name


def _path(module: str) -> Path:
    base = SOURCE.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
