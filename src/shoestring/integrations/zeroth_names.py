"""The zeroth-order optimizers by the names of the command line; no torch is imported.

One more takes a word in `ZerothName` and a line in `ZEROTH`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias, cast

from shoestring import catalog

if TYPE_CHECKING:
    from shoestring.zeroth.engine import ZerothOrder

ZerothName: TypeAlias = Literal[
    "zo", "zo-sign", "zo-adam", "zo-muon", "sampling-muon", "jaguar-sign", "jaguar-muon",
    "lozo", "hizoo",
]  # fmt: skip


class Named(NamedTuple):
    """An optimizer of the catalogue, as the command line offers it.

    Attributes:
        row: its name in the catalogue.
        rate: what its learning rate is measured as: ``slope`` where a step is as long as the slope,
            ``length`` where every weight moves by about the rate, ``own`` where it must be given
            and eps is the optimizer's unless given.
    """

    row: str
    rate: Literal["slope", "length", "own"]

    def load(self) -> Callable[..., ZerothOrder]:
        """Import its class."""
        module, _, name = catalog.find(self.row).path.partition(":")
        return cast("Callable[..., ZerothOrder]", getattr(importlib.import_module(module), name))


ZEROTH: Final[dict[str, Named]] = {
    "zo": Named("ZOSGD", "slope"),
    "zo-sign": Named("ZOSign", "length"),
    "zo-adam": Named("ZOAdam", "length"),
    "zo-muon": Named("ZOMuon", "own"),
    "sampling-muon": Named("SamplingMuon", "own"),
    "jaguar-sign": Named("JaguarSign", "own"),
    "jaguar-muon": Named("JaguarMuon", "own"),
    "lozo": Named("LOZO", "slope"),
    "hizoo": Named("HiZOO", "slope"),
}
