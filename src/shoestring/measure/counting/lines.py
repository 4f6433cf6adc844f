"""A count as the lines of a table: modules as a tree, phases and operators."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from shoestring.core.trace import Phase
from shoestring.measure.counting.counts import FIGURES, Count, Totals, figures_of

_FOLDED_FROM: Final = 3
"""Like numbered siblings in a row that are one line."""
_TO: Final = " … "
_OUTSIDE: Final = "(no module)"
_LONGEST_NUMBER: Final = 10
_NOTHING: Final = Totals()


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of a table.

    Attributes:
        path: of a module, the numbers of like ones together, as in ``h.0 … 11.mlp``; or the
            name of a phase or an operator; empty for the whole.
        label: what is shown of it: the last part of the path.
        cost: what it computes and moves.
        level: depth in the tree of modules; 0 elsewhere.
        number: of modules that are one line.
        seconds: an estimate, or None where there is no machine.
    """

    path: str
    label: str
    cost: Totals
    level: int = 0
    number: int = 1
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The label, with the number of modules where it names several."""
        label = printable(self.label)
        return f"{label} ({self.number})" if _TO in label else label


def module_lines(
    count: Count, depth: int | None = 2, seconds: Mapping[str, float] | None = None
) -> list[Line]:
    """Return the modules as the lines of a tree, like numbered siblings as one.

    Args:
        count: what was counted.
        depth: of the modules, 0 for the whole alone; all by default.
        seconds: of every module, what is inside it included; None without a machine.

    Returns:
        The lines, the whole first and a module before what is inside it; the costs of modules
        that are one line are summed.
    """
    costs = count.by_module()
    patterns = module_patterns(count)
    members: dict[str, list[str]] = {}
    for path in costs:
        members.setdefault(patterns[path], []).append(path)
    sums = {pattern: added(costs[path] for path in paths) for pattern, paths in members.items()}
    lines = [
        Line(
            path=pattern,
            label=label or pattern or "total",
            cost=sums[pattern],
            level=level,
            number=len(members[pattern]),
            seconds=None if seconds is None else sum(seconds[p] for p in members[pattern]),
        )
        for level, pattern, label in _tree(sums)
        if depth is None or level <= depth
    ]
    rest = _outside(lines)
    return lines if rest is None else [*lines, rest]


def _outside(lines: Sequence[Line]) -> Line | None:
    """Return the line of what no module does, as an optimizer's step; None where that is none."""
    whole, parts = lines[0], [line for line in lines if line.level == 1]
    inside = added(line.cost for line in parts)
    if not parts or inside.calls == whole.cost.calls:
        return None
    left = (getattr(whole.cost, name) - getattr(inside, name) for name in FIGURES)
    seconds = None
    if whole.seconds is not None:
        seconds = max(whole.seconds - sum(line.seconds or 0.0 for line in parts), 0.0)
    return Line(_OUTSIDE, _OUTSIDE, Totals(*left), level=1, seconds=seconds)


def phase_lines(count: Count, seconds: Mapping[str, float] | None = None) -> list[Line]:
    """Return a line for each phase in which something ran.

    Args:
        count: what was counted.
        seconds: of every phase; None without a machine.
    """
    return _flat({name: cost for name, cost in count.by_phase().items() if cost.calls}, seconds)


def op_lines(
    count: Count, most: int | None = None, seconds: Mapping[str, float] | None = None
) -> list[Line]:
    """Return a line for each operator, those that take the most first.

    Args:
        count: what was counted.
        most: lines at most, what is left in a last one; all by default.
        seconds: of every operator; None without a machine.
    """
    costs = count.by_op()
    lines = _flat(costs, seconds)
    if seconds is not None:
        lines.sort(key=lambda line: -(line.seconds or 0.0))
    else:
        whole = count.total
        lines.sort(key=lambda line: -_weight(line.cost, whole))
    if most is None or len(lines) <= most:
        return lines
    kept, left = lines[: most - 1], lines[most - 1 :]
    rest = Line(
        path="",
        label=f"{len(left)} others",
        cost=added(line.cost for line in left),
        seconds=None if seconds is None else sum(line.seconds or 0.0 for line in left),
    )
    return [*kept, rest]


