"""A backward in pieces, between which autograd takes the gradients that are complete.

A compiled backward is one node of autograd: its gradients come out together, at its end. Here
the inputs of a compiled forward pass through nodes that change nothing, each with some of the
inputs. In backward autograd comes to the compiled node first, which only begins; then to each of
those nodes in turn, which runs the compiled backward on to where its gradients are complete and
returns them. Accumulation, hooks, and what is not asked for at all stay autograd's own affair.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Generator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias, cast

import torch
from torch import fx

from shoestring.activations.remat.capture._torch import (
    Compiled,
    as_compiled,
    autocasts,
    box_inputs,
    gradient_of,
    input_of,
    mark_boxed,
    node_class,
    refuse_second,
    run_boxed,
    running_node,
    storage_key,
    will_run,
)
from shoestring.measure.tracing.calls import tensors

MOST: Final = 16
"""Pieces: each costs some microseconds, and a piece's gradients are alive together."""
_SECOND: Final = "a fitted step has no second derivatives (double backward): call remat.remove."

Gradient: TypeAlias = torch.Tensor | None
Running: TypeAlias = Generator[None, None, Sequence[Gradient]]


class Ready(NamedTuple):
    """A gradient of an input.

    Attributes:
        place: index among the outputs of the backward.
        source: index of the input among those that the compiled forward is called with.
        at: position in the backward after which nothing reads the gradient or the input again.
        weight: its bytes, as far as they are known.
    """

    place: int
    source: int
    at: int
    weight: int


class Pieces:
    """Compiles a backward so that it runs in pieces.

    It is made when the forward is captured: with autocast on, the types of that forward are the
    backward's too, whatever is on when it runs. So it is in torch's own compiled backward.

    Attributes:
        groups: the gradients of each piece, in the order in which they are complete; none where
            the backward runs as a whole.
        without_autocast: whether autocast was on.
    """

    def __init__(self) -> None:
        self.groups: list[list[Ready]] = []
        self.without_autocast = autocasts()

    def plan(self, module: fx.GraphModule, changed: Sequence[fx.Node] = ()) -> None:
        """Choose the pieces of a backward.

        Args:
            module: its graph, which is compiled later.
            changed: inputs that the forward writes to. Where one of them has a gradient, the
                backward runs as a whole: autograd lets nobody write to what was passed through.
        """
        ready = find_ready(module)
        written = {input_of(node.meta.get("desc")) for node in changed}
        groups = [] if any(each.source in written for each in ready) else group(ready)
        self.groups = groups if len(groups) > 1 else []

    def compile(self, module: fx.GraphModule, inputs: Sequence[object]) -> Compiled:
        """Return a function that runs a backward's graph.

        Args:
            module: the graph; changed in place.
            inputs: examples of its inputs; not looked at.
        """
        groups = self.groups
        if not groups:
            return run_boxed(module, inputs)
        outputs = len(cast("Sequence[object]", module.graph.output_node().args[0]))
        pause_after(module, groups)

        def run(arguments: list[object]) -> object:
            own = list(arguments)
            arguments.clear()
            return _Step(self, cast("Running", module.forward(own)), own, outputs).begin()

        return mark_boxed(run)

    def pass_through(self, arguments: Sequence[object]) -> list[object]:
        """Return the arguments of a compiled forward, with the nodes of autograd behind them.

        Args:
            arguments: what it is called with.
        """
        passed = list(arguments)
        # Autograd runs the nodes that were made last first.
        for number in reversed(range(len(self.groups))):
            sources = [ready.source for ready in self.groups[number]]
            given = [passed[source] for source in sources]
            made = _Passing.apply(self, number, *given)  # type: ignore[no-untyped-call]  # torch's
            for source, tensor in zip(sources, made, strict=True):
                passed[source] = tensor
        return passed


