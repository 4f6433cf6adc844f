"""Where the bytes and FLOPs of a step are, by module."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from shoestring.core.markup import Html, table
from shoestring.core.units import format_bytes, format_seconds
from shoestring.report.figure import (
    BLUE,
    KIND_COLOURS,
    Key,
    Plot,
    bytes_and_share,
    figure,
    named,
    plot,
)

_BYTES: Final = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "saved": "saved activations",
}
_COLOURS: Final = {kind: KIND_COLOURS[kind] for kind in _BYTES.values()}
_NUMBERS: Final = (*_BYTES, "flops", "traffic", "forward_seconds", "backward_seconds")
_MOST_ROWS: Final = 12
_MERGED_FROM: Final = 3
_ALIKE: Final = 0.6
_ROW_HEIGHT: Final = 36
_LONGEST_LABEL: Final = 40
_REST: Final = "rest of "


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A part of the model, or several like ones together.

    Attributes:
        label: its path; ``*`` stands for the numbers of like modules.
        count: modules in it that are alike.
        numbers: what it costs, by name.
    """

    label: str
    count: int
    numbers: dict[str, float]

    @property
    def bytes(self) -> float:
        """Bytes of parameters, gradients, optimizer state and what is kept for backward."""
        return sum(self.numbers[name] for name in _BYTES)


def parts(rows: Sequence[Mapping[str, object]], *, most: int = _MOST_ROWS) -> list[Part]:
    """Split a model into disjoint parts, the costliest split further.

    Args:
        rows: costs by module, children included, as in a timeline.
        most: as many parts at most.

    Returns:
        Parts by falling bytes; they sum up to the whole model, what is left in a last one.
    """
    tree = _merged({str(row["path"]): _numbers(row) for row in rows})
    if "" not in tree:
        return []
    front, closed = {""}, set[str]()
    while front - closed:
        widest = max(front - closed, key=lambda path: (tree[path].bytes, path))
        children = _children(tree, widest)
        rest = _rest(tree[widest], [tree[c] for c in children])
        # What a module holds beside them takes a row too.
        if not children or len(front) + len(children) > most - (rest is not None):
            closed.add(widest)
            continue
        front.remove(widest)
        front.update(children)
        if rest is not None:
            tree[f"{widest} "] = rest
            front.add(f"{widest} ")
            closed.add(f"{widest} ")
    named_parts = [tree[path] for path in front]
    return sorted(named_parts, key=lambda part: (-part.bytes, part.label))


def _numbers(row: Mapping[str, object]) -> dict[str, float]:
    found = {name: row.get(name, 0) for name in _NUMBERS}
    # A damaged file may hold anything; what is no amount counts nothing.
    return {
        name: float(value)
        if isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        else 0.0
        for name, value in found.items()
    }


def _merged(costs: Mapping[str, dict[str, float]]) -> dict[str, Part]:
    """Return the modules as a tree in which like numbered siblings are one."""
    alike = _alike(costs)
    found: dict[str, Part] = {}
    for path, numbers in costs.items():
        label = _pattern(path, alike)
        before = found.get(label)
        if before is None:
            found[label] = Part(label, 1, dict(numbers))
        else:
            sums = {name: before.numbers[name] + numbers[name] for name in _NUMBERS}
            found[label] = Part(label, before.count + 1, sums)
    return found


def _alike(costs: Iterable[str]) -> set[str]:
    """Return the paths of which the numbered children have mostly the same paths inside."""
    inside: dict[str, dict[str, set[str]]] = {}
    for path in costs:
        names = path.split(".")
        for depth, name in enumerate(names):
            if name.isdigit():
                parent, below = ".".join(names[:depth]), ".".join(names[depth + 1 :])
                inside.setdefault(parent, {}).setdefault(name, set()).add(below)
    return {
        parent
        for parent, children in inside.items()
        if len(children) >= _MERGED_FROM
        and len(every := set[str]().union(*children.values())) > 1
        # The first block of several often has a part more, and the costs of small parts may
        # have been left out of the list.
        and all(len(below) >= _ALIKE * len(every) for below in children.values())
    }


def _pattern(path: str, alike: set[str]) -> str:
    names = path.split(".")
    return ".".join(
        "*" if name.isdigit() and ".".join(names[:depth]) in alike else name
        for depth, name in enumerate(names)
    )


def _children(tree: Mapping[str, Part], path: str) -> list[str]:
    depth = len(path.split(".")) if path else 0
    start = f"{path}." if path else ""
    return [
        other
        for other, part in tree.items()
        if other
        and other.startswith(start)
        and len(other.split(".")) == depth + 1
        # What only some of like modules have, or have listed, stays in the rest of them.
        and part.count % tree[path].count == 0
    ]


def _rest(whole: Part, children: Sequence[Part]) -> Part | None:
    """Return what a module costs beside the children listed; None where that is nothing."""
    numbers = {
        name: max(whole.numbers[name] - sum(c.numbers[name] for c in children), 0.0)
        for name in _NUMBERS
    }
    left = Part(f"{_REST}{whole.label or 'the model'}", whole.count, numbers)
    return left if left.bytes or numbers["flops"] else None


