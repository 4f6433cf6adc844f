"""All persistent schedules of a chain, tried one by one; chains and graphs to try them on."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.solvers.rotor import Act, Operation, Option, Run, Stage


class State(NamedTuple):
    """Where a schedule stands.

    Attributes:
        next: the stage whose backward comes next.
        seen: how many stages have been run.
        inputs: stages whose input is kept by itself.
        saved: stages that keep an option, with the option.
        moving: the stage whose input was just made and is not kept; -1 for none.
    """

    next: int
    seen: int
    inputs: frozenset[int]
    saved: frozenset[tuple[int, int]]
    moving: int


def fastest(stages: Sequence[Stage], budget: int, *, anywhere: bool = False) -> float:
    """Return the least seconds of all schedules in which what is kept stays until it is used.

    Args:
        stages: the chain.
        budget: most bytes at one time.
        anywhere: whether a forward may start from any input that is there, or only from the
            last one.
    """
    start = State(len(stages) - 1, 0, frozenset(), frozenset(), -1)
    least = {start: 0.0}
    queue: list[tuple[float, int, State]] = [(0.0, 0, start)]
    ticket = itertools.count(1)
    while queue:
        seconds, _, state = heapq.heappop(queue)
        if state.next < 0:
            return seconds
        if seconds > least[state]:
            continue
        for run, after in _moves(stages, state, anywhere=anywhere):
            if run.peak <= budget and seconds + run.seconds < least.get(after, math.inf):
                least[after] = seconds + run.seconds
                heapq.heappush(queue, (least[after], next(ticket), after))
    return math.inf


def replayed(stages: Sequence[Stage], operations: Sequence[Operation]) -> Run:
    """Return seconds and peak of a schedule, by the moves of the search."""
    state = State(len(stages) - 1, 0, frozenset(), frozenset(), -1)
    seconds, peak = 0.0, 0
    for operation in operations:
        run, state = _done(stages, state, operation)
        seconds += run.seconds
        peak = max(peak, run.peak)
    assert state.next < 0, "the schedule ends before the last backward"
    return Run(seconds, peak)


def _there(state: State) -> list[int]:
    """Stages whose input is there."""
    there = {0, *state.inputs, *(stage + 1 for stage, _ in state.saved)}
    if state.moving >= 0:
        there.add(state.moving)
    return sorted(stage for stage in there if stage <= state.next)


def _moves(stages: Sequence[Stage], state: State, *, anywhere: bool) -> Iterator[tuple[Run, State]]:
    saved = dict(state.saved)
    if state.next in saved:
        yield _done(stages, state, Operation(Act.BACK, state.next, saved[state.next]))
        return
    there = _there(state)
    for stage in there if anywhere else there[-1:]:
        if stage == state.next:
            for solo in range(len(stages[stage].solos)):
                yield _done(stages, state, Operation(Act.SOLO, stage, solo))
        elif stage not in saved:
            yield _done(stages, state, Operation(Act.CHECK, stage))
            if stage == state.moving:
                yield _done(stages, state, Operation(Act.SKIP, stage))
            for option in range(len(stages[stage].options)):
                yield _done(stages, state, Operation(Act.KEEP, stage, option))


def _done(stages: Sequence[Stage], state: State, operation: Operation) -> tuple[Run, State]:
    """Return what a move takes, all that stands beside it included, and the state after it."""
    act, stage, option = operation
    saved, inputs, own = dict(state.saved), set(state.inputs), stages[stage]
    assert stage in _there(state), "the input is gone"
    if act is Act.SKIP:
        assert stage == state.moving, "only an input that nobody keeps goes"
    elif stage and stage - 1 not in saved:
        inputs.add(stage)
    again = stage < state.seen
    beside = _beside(stages, state, inputs, operation)
    seen, following, moving = max(state.seen, stage + 1), state.next, -1
    if act is Act.KEEP:
        run = own.options[option].again if again else own.options[option].first
        saved[stage] = option
    elif act is Act.CHECK or act is Act.SKIP:
        run = own.again if again else own.first
        if act is Act.SKIP:
            run = Run(run.seconds, own.freeing[again])
        moving = stage + 1
    else:
        run = own.solos[option] if act is Act.SOLO else own.options[saved.pop(stage)].back
        assert stage == state.next, "backwards go from the last to the first"
        inputs.discard(stage)
        following -= 1
    after = State(following, seen, frozenset(inputs), frozenset(saved.items()), moving)
    return Run(run.seconds, run.peak + beside), after


def _beside(stages: Sequence[Stage], state: State, inputs: set[int], operation: Operation) -> int:
    """Return the bytes that are there while a move runs and are not its own."""
    act, stage, _ = operation
    turning = act in {Act.SOLO, Act.BACK}
    beside = sum(stages[i].input for i in inputs)
    beside += sum(stages[i].options[k].kept for i, k in state.saved if i != stage)
    beside += sum(own.results for own in stages[state.next + 1 :])
    saved = dict(state.saved)
    for i in range(min(state.seen, state.next + 1)):
        if i != stage and i not in saved:
            beside += stages[i].pinned
    if not turning and state.next < len(stages) - 1:
        beside += stages[state.next].arrives
    return beside


def unit_chain(count: int) -> list[Stage]:
    """Return stages that keep nothing but inputs of a byte; a forward takes a second."""
    run, nothing = Run(1.0, 0), Run(0.0, 0)
    return [Stage(1, run, run, (0, 0), (), (nothing,)) for _ in range(count)]


@st.composite
def chains(draw: st.DrawFn, *, most: int = 4, plain: bool = False) -> list[Stage]:
    """Draw a chain with any figures; a plain one has neither pinned bytes, nor gradients."""

    def run() -> Run:
        return Run(float(draw(st.integers(0, 9))), draw(st.integers(0, 9)))

    def few(most: int) -> int:
        return 0 if plain else draw(st.integers(0, most))

    stages = []
    for at in range(draw(st.integers(1, most))):
        pinned = few(3)
        options = []
        for _ in range(draw(st.integers(0, 2))):
            first, again = run(), run()
            first = again if plain else first
            options.append(Option(first, again, draw(st.integers(0, 9)), run()))
        first, again = run(), run()
        freeing = (draw(st.integers(0, 9)), draw(st.integers(0, 9)))
        if plain:
            first, freeing = again, (freeing[0], freeing[0])
        solos = tuple(run() for _ in range(draw(st.integers(1, 2))))
        given = draw(st.integers(0, 5)) if at else 0
        stages.append(
            Stage(given, first, again, freeing, tuple(options), solos, few(3), pinned, few(2))
        )
    return stages


@st.composite
def block_graphs(
    draw: st.DrawFn, *, blocks: int = 3, inside: int = 3, masked: bool = False, drawn: bool = True
) -> Graph:
    """Draw a forward of blocks that are joined by one value each, with its backward.

    Args:
        draw: of hypothesis.
        blocks: most blocks.
        inside: most nodes of a block.
        masked: whether a small value of the first node is read by each block.
        drawn: whether some nodes may not run again.
    """
    parents: list[list[int]] = [[]]
    sizes = [1] if masked else [draw(st.integers(1, 9))]
    last = 0
    if masked:
        parents.append([])
        sizes.append(draw(st.integers(5, 50)))
        last = 1
    for _ in range(draw(st.integers(1, blocks))):
        start = len(parents)
        for node in range(start, start + draw(st.integers(1, inside))):
            own = draw(st.sets(st.sampled_from([last, *range(start, node)]), min_size=1))
            parents.append(sorted(own))
            sizes.append(draw(st.integers(5, 50)) if masked else draw(st.integers(1, 9)))
        read = set(itertools.chain.from_iterable(parents[start:]))
        end = len(parents) - 1
        parents[end] = sorted({*parents[end], *(n for n in range(start, end) if n not in read)})
        if masked:
            parents[start] = [0, *parents[start]]
        last = end
    count = len(parents)
    seconds = [float(draw(st.integers(0, 9))) for _ in range(count)]
    random = {n for n in range(count) if drawn and draw(st.integers(0, 5)) == 0}
    workspaces = [draw(st.sampled_from([0, 0, 3])) for _ in range(count)]
    return differentiated_in_place(
        parents, sizes, seconds, workspaces, random, constant=frozenset({0} if masked else ())
    )


def differentiated_in_place(
    parents: Sequence[Sequence[int]],
    sizes: Sequence[int],
    seconds: Sequence[float],
    workspaces: Sequence[int],
    random: set[int],
    *,
    constant: frozenset[int] = frozenset(),
) -> Graph:
    """Return a forward and its backward, in which each node leaves a gradient of a parameter.

    The backward of a node reads the gradients that its readers made for it, its parents' values
    and, for every third node, its own. It makes a gradient for each parent and a result. Nodes
    that are constant have no backward.
    """
    count = len(parents)
    values = [Value(f"x{n}", sizes[n]) for n in range(count)]
    given: dict[int, list[int]] = {n: [] for n in range(count)}

    def value(name: str, size: int) -> int:
        values.append(Value(name, size))
        return len(values) - 1

    parameter = value("w", 7)
    nodes = [
        Node(f"f{n}", seconds[n], (*parents[n], parameter), (n,), workspaces[n], n not in random)
        for n in range(count)
    ]
    given[count - 1].append(value("dloss", sizes[-1]))
    nodes.append(Node("loss", 0.0, (count - 1,), tuple(given[count - 1])))
    results = []
    for n in sorted(set(range(count)) - constant, reverse=True):
        reads = [*given[n], *parents[n], parameter, *([n] if n % 3 == 0 else [])]
        made = []
        for parent in sorted(set(parents[n]) - constant):
            made.append(value(f"d{n}to{parent}", sizes[parent]))
            given[parent].append(made[-1])
        results.append(value(f"dw{n}", 1 + n % 3))
        makes = (*made, results[-1])
        nodes.append(Node(f"b{n}", 2 * seconds[n], tuple(reads), makes, workspaces[n]))
    graph = Graph(tuple(nodes), tuple(values), count, frozenset({parameter}), frozenset(results))
    graph.check()
    return graph
