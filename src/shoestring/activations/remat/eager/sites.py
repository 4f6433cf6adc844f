"""Names for the operations of a forward that hold from one step to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from shoestring.core.errors import InputError
from shoestring.core.trace import Phase, Trace


class Site(NamedTuple):
    """Where in a model an operation runs.

    Attributes:
        module: path of the module in whose forward it runs; empty for the model itself.
        name: of the operator, as in ``aten.mm.default``.
        number: of those of one name in one module that ran before it in the same forward.
    """

    module: str
    name: str
    number: int


class Counting:
    """Gives the operations of one forward their sites, in the order in which they run."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def next(self, module: str, name: str) -> Site:
        """Return the site of the next operation.

        Args:
            module: path of the module.
            name: of the operator.
        """
        number = self._counts[module, name]
        self._counts[module, name] = number + 1
        return Site(module, name, number)


def sites_of(trace: Trace) -> dict[int, Site]:
    """Return the sites of the operations that ran in the model's own forwards.

    Args:
        trace: a step.

    Returns:
        Index of each such operation -> its site. Several forwards give the same sites.
    """
    found: dict[int, Site] = {}
    end = 0
    for start, stop in sorted(trace.calls):
        if start < end:  # the model has called itself
            continue
        counting, end = Counting(), stop
        for index in range(start, stop):
            op = trace.ops[index]
            if op.phase is Phase.FORWARD:
                found[index] = counting.next(op.module, op.name)
    return found


def to_text(sites: Iterable[Site]) -> tuple[str, ...]:
    """Write sites as text, those of one module in one line.

    Args:
        sites: any.

    Returns:
        Lines such as ``encoder.0.mlp: aten.gelu.default 0, aten.mul.Tensor 0 2``.
    """
    modules: dict[str, dict[str, list[int]]] = {}
    for site in sorted(set(sites)):
        modules.setdefault(site.module, {}).setdefault(site.name, []).append(site.number)
    return tuple(
        f"{module}: " + ", ".join(f"{name} {' '.join(map(str, n))}" for name, n in names.items())
        for module, names in modules.items()
    )


def from_text(lines: Sequence[str]) -> frozenset[Site]:
    """Read what `to_text` wrote.

    Args:
        lines: one for each module.

    Raises:
        InputError: a line is none of those.
    """
    return frozenset(site for line in lines for site in _read(line))


def _read(line: str) -> Iterator[Site]:
    module, colon, rest = line.partition(": ")
    for part in rest.split(", "):
        name, *numbers = part.split(" ")
        if not (colon and name and numbers and all(n.isdecimal() for n in numbers)):
            raise InputError(
                f"{line!r} names no operations.",
                hint="write them as in 'encoder.0.mlp: aten.gelu.default 0'.",
            )
        for number in numbers:
            yield Site(module, name, int(number))