def modules_figure(rows: Sequence[Mapping[str, object]], *, prefix: str) -> Html | None:
    """Return the figure of a run's modules.

    Args:
        rows: costs by module, children included.
        prefix: what ids begin with.

    Returns:
        The figure, or None where the rows say nothing.
    """
    found = [part for part in parts(rows) if part.bytes or part.numbers["flops"]]
    if not found:
        return None
    whole = sum(part.bytes for part in found)
    flops = sum(part.numbers["flops"] for part in found)
    first = found[0]
    words = (
        f"The parts of the plain step, largest first; {_label(first)} holds "
        f"{bytes_and_share(first.bytes, whole)} of what is kept through the step."
    )
    if any(part.count > 1 for part in found):
        words += " A star stands for the numbers of like modules."
    return figure(
        "By module",
        words,
        [_bytes_plot(found, prefix), *([_flops_plot(found, prefix)] if flops else [])],
        table=_table(found, whole, flops),
        legend=[Key(name, colour) for name, colour in _COLOURS.items()],
    )


def _label(part: Part) -> str:
    label = part.label or "the model"
    return f"{label} ({part.count})" if part.count > 1 else label


def _short(text: str) -> str:
    """Return a label that a phone has room for; the end of a path says more than its start."""
    start = _REST if text.startswith(_REST) else ""
    path, room = text.removeprefix(start), _LONGEST_LABEL - len(start)
    return text if len(path) <= room else f"{start}…{path[1 - room :]}"


def _bytes_plot(found: Sequence[Part], prefix: str) -> Plot:
    bars: list[dict[str, object]] = [
        {"row": i, "kind": kind, "order": order, "value": part.numbers[name], "label": _label(part)}
        for i, part in enumerate(found)
        for order, (name, kind) in enumerate(_BYTES.items())
        if part.numbers[name]
    ]
    texts = [(_label(part), format_bytes(part.bytes)) for part in found]
    top = max(part.bytes for part in found)
    words = "Bytes by module: " + "; ".join(f"{label} {size}" for label, size in texts) + "."
    return _bars(f"{prefix}-bytes", "bytes", words, bars, texts, top, _COLOURS)


def _flops_plot(found: Sequence[Part], prefix: str) -> Plot:
    bars: list[dict[str, object]] = [
        {"row": i, "kind": "FLOPs", "order": 0, "value": flops, "label": _label(part)}
        for i, part in enumerate(found)
        if (flops := part.numbers["flops"])
    ]
    texts = [(_label(part), format_flops(part.numbers["flops"])) for part in found]
    top = max(part.numbers["flops"] for part in found)
    words = "FLOPs by module: " + "; ".join(f"{label} {size}" for label, size in texts) + "."
    return _bars(f"{prefix}-flops", "FLOPs", words, bars, texts, top, {"FLOPs": BLUE})


def _bars(
    ident: str,
    label: str,
    words: str,
    bars: list[dict[str, object]],
    texts: Sequence[tuple[str, str]],
    top: float,
    colours: Mapping[str, str],
) -> Plot:
    import altair as alt

    y = alt.Y(
        "row:O",
        axis=None,
        sort=None,
        scale=alt.Scale(domain=list(range(len(texts))), paddingInner=0.65, paddingOuter=0.5),
    )
    x = alt.X("value:Q", axis=None, stack="zero", scale=alt.Scale(domain=[0, top], nice=False))
    stack = (
        alt.Chart(named("bars"))
        .mark_bar()
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "kind:N",
                legend=None,
                scale=alt.Scale(domain=list(colours), range=list(colours.values())),
            ),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("label:N"), alt.Tooltip("kind:N"), alt.Tooltip("value:Q")],
        )
    )
    base = alt.Chart(named("texts")).encode(y=y)
    names = base.mark_text(align="left", dy=-15).encode(x=alt.value(0), text="name:N")
    sizes = base.mark_text(align="right", dy=-15).encode(x=alt.value("width"), text="size:N")
    data: dict[str, list[dict[str, object]]] = {
        "bars": bars,
        "texts": [
            {"row": i, "name": _short(name), "size": size} for i, (name, size) in enumerate(texts)
        ],
    }
    chart = alt.LayerChart(layer=[stack, names, sizes])
    height = _ROW_HEIGHT * len(texts)
    return plot(ident, chart, data, words=words, label=label, height=height)


def format_flops(count: float) -> str:
    """Return a number of operations for people, as in ``1.25 TFLOP``.

    Args:
        count: floating point operations.
    """
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,.0f} FLOP"


def _table(found: Sequence[Part], whole: float, flops: float) -> Html:
    columns: list[tuple[str, Callable[[Part], str]]] = [
        ("Bytes", lambda part: bytes_and_share(part.bytes, whole)),
        *((kind.capitalize(), _cell(name, format_bytes)) for name, kind in _BYTES.items()),
    ]
    if flops:
        columns.append(("FLOPs", lambda part: _flops_and_share(part.numbers["flops"], flops)))
    for name in ("forward", "backward"):
        if any(part.numbers[f"{name}_seconds"] for part in found):
            cell = _cell(f"{name}_seconds", format_seconds)
            columns.append((f"{name.capitalize()} (estimated)", cell))
    return table(
        "Costs of the plain step by module; the parts sum up to the model",
        ["Module", *(name for name, _ in columns)],
        [[_label(part), *(cell(part) for _, cell in columns)] for part in found],
        numbers=range(1, len(columns) + 1),
    )


def _cell(name: str, write: Callable[[float], str]) -> Callable[[Part], str]:
    return lambda part: write(part.numbers[name])


def _flops_and_share(count: float, whole: float) -> str:
    return f"{format_flops(count)} ({count / whole:.0%})"
