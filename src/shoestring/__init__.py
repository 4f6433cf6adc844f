"""Train, compress and measure PyTorch models on a budget of memory, time and communication.

The names below are imported when they are first used, so that importing the package is
instant and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoestring import activations as activations
    from shoestring import core as core
    from shoestring import integrations as integrations
    from shoestring import kernels as kernels
    from shoestring import measure as measure
    from shoestring import optim as optim
    from shoestring import planner as planner
    from shoestring import report as report
    from shoestring import testing as testing
    from shoestring import zeroth as zeroth
    from shoestring.catalog import cite as cite
    from shoestring.core.budget import Budget as Budget
    from shoestring.core.machine import Machine as Machine
    from shoestring.core.profile import Profile as Profile
    from shoestring.measure.counting.count import count as count
    from shoestring.measure.counting.counts import Count as Count
    from shoestring.measure.counting.diff import Difference as Difference
    from shoestring.measure.counting.diff import diff as diff
    from shoestring.planner.oom import explain_oom as explain_oom
    from shoestring.planner.plan import Plan as Plan
    from shoestring.planner.planning import plan as plan
    from shoestring.planner.profiling import profile as profile

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Count",
    "Difference",
    "Machine",
    "Plan",
    "Profile",
    "cite",
    "count",
    "diff",
    "explain_oom",
    "plan",
    "profile",
]

_ROOMS: Final = (
    "activations",
    "core",
    "integrations",
    "kernels",
    "measure",
    "optim",
    "planner",
    "report",
    "testing",
    "zeroth",
)


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        # The catalogue says where each name lives; it is not said a second time here.
        from shoestring.catalog import find

        module, _, attribute = find(name).path.partition(":")
        value: object = getattr(importlib.import_module(module), attribute)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
