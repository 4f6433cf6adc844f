"""Solve a graph as a chain of blocks: ways to run each block, then the best way through all."""

from __future__ import annotations

import bisect
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import MOST, Block, cut
from shoestring.activations.remat.solvers.closure_order import closure_cost, closure_order
from shoestring.activations.remat.solvers.rotor import (
    SLOTS,
    Act,
    Operation,
    Option,
    Run,
    Schedule,
    Stage,
    Table,
)

Order: TypeAlias = tuple[int, ...]
Points: TypeAlias = Callable[[Graph], Iterable[AbstractSet[int]]]
CHOICES = 16


class Keep(NamedTuple):
    """The nodes of an option.

    Attributes:
        first: of the forward, when the block has never been run.
        again: of the forward, when what is pinned is there.
        back: of the backward, with what it computes again.
    """

    first: Order
    again: Order
    back: Order


class Recipe(NamedTuple):
    """The ways to run a block, and what they take.

    Attributes:
        stage: what they take.
        first: nodes of a forward that keeps nothing, when the block has never been run.
        again: the same when what is pinned is there.
        keeps: nodes of the options, as in the stage.
        solos: nodes of forward and backward in one go, as in the stage.
    """

    stage: Stage
    first: Order
    again: Order
    keeps: tuple[Keep, ...]
    solos: tuple[Order, ...]


