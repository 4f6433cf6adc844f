"""The techniques a planner knows: those of the catalogue."""

from __future__ import annotations

import importlib

from shoestring import catalog
from shoestring.core.technique import Technique


def technique_classes() -> tuple[type[Technique], ...]:
    """Return the techniques of the catalogue, in the order in which they act."""
    found = []
    for row in catalog.rows():
        if row.kind == "technique":
            module, _, name = row.path.partition(":")
            found.append(getattr(importlib.import_module(module), name))
    return tuple(sorted(found, key=lambda cls: (cls.slot, cls.name)))
