"""Rematerialisation: what is kept from forward to backward, and what is computed again."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoestring.activations.remat.backends import backend as backend
    from shoestring.activations.remat.captured import Schedule as Schedule
    from shoestring.activations.remat.check import BlockCheck as BlockCheck
    from shoestring.activations.remat.eager.recorded import RecordedSchedule as RecordedSchedule
    from shoestring.activations.remat.fitting import fit as fit
    from shoestring.activations.remat.fitting import pareto as pareto
    from shoestring.activations.remat.fitting import remove as remove
    from shoestring.activations.remat.fitting import schedule as schedule
    from shoestring.activations.remat.fitting import schedules as schedules
    from shoestring.activations.remat.front import Front as Front

_FILES: Final = {
    "BlockCheck": "check",
    "Front": "front",
    "RecordedSchedule": "eager.recorded",
    "Schedule": "captured",
    "backend": "backends",
    "fit": "fitting",
    "pareto": "fitting",
    "remove": "fitting",
    "schedule": "fitting",
    "schedules": "fitting",
}
"""Where each public name lives: a plan computes again without the compiler, which takes a second
to import."""


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES})