class _Step:
    """One run of a backward.

    Args:
        pieces: what is run.
        running: the backward's code, which pauses where a piece ends.
        box: where it puts the gradients of each piece but the last.
        outputs: how many outputs the backward has.
    """

    def __init__(self, pieces: Pieces, running: Running, box: list[object], outputs: int) -> None:
        self._pieces = pieces
        self._without_autocast = pieces.without_autocast
        self._running: Running | None = running
        self._box = box
        self._outputs = outputs
        self._next = 0
        self._found: dict[int, list[Gradient]] = {}
        self._awaited: set[int] = set()

    def begin(self) -> Sequence[Gradient]:
        """Hand the run to the nodes that go on with it.

        Returns:
            No gradients; all of them, where the nodes are not there.
        """
        node = running_node()
        behind = [] if node is None else [following for following, _ in node.next_functions]
        nodes = {
            cast("_Behind", following).number: cast("_Behind", following)
            for following in behind
            if isinstance(following, _PASSING_NODE)
            and cast("_Behind", following).pieces is self._pieces
        }
        none: list[Gradient] = [None] * self._outputs
        if len(nodes) < len(self._pieces.groups):
            self._awaited = set(range(len(self._pieces.groups)))
            for number, ready in enumerate(self._pieces.groups):
                for each, gradient in zip(ready, self.take(number), strict=True):
                    none[each.place] = gradient
            return none
        for number, following in nodes.items():
            if will_run(cast("torch.autograd.graph.Node", following)):
                self._awaited.add(number)
                following.step = self
        return none

    def take(self, number: int) -> list[Gradient]:
        """Run on to the end of a piece, and return its gradients.

        Args:
            number: of the piece.
        """
        while self._next <= number:
            assert self._running is not None, "it is dropped after the last piece that is awaited"
            with as_compiled(without_autocast=self._without_autocast):
                try:
                    next(self._running)
                    found = cast("list[Gradient]", list(self._box))
                except StopIteration as end:
                    found = list(end.value)
            self._box.clear()
            if self._next in self._awaited:
                self._found[self._next] = found
            del found
            self._next += 1
        self._awaited.discard(number)
        if not any(other >= self._next for other in self._awaited):
            self._running = None  # what it still holds is not needed
        return self._found.pop(number)


class _Behind(Protocol):
    """What a node of `_Passing` knows."""

    pieces: Pieces
    number: int
    step: _Step | None


class _Passing(torch.autograd.Function):
    """Passes inputs through, and returns their gradients when they are complete."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        pieces: Pieces,
        number: int,
        *given: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Return what is given."""
        ctx.set_materialize_grads(False)
        known = cast("_Behind", ctx)
        known.pieces, known.number, known.step = pieces, number, None
        return given

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *others: Gradient
    ) -> tuple[Gradient, ...]:
        """Return the gradients of a piece, and what came from outside of the compiled forward."""
        known = cast("_Behind", ctx)
        step, known.step = known.step, None
        if step is None:
            return (None, None, *others)
        return (None, None, *_sum(step.take(known.number), others))


_PASSING_NODE: Final = node_class(_Passing)


def _sum(found: list[Gradient], others: Sequence[Gradient]) -> list[Gradient]:
    if torch.is_grad_enabled() and any(gradient is not None for gradient in found):
        watched = iter(refuse_second(_SECOND, [each for each in found if each is not None]))
        found = [None if each is None else next(watched) for each in found]
    for place, other in enumerate(others):
        if other is not None:
            mine = found[place]
            found[place] = other if mine is None else other + mine
    return found


def find_ready(module: fx.GraphModule) -> list[Ready]:
    """Return where the gradients of a backward are complete.

    Nothing may read a gradient that autograd has taken, as a hook may change it in place; and
    nothing may read a parameter whose gradient is taken, as a hook may step the optimizer.

    Args:
        module: a backward's graph.

    Returns:
        The gradients in the order in which they are complete; none where an output is no
        gradient of a plain input.
    """
    output = module.graph.output_node()
    gradients = cast("Sequence[fx.node.Argument]", output.args[0])
    last, parameters = _last_uses(module.graph)
    position = {node: at for at, node in enumerate(module.graph.nodes)}
    returned = [k for g in gradients if isinstance(g, fx.Node) for k in _keys(g)]
    found = []
    for place, (gradient, note) in enumerate(zip(gradients, output.meta["desc"], strict=True)):
        if not isinstance(gradient, fx.Node):
            continue
        source = gradient_of(note)
        if source is None:
            return []
        keys = _keys(gradient)
        names = _last_names(gradient)
        alone = all(returned.count(key) == 1 for key in keys) and gradient.op == "call_function"
        uses = [last[key] for key in (*keys, *parameters.get(source, ())) if key in last]
        uses += [position[n] for name in names for n in name.all_input_nodes if n not in names]
        at = max(uses, default=0) if alone else len(position)
        weight = sum(t.nbytes for t in tensors(gradient.meta["val"]) if type(t.nbytes) is int)
        found.append(Ready(place, source, at, weight))
    return sorted(found, key=lambda ready: ready.at)


