"""What importing a module of the package runs: what a result of that module hangs on."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parent.parent / "src" / "shoestring"
PACKAGE: Final = "shoestring"
GROUND: Final = ("core", "measure", "catalog")
"""Rooms that no result hangs on: errors, files and units, and how peaks are measured."""


def imported(module: str, *, without: Sequence[str] = (), source: Path = SOURCE) -> set[Path]:
    """Return the files that importing a module runs, wherever in it they are named.

    Args:
        module: its name in the package, as in ``zeroth.sgd``.
        without: modules whose files are left out, with all below them, besides those of `GROUND`.
        source: the package's folder.

    Raises:
        ValueError: there is no such module.
    """
    left_out = (*GROUND, *without)
    found: set[Path] = set()
    open_modules = [module]
    while open_modules:
        path = _path(open_modules.pop(), source)
        if path not in found:
            found.add(path)
            open_modules += [
                name
                for name in _imports(path, source)
                if not any(f"{name}.".startswith(f"{other}.") for other in left_out)
            ]
    return found


def _imports(path: Path, source: Path) -> Iterator[str]:
    """Yield the modules that a file takes names from, but no whole room, which imports all of it.

    Those that are taken where they are needed first count as well.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.ImportFrom) and node.module):
            continue
        if node.module.startswith(f"{PACKAGE}."):
            name = node.module.removeprefix(f"{PACKAGE}.")
            folder = source.joinpath(*name.split("."))
            modules = [a.name for a in node.names if (folder / f"{a.name}.py").is_file()]
            yield from (f"{name}.{module}" for module in modules)
            if "." in name and len(modules) < len(node.names):
                yield name


def _path(module: str, source: Path) -> Path:
    base = source.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        raise ValueError(f"there is no module {module!r}")
    return path
