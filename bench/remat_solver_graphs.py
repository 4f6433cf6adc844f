"""Graphs of operations that the solvers of rematerialisation are measured on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final

from shoestring.activations.remat.graph import Graph, Node, Value

BYTE: Final = 2_048_000
"""Bytes of the residual stream of a layer."""


class Tape:
    """Operations of a forward; the backward is derived from what each says it reads."""

    def __init__(self) -> None:
        """Begin with a parameter that all operations read."""
        self._values = [Value("parameter", 0)]
        self._nodes: list[Node] = []
        self._reads: list[tuple[int, ...]] = []

    def op(
        self,
        name: str,
        size: int,
        seconds: float,
        inputs: Sequence[int],
        *,
        saved: Sequence[int] | None = None,
        drawn: bool = False,
    ) -> int:
        """Add an operation and return what it makes.

        Args:
            name: for people.
            size: bytes of its result.
            seconds: that it takes; its backward takes twice as many.
            inputs: values that it reads.
            saved: values that its backward reads; by default its inputs.
            drawn: whether it draws random numbers; then it has no backward.
        """
        self._values.append(Value(name, size))
        made = len(self._values) - 1
        self._nodes.append(Node(name, seconds, (*inputs, 0), (made,), 0, not drawn))
        self._reads.append(() if drawn else tuple(inputs if saved is None else saved))
        return made

    def graph(self) -> Graph:
        """Return the graph whose loss reads the last result."""
        last, border = len(self._values) - 1, len(self._nodes)
        nodes, results = list(self._nodes), list[int]()
        gradients = {last: self._value("dloss", self._values[last].size)}
        nodes.append(Node("loss", 0.0, (last,), (gradients[last],)))
        for node, saved in reversed(list(zip(self._nodes, self._reads, strict=True))):
            (made,) = node.makes
            if not node.repeatable or made not in gradients:
                continue
            for source in node.reads[:-1]:
                partial = self._value("d" + self._values[source].name, self._values[source].size)
                reads = dict.fromkeys((gradients[made], *saved, 0))
                nodes.append(Node(node.name + "'", node.seconds, tuple(reads), (partial,)))
                if source in gradients:
                    both = (gradients[source], partial)
                    partial = self._value("sum", self._values[source].size)
                    nodes.append(Node("add", node.seconds / 8, both, (partial,)))
                gradients[source] = partial
            results = [gradients[made]]
        values = tuple(self._values)
        graph = Graph(tuple(nodes), values, border, frozenset({0}), frozenset(results))
        graph.check()
        return graph

    def _value(self, name: str, size: int) -> int:
        self._values.append(Value(name, size))
        return len(self._values) - 1


def transformer(layers: int, *, alike: bool) -> Graph:
    """Return layers of attention and pointwise parts, about 105 operations a layer.

    Args:
        layers: how many.
        alike: whether all are equal; otherwise no two take the same bytes or seconds.
    """
    tape = Tape()
    x = tape.op("embedding", BYTE, 1e-4, ())
    for layer in range(layers):
        scale = 1.0 if alike else 1.0 + 0.37 * math.sin(layer + 1.0)
        x = _layer(tape, x, int(BYTE * scale) // 64 * 64, 1e-3 * scale)
    tape.op("head", 4096, 1e-3, (_norm(tape, x, BYTE, 2.5e-5),))
    return tape.graph()


def _norm(tape: Tape, x: int, size: int, cost: float) -> int:
    mean = tape.op("mean", size // 512, cost, (x,))
    centred = tape.op("centred", size, cost, (x, mean), saved=())
    variance = tape.op("variance", size // 512, cost, (centred,), saved=(x, mean))
    inverse = tape.op("inverse", size // 512, cost / 50, (variance,))
    normal = tape.op("normal", size, cost, (centred, inverse), saved=(x, mean, inverse))
    scaled = tape.op("scaled", size, cost, (normal,))
    return tape.op("shifted", size, cost, (scaled,), saved=())


def _biased(tape: Tape, x: int, size: int, cost: float) -> int:
    return tape.op("biased", size, cost, (x,), saved=())


def _dropped(tape: Tape, x: int, size: int, cost: float) -> int:
    mask = tape.op("mask", size // 4, cost, (), drawn=True)
    return tape.op("dropped", size, cost, (x, mask), saved=(mask,))


def _layer(tape: Tape, x: int, size: int, cost: float) -> int:
    light = cost / 40
    h = _norm(tape, x, size, light)
    query, key, value = (tape.op(name, size, cost, (h,)) for name in ("query", "key", "value"))
    scores = tape.op("scores", 4 * size, cost / 2, (query, key))
    scaled = tape.op("scaled scores", 4 * size, 4 * light, (scores,), saved=())
    masked = tape.op("masked", 4 * size, 4 * light, (scaled,), saved=())
    weights = tape.op("softmax", 4 * size, 8 * light, (masked,))
    weights = _dropped(tape, weights, 4 * size, 4 * light)
    mixed = tape.op("mixed", size, cost / 2, (weights, value))
    out = _biased(tape, tape.op("out", size, cost, (mixed,)), size, light)
    out = _dropped(tape, out, size, light)
    x = tape.op("residual", size, light, (x, out), saved=())
    h = _norm(tape, x, size, light)
    wide, light = 4 * size, 4 * light
    up = _biased(tape, tape.op("up", wide, 4 * cost, (h,)), wide, light)
    cube = tape.op("cube", wide, light, (up,))
    inner = tape.op("inner", wide, light, (up, cube), saved=())
    tanh = tape.op("tanh", wide, light, (inner,))
    gate = tape.op("gate", wide, light, (tanh,), saved=())
    half = tape.op("half", wide, light, (up,), saved=())
    gelu = tape.op("gelu", wide, light, (half, gate))
    down = _biased(tape, tape.op("down", size, 4 * cost, (gelu,)), size, light / 4)
    return tape.op("residual", size, light, (x, _dropped(tape, down, size, light / 4)), saved=())


def chain(count: int) -> Graph:
    """Return operations one after another, of a second and a byte each."""
    tape, x = Tape(), 0
    for _ in range(count):
        x = tape.op("f", 1, 1.0, (x,) if x else ())
    return tape.graph()


def u_net(depth: int, width: int) -> Graph:
    """Return levels that go down, each half as large, and come back up with what went down."""
    tape = Tape()
    x, skips = tape.op("input", 64, 1.0, ()), list[int]()

    def level(start: int, size: int) -> int:
        for at in range(width):
            start = tape.op("level", size, 0.5 if at % 2 else 4.0, (start,))
        return start

    for down in range(depth):
        skips.append(level(x, 64 >> down))
        x = tape.op("pool", 64 >> (down + 1), 0.5, (skips[-1],))
    x = level(x, 64 >> depth)
    for up in reversed(range(depth)):
        x = level(tape.op("join", 128 >> up, 0.5, (x, skips.pop()), saved=()), 64 >> up)
    return tape.graph()


def skipping(count: int) -> Graph:
    """Return a chain in which every second operation reads also the one four before it."""
    tape, made = Tape(), list[int]()
    for i in range(count):
        above = sorted({i - 1, i - 4 * (i % 2)} & set(range(i)))
        made.append(tape.op("f", 1 + i % 7, 1.0 + i % 5, [made[k] for k in above]))
    return tape.graph()


def any_shape(seed: int) -> Graph:
    """Return a graph of at most 25 nodes whose shape, bytes and seconds are drawn.

    Args:
        seed: of the draw.
    """
    draw, tape, made = random.Random(seed), Tape(), list[int]()  # noqa: S311  # no secret
    for i in range(draw.randint(6, 12)):
        above = {i - 1, *(draw.randrange(i) for _ in range(draw.randint(0, 2)))} if i else set()
        inputs = [made[k] for k in sorted(above)]
        made.append(tape.op("f", draw.randint(1, 9), float(draw.randint(1, 9)), inputs))
    return tape.graph()


def linear_net(count: int) -> Graph:
    """Return a net of Checkmate's paper: all take a second and a byte, no gradient stays."""
    nodes = [Node(f"f{i}", 1.0, (i - 1,) if i else (), (i,)) for i in range(count)]
    nodes.append(Node("loss", 1.0, (count - 1,), (count,)))
    for k in range(count):
        reads = (count + k, count - 1 - k)
        nodes.append(Node(f"b{k}", 1.0, reads, (count + 1 + k,)))
    values = tuple(Value(node.name, 1) for node in nodes)
    return Graph(tuple(nodes), values, count, frozenset(), frozenset())