class Chain:
    """A graph cut into blocks, with the ways to run each; equal blocks are worked out once."""

    def __init__(
        self, graph: Graph, points: Points, *, most: int = MOST, until: float = math.inf
    ) -> None:
        """Cut the graph and work out its blocks.

        Args:
            graph: the operations.
            points: gives for a block's graph the sets of nodes that an option may run again in
                backward. Nothing and everything are always tried.
            most: most blocks.
            until: when to stop, by `time.monotonic`; blocks that are not worked out by then have
                only the ways that keep everything or nothing.

        Raises:
            NotAChainError: the graph cannot be cut.
        """
        self.graph = graph
        self.blocks = cut(graph, most=most)
        self._recipes: dict[int, Recipe] = {}
        for block in self.blocks:
            if block.group not in self._recipes:
                given = points if time.monotonic() < until else _none
                self._recipes[block.group] = recipe(block, given)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What the blocks take, in order."""
        return tuple(self._recipes[block.group].stage for block in self.blocks)

    @property
    def groups(self) -> int:
        """How many blocks differ."""
        return len(self._recipes)

    def order(self, operations: Sequence[Operation]) -> Order:
        """Return the order of the whole graph that does some operations.

        Args:
            operations: of a schedule of `stages`.
        """
        order: list[int] = []
        seen = 0
        for operation in operations:
            block = self.blocks[operation.stage]
            local = _nodes(self._recipes[block.group], operation, again=operation.stage < seen)
            order += (block.nodes[node] for node in local)
            seen = max(seen, operation.stage + 1)
        return tuple(order)

    def answer(self, schedule: Schedule) -> Answer:
        """Return the order of a schedule with its true peak.

        Args:
            schedule: of `stages`.
        """
        order = self.order(schedule.operations)
        run = simulate(self.graph, order)
        return Answer(order, run.peak, run.seconds, self.graph.seconds, "rotor", complete=True)


def _nodes(recipe: Recipe, operation: Operation, *, again: bool) -> Order:
    act, _, option = operation
    if act is Act.SOLO:
        return recipe.solos[option]
    if act is Act.BACK:
        return recipe.keeps[option].back
    if act is Act.KEEP:
        return recipe.keeps[option].again if again else recipe.keeps[option].first
    return recipe.again if again else recipe.first


def _none(_: Graph) -> tuple[AbstractSet[int], ...]:
    return ()


def solve_chain(
    graph: Graph,
    budget: int,
    points: Points,
    *,
    slots: int = SLOTS,
    most: int = MOST,
) -> Answer:
    """Find the fastest persistent schedule over the blocks of a graph.

    Args:
        graph: the operations.
        budget: most bytes at one time.
        points: as in `Chain`.
        slots: that the budget is divided into.
        most: most blocks.

    Returns:
        An order with its true peak and seconds. Its bound is that of running each node once.

    Raises:
        NotAChainError: the graph cannot be cut.
        OverBudgetError: no schedule fits; it says the least peak found.
    """
    plain = simulate(graph, graph.plain)
    if plain.peak <= budget:
        return Answer(graph.plain, plain.peak, plain.seconds, plain.seconds, "rotor", complete=True)
    return solve_chained(Chain(graph, points, most=most), budget, slots=slots)


def solve_chained(chain: Chain, budget: int, *, slots: int = SLOTS) -> Answer:
    """Find the fastest persistent schedule of a chain, as `solve_chain` does of its graph.

    Args:
        chain: of a graph.
        budget: most bytes at one time; less than the plain order takes.
        slots: that the budget is divided into.

    Raises:
        OverBudgetError: no schedule fits; it says the least peak found.
    """
    graph = chain.graph
    found = Table(chain.stages, max(budget, 1), slots=slots).solve(budget)
    if found is not None:
        return chain.answer(found)
    least = chain.answer(_least(chain, simulate(graph, graph.plain).peak, slots))
    if least.peak <= budget:
        return least  # a finer table found what the slots had rounded away
    run = simulate(graph, least.order)
    name = graph.nodes[least.order[run.at]].name
    raise OverBudgetError(
        f"the least peak found is {run.peak} bytes, while {name} runs; {budget} are allowed",
        least=run.peak,
        node=least.order[run.at],
        order=least.order,
    )


def _least(chain: Chain, plain: int, slots: int) -> Schedule:
    # the plain order may be no schedule of the chain: some forwards hold their input longer
    least = next(
        found
        for factor in itertools.count(1)
        if (found := Table(chain.stages, factor * plain, slots=slots).least())
    )
    finer = Table(chain.stages, max(least.peak, 1), slots=slots).least()
    return finer if finer is not None and finer.peak < least.peak else least


def recipe(block: Block, points: Points, *, choices: int = CHOICES) -> Recipe:
    """Work out the ways to run a block, each exactly.

    Args:
        block: one of `cut`.
        points: as in `Chain`.
        choices: most options.

    Returns:
        The nodes of each way, and what they take.
    """
    return _Cook(block).recipe(points, choices)


class _Cook:
    """Runs parts of a block."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.graph = graph = block.graph
        self.pinned = block.pinned
        backward = graph.nodes[graph.border + 1 :]
        read = {value for node in backward for value in node.reads}
        wanted = read | block.outputs | block.shared | set(graph.nodes[graph.border].reads)
        # nothing reads what these make, but each node runs once
        self._idle = frozenset(range(graph.border)).difference(self._needed(wanted, frozenset()))
        # what is there when the backward has ended
        self._after = graph.results | block.shared | (block.inputs if block.clings else frozenset())

    def recipe(self, points: Points, choices: int) -> Recipe:
        given = _thinned(self.graph, {frozenset(nodes) for nodes in points(self.graph)}, choices)
        chosen = [frozenset[int](), self.graph.repeatable, *given]
        orders = list(dict.fromkeys(closure_order(self.graph, nodes) for nodes in chosen))
        if self.block.last:
            solos = _best([(self._turn(order), order) for order in orders])
            none = Run(0.0, 0)
            return self._made((), (), none, none, (0, 0), [], solos)
        keeps = _spread([self._keep(order) for order in orders], choices)
        solos = _best([self._solo(order) for order in orders])
        ends = self.block.outputs | self.pinned
        first = self._needed(ends, frozenset(), always=self._idle)
        again = self._needed(self.block.outputs, self.pinned)
        runs = (self._run(first, (), ends), self._run(again, self.pinned, ends))
        freeing = (
            self._run(first, self.block.inputs, ends).peak,
            self._run(again, self.pinned | self.block.inputs, ends).peak,
        )
        return self._made(first, again, *runs, freeing, keeps, solos)

    def _made(
        self,
        first: Order,
        again: Order,
        run: Run,
        rerun: Run,
        freeing: tuple[int, int],
        keeps: Sequence[tuple[Option, Keep]],
        solos: Sequence[tuple[Run, Order]],
    ) -> Recipe:
        sizes, block = self.graph.sizes, self.block
        stage = Stage(
            input=sizes([*block.inputs]),
            first=run,
            again=rerun,
            freeing=freeing,
            options=tuple(option for option, _ in keeps),
            solos=tuple(solo for solo, _ in solos),
            arrives=sizes([*block.arrives]),
            pinned=0 if block.last else sizes([*self.pinned]),
            results=sizes([*(self.graph.results - block.leaves)]),
        )
        return Recipe(
            stage,
            first,
            again,
            tuple(keep for _, keep in keeps),
            tuple(nodes for _, nodes in solos),
        )

    def _keep(self, order: Order) -> tuple[Option, Keep]:
        kept, back = self._split(order)
        between = kept | self.block.outputs | self.block.shared
        first = self._needed(between | self.pinned, frozenset(), always=self._idle)
        again = self._needed(kept | self.block.outputs, self.pinned)
        start = between | self.block.arrives | self.block.inputs
        option = Option(
            first=self._run(first, (), between),
            again=self._run(again, self.pinned, between),
            kept=self.graph.sizes([*between]),
            back=self._beyond_input(self._run(back, start, self._after)),
        )
        return option, Keep(first, again, back)

    def _solo(self, order: Order) -> tuple[Run, Order]:
        kept, back = self._split(order)
        nodes = (*self._needed(kept, self.pinned), *back)
        start = self.pinned | self.block.arrives | self.block.inputs
        return self._beyond_input(self._run(nodes, start, self._after)), nodes

    def _turn(self, order: Order) -> Run:
        return self._beyond_input(self._run(order, self.block.inputs, self._after))

    def _split(self, order: Order) -> tuple[frozenset[int], Order]:
        """Return the values of the forward that backward reads as they are, and backward."""
        back = order[order.index(self.graph.border) + 1 :]
        kept: set[int] = set()
        made: set[int] = set()
        for index in back:
            node = self.graph.nodes[index]
            kept.update(value for value in node.reads if value not in made)
            made.update(node.makes)
        forward = (v for v in kept if 0 <= self.graph.maker[v] < self.graph.border)
        return frozenset(forward), back

    def _needed(
        self,
        values: AbstractSet[int],
        there: AbstractSet[int],
        *,
        always: frozenset[int] = frozenset(),
    ) -> Order:
        """Return the nodes of the forward that values need when others are there."""
        wanted, needed = set(values) - there, []
        for index in reversed(range(self.graph.border)):
            node = self.graph.nodes[index]
            if index in always or not wanted.isdisjoint(node.makes):
                needed.append(index)
                wanted.update(value for value in node.reads if value not in there)
        return tuple(reversed(needed))

    def _run(self, order: Order, start: Iterable[int], end: AbstractSet[int]) -> Run:
        """Run a part of the block; what is neither there at the start nor made is not counted."""
        graph = self.graph
        needed, deaths = _liveness(graph, order, end)
        alive = needed.intersection(start)
        resident = peak = graph.sizes([*alive])
        for index, dying in zip(order, deaths, strict=True):
            node = graph.nodes[index]
            resident += graph.sizes([value for value in node.makes if value not in alive])
            alive.update(node.makes)
            peak = max(peak, resident + node.workspace)
            resident -= graph.sizes([value for value in dying if value in alive])
            alive.difference_update(dying)
        return Run(sum(graph.nodes[index].seconds for index in order), peak)

    def _beyond_input(self, run: Run) -> Run:
        return Run(run.seconds, run.peak - self.graph.sizes([*self.block.inputs]))


