"""What a long table's result depends on: what its optimizer's module imports, and its own files.

The whole room would be too much: a run takes hours, and an attack or a survey is no part of it.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

from bench.harness import ROOT
from bench.modules import imported

NOT_ASKED: Final = ("zeroth.twin", "zeroth.scratch")
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
        paths += sorted(imported(f"zeroth.{module}", without=NOT_ASKED))
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