def _last_names(gradient: fx.Node) -> list[fx.Node]:
    """Return the views that end in a gradient and serve nothing else, in order."""
    names: list[fx.Node] = []
    node = gradient
    while len(node.users) == 1 and node.op == "call_function":
        wholes = [n for n in node.all_input_nodes if set(_keys(n)) & set(_keys(node))]
        if len(wholes) != 1 or not isinstance(wholes[0].meta["val"], torch.Tensor):
            break  # a part of a tuple is taken at once: it keeps the other parts alive
        names.insert(0, node)
        node = wholes[0]
    return names


def _last_uses(graph: fx.Graph) -> tuple[dict[int, int], dict[int, list[int]]]:
    """Return the position of the last use of each storage, and the storages of inputs."""
    last: dict[int, int] = {}
    parameters: dict[int, list[int]] = {}
    output = graph.output_node()
    names = {name for gradient in output.all_input_nodes for name in _last_names(gradient)}
    for position, node in enumerate(graph.nodes):
        if node is output or node in names:
            continue
        for used in (node, *node.all_input_nodes):
            last.update(dict.fromkeys(_keys(used), position))
        source = input_of(node.meta.get("desc")) if node.op == "placeholder" else None
        if source is not None:
            parameters[source] = _keys(node)
    return last, parameters


def _keys(node: fx.Node) -> list[int]:
    return [storage_key(tensor) for tensor in tensors(node.meta.get("val"))]


def group(ready: Sequence[Ready]) -> list[list[Ready]]:
    """Put gradients together until they are worth a piece.

    Args:
        ready: in the order in which they are complete.
    """
    least = sum(each.weight for each in ready) / MOST
    groups: list[list[Ready]] = []
    weight = 0
    for each in ready:
        if not groups or (weight >= least and each.at > groups[-1][-1].at):
            groups.append([])
            weight = 0
        groups[-1].append(each)
        weight += each.weight
    return groups


def pause(*gradients: torch.Tensor) -> None:
    """Stand in a graph where it is to pause; its code is replaced by one that does."""
    raise AssertionError("a pause is no operation")


def pause_after(module: fx.GraphModule, groups: Sequence[Sequence[Ready]]) -> None:
    """Let the code of a backward pause when all gradients of a group are complete.

    Args:
        module: the backward's graph; changed in place. Its `forward` is a generator then, which
            puts the gradients of each group into the list that it was called with, and returns
            those of the last group.
        groups: in the order in which they are complete.
    """
    graph = module.graph
    nodes = list(graph.nodes)
    output = graph.output_node()
    gradients = cast("Sequence[fx.node.Argument]", output.args[0])
    # Torch may have taken operations out since the groups were made.
    at = {ready.place: ready.at for ready in find_ready(module)}
    pauses: set[str] = set()
    for several in groups[:-1]:
        given = [cast("fx.Node", gradients[each.place]) for each in several]
        names = [name for gradient in given for name in _last_names(gradient)]
        with graph.inserting_after(nodes[max(at[each.place] for each in several)]):
            node = graph.call_function(pause, tuple(given))
        pauses.add(node.name)
        for name in names:
            node.prepend(name)
    output.args = (tuple(gradients[each.place] for each in groups[-1]),)
    output.meta["desc"] = [output.meta["desc"][each.place] for each in groups[-1]]
    graph.lint()
    graph.on_generate_code(lambda _: functools.partial(_paused, pauses=pauses))
    box_inputs(module)


_CALL: Final = re.compile(r"(\w+) = [\w.]+\((.*)\)$")


def _paused(body: list[str], pauses: set[str]) -> list[str]:
    """Return lines of code with those replaced that stand where it is to pause.

    Args:
        body: a call and what is dropped after it are strings of their own.
        pauses: names of the calls.
    """
    lines = []
    pausing = False
    for line in body:
        call = _CALL.match(line)
        if call is not None and call[1] in pauses:
            lines.append(f"args_list[:] = ({call[2]},)")
            pausing = True
            continue
        lines.append(line)
        if pausing:
            # After the names are dropped, so that autograd alone has the gradients then.
            lines.append("yield\n")
            pausing = False
    return lines