def _liveness(
    graph: Graph, order: Order, end: AbstractSet[int]
) -> tuple[set[int], list[tuple[int, ...]]]:
    """Return what must be there before an order, and by position what nothing reads again."""
    needed, deaths = set(end), []
    for index in reversed(order):
        node = graph.nodes[index]
        unread = [value for value in node.makes if value not in needed]
        needed.difference_update(node.makes)
        deaths.append((*unread, *(v for v in dict.fromkeys(node.reads) if v not in needed)))
        needed.update(node.reads)
    deaths.reverse()
    return needed, deaths


def _thinned(graph: Graph, given: set[frozenset[int]], most: int) -> list[frozenset[int]]:
    """Return at most so many sets of nodes, spread evenly over the bytes that they keep."""
    costs = sorted((closure_cost(graph, nodes), sorted(nodes), nodes) for nodes in given)
    if len(costs) <= most:
        return [nodes for _, _, nodes in costs]
    sizes = [kept for (kept, _), _, _ in costs]
    step = (sizes[-1] - sizes[0]) / (most - 1)
    places = {bisect.bisect_left(sizes, sizes[0] + step * k) for k in range(most)}
    return [costs[min(place, len(costs) - 1)][2] for place in sorted(places)]


def _best(runs: Iterable[tuple[Run, Order]]) -> list[tuple[Run, Order]]:
    """Return the runs that no other is better than in both seconds and peak."""
    best: list[tuple[Run, Order]] = []
    for run, order in sorted(runs, key=lambda pair: pair[0]):
        if not best or run.peak < best[-1][0].peak:
            best.append((run, order))
    return best


def _spread(keeps: Sequence[tuple[Option, Keep]], most: int) -> list[tuple[Option, Keep]]:
    """Drop options that another is better than in all, and thin out the rest by bytes kept."""
    unlike = {_figures(option): (option, keep) for option, keep in keeps}
    best = sorted(
        (
            figures
            for figures in unlike
            if not any(
                other != figures and all(a <= b for a, b in zip(other, figures, strict=True))
                for other in unlike
            )
        ),
        key=lambda figures: figures[0],
    )
    if len(best) > most:
        best = [best[round(k * (len(best) - 1) / (most - 1))] for k in range(most)]
    return [unlike[figures] for figures in best]


def _figures(option: Option) -> tuple[float, ...]:
    return (option.kept, *itertools.chain(option.first, option.again, option.back))