def printable(text: str) -> str:
    """Return a text without what moves a terminal's cursor or changes its colours.

    Args:
        text: a name, which may come from a file.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def added(costs: Iterable[Totals]) -> Totals:
    """Return several costs as one.

    Args:
        costs: of different calls.
    """
    rows = [figures_of(cost) for cost in costs]
    return Totals(*map(sum, zip(*rows, strict=True))) if rows else _NOTHING


def guides(lines: Sequence[Line]) -> list[str]:
    """Return what is drawn before the label of each line of a tree.

    Args:
        lines: of `module_lines`.

    Example:
        >>> cost = Totals()
        >>> guides([Line("", "total", cost), Line("a", "a", cost, 1), Line("b", "b", cost, 1)])
        ['', '├─ ', '└─ ']
    """
    found: list[str] = []
    more: dict[int, bool] = {}  # of each level, whether a line of it still comes
    for line in reversed(lines):
        level = line.level
        stem = "".join("│  " if more.get(n) else "   " for n in range(1, level))
        found.append(stem + ("├─ " if more.get(level) else "└─ ") if level else "")
        more = {n: here for n, here in more.items() if n < level} | {level: True}
    return found[::-1]


def _flat(costs: Mapping[str, Totals], seconds: Mapping[str, float] | None) -> list[Line]:
    return [
        Line(name, name, cost, seconds=None if seconds is None else seconds.get(name, 0.0))
        for name, cost in costs.items()
    ]


def _weight(cost: Totals, whole: Totals) -> float:
    """Return the larger of the shares of FLOPs and of bytes."""
    shares = [(cost.flops, whole.flops), (cost.bytes, whole.bytes)]
    return max(part / most if most else 0.0 for part, most in shares)


# --- like numbered siblings as one -----------------------------------------------------------


def _shapes(count: Count, costs: Mapping[str, Totals]) -> dict[str, int]:
    """Return a number for every module, equal for those that compute the same forward.

    Their backward may differ: the first of several layers often has no gradient of its input.
    """
    forward = [row for row in count.rows if row.phase is Phase.FORWARD]
    own = dataclasses.replace(count.counted, rows=tuple(forward)) if forward else count.counted
    compared = Count(lambda: own).by_module()
    children: dict[str, list[str]] = {}
    for path in costs:
        if path:
            children.setdefault(path.rpartition(".")[0], []).append(path)
    numbers: dict[object, int] = {}
    found: dict[str, int] = {}
    for path in sorted(costs, key=_level, reverse=True):
        inside = tuple(sorted((_last(child), found[child]) for child in children.get(path, ())))
        cost = compared.get(path, _NOTHING)
        shape = (cost.flops, cost.elementwise_flops, inside)
        found[path] = numbers.setdefault(shape, len(numbers))
    return found


def module_patterns(count: Count) -> dict[str, str]:
    """Return the path under which each module is shown, which like numbered siblings share.

    Args:
        count: what was counted.

    Returns:
        Path -> the same with numbers as in ``0 … 11``.
    """
    costs = count.by_module()
    shapes = _shapes(count, costs)
    numbered: dict[str, list[tuple[int, str]]] = {}
    for path in costs:
        parent, _, name = path.rpartition(".")
        if _is_number(name):
            numbered.setdefault(parent, []).append((int(name), path))
    names: dict[str, str] = {}
    for siblings in numbered.values():
        for run in _runs(sorted(siblings), shapes):
            if len(run) >= _FOLDED_FROM:
                label = f"{_last(run[0])}{_TO}{_last(run[-1])}"
                names |= dict.fromkeys(run, label)
    found: dict[str, str] = {"": ""}
    for path in sorted(costs, key=_level):
        parent, _, name = path.rpartition(".")
        shown = names.get(path, name)
        found[path] = f"{found[parent]}.{shown}" if parent else shown or path
    return found


def _is_number(name: str) -> bool:
    return (
        len(name) < _LONGEST_NUMBER
        and name.isascii()
        and name.isdigit()
        and (name == "0" or name[0] != "0")
    )


def _runs(siblings: Sequence[tuple[int, str]], shapes: Mapping[str, int]) -> list[list[str]]:
    """Return the paths of siblings whose numbers follow each other and have one shape, together."""
    runs: list[list[str]] = []
    before = None
    for index, path in siblings:
        if before == (index - 1, shapes[path]):
            runs[-1].append(path)
        else:
            runs.append([path])
        before = (index, shapes[path])
    return runs


def _tree(costs: Mapping[str, Totals]) -> list[tuple[int, str, str]]:
    """Return level, path and label of each line, a module before what is inside it.

    A module that does nothing beside its only child shares the line of that.
    """
    children: dict[str, list[str]] = {}
    for path in costs:
        if path:
            children.setdefault(path.rpartition(".")[0], []).append(path)
    found: list[tuple[int, str, str]] = []
    pending = [(0, "", "")]
    while pending:
        level, path, label = pending.pop()
        inside = children.get(path, [])
        if path and len(inside) == 1 and costs[inside[0]] == costs[path]:
            pending.append((level, inside[0], f"{label}.{_last(inside[0])}"))
            continue
        found.append((level, path, label))
        pending += [(level + 1, child, _last(child)) for child in reversed(inside)]
    return found


def _level(path: str) -> int:
    return path.count(".") + 1 if path else 0


def _last(path: str) -> str:
    return path.rpartition(".")[2]
