"""Checkmate: the cheapest staged order under a budget, exact, for small graphs."""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate

ALWAYS: Final = 0  # the column that is fixed at one
PEAK: Final = 1  # the column of the bytes that the memory rows allow
NEVER: Final = -1  # what is always zero has no column
_GRID: Final = 10_000  # most of the solver's units in a budget: its 1e-6 is 1e-10 of it then
_TOLERANCE: Final = 1e-6  # of the solver
_OPTIMAL: Final = 0  # scipy's status
_INFEASIBLE: Final = 2

_Columns: TypeAlias = npt.NDArray[np.int64]


class Programme:
    """Columns from zero to one, and rows `sum of factor * column <= limit` over them."""

    def __init__(self) -> None:
        self.integral = [False, False]
        self._limits: list[float] = []
        self._rows: list[int] = []
        self._columns: list[int] = []
        self._factors: list[float] = []

    def column(self, *, integral: bool) -> int:
        """Return a new column."""
        self.integral.append(integral)
        return len(self.integral) - 1

    def limit(self, terms: Iterable[tuple[int, float]], limit: float) -> None:
        """Add a row; what never occurs is left out."""
        row = len(self._limits)
        for column, factor in terms:
            if column != NEVER and factor:
                self._rows.append(row)
                self._columns.append(column)
                self._factors.append(factor)
        self._limits.append(limit)

    def imply(self, this: int, those: Sequence[int]) -> None:
        """Where `this` is one, the sum of `those` is at least one."""
        if this != NEVER and ALWAYS not in those:
            self.limit([(this, 1.0), *((column, -1.0) for column in those)], 0.0)

    def either(self, one: int, other: int) -> int:
        """Return a column that is at least both."""
        if ALWAYS in (one, other):
            return ALWAYS
        if NEVER in (one, other) or one == other:
            return max(one, other)
        column = self.column(integral=False)
        self.imply(one, [column])
        self.imply(other, [column])
        return column

    def constraint(self) -> LinearConstraint:
        """Return all rows, for scipy."""
        shape = (len(self._limits), len(self.integral))
        matrix = csr_array((self._factors, (self._rows, self._columns)), shape=shape)
        return LinearConstraint(matrix, ub=np.array(self._limits))


class StagedModel:
    """The staged orders of a graph as a programme.

    Stage t computes some nodes of the forward, again or for the first time, and last node t.
    With R[t,i] = 1 where node i runs in stage t and S[t,v] = 1 where value v is there when
    stage t starts, p(v) the node that makes v, m_v its bytes:

        S[t+1,v] <= S[t,v] + R[t,p(v)]
        R[t,j]   <= S[t,v] + R[t,p(v)]      for each v that j reads
        sum over v of m_v A[t,k,v] + workspace_k R[t,k] <= budget

    A[t,k,v] says that v is there while node k runs in stage t: before p(v) that is S[t,v], and
    from p(v) on it is one as long as a reader still runs in the stage, or v goes on to the
    next. So A at the last reader is the greater of its R and of S[t+1,v], A at the reader
    before is the greater of its own R and of that, and so on. No value is counted twice and
    none is freed by hand. This takes the place of the paper's FREE and of the rows with great
    factors that define it.

    Args:
        graph: the operations.
        unit: bytes that are one to the solver.
    """

    def __init__(self, graph: Graph, unit: _Unit) -> None:
        count = len(graph.nodes)
        self.graph, self.unit = graph, unit
        self.programme = Programme()
        self.runs: _Columns = np.full((count, count), NEVER)
        self.kept: _Columns = np.full((count + 1, len(graph.values)), NEVER)
        self._own = [value for value in range(len(graph.values)) if value not in graph.held]
        self._useful = _useful_again(graph)
        self._punctual = _punctual(graph)
        for stage in range(count):
            self.add_columns(stage)
        self.kept[count, list(graph.results)] = ALWAYS
        for stage in range(count):
            self._add_needs(stage)
            self._add_memory(stage)
        for node in range(graph.border):
            # What is not punctual runs late, but it runs.
            self.programme.imply(ALWAYS, [int(column) for column in self.runs[:, node]])
        self.rows = self.programme.constraint()

    def add_columns(self, stage: int) -> None:
        """Add the columns of a stage."""
        graph, programme = self.graph, self.programme
        for node in np.flatnonzero(self._useful[stage]):
            self.runs[stage, node] = programme.column(integral=True)
        if self._punctual[stage]:
            self.runs[stage, stage] = ALWAYS
        for value in self._own:
            if graph.maker[value] >= stage or not self._wanted(stage, value):
                continue
            surely = any(j >= stage and self._punctual[j] for j in graph.readers[value])
            if graph.maker[value] not in graph.repeatable and (surely or value in graph.results):
                self.kept[stage, value] = ALWAYS
            else:
                self.kept[stage, value] = programme.column(integral=True)

    def making(self, stage: int, value: int) -> int:
        """Return the column that says that a value is made in a stage."""
        return int(self.runs[stage, self.graph.maker[value]])

    def reading(self, stage: int, reader: int, value: int) -> int:
        """Return the column that says that a node reads a value in a stage."""
        return int(self.runs[stage, reader])

    def more(self, stage: int, node: int) -> list[tuple[int, int]]:
        """Return columns and the bytes that each adds while a node runs in a stage."""
        return []

    def costs(self, price: float) -> npt.NDArray[np.float64]:
        """Return what each column costs, in units of so many seconds."""
        costs = np.zeros(len(self.programme.integral))
        for stage, node in zip(*np.nonzero(self.runs != NEVER), strict=True):
            costs[self.runs[stage, node]] += self.graph.nodes[node].seconds / price
        return costs

    def _wanted(self, stage: int, value: int) -> bool:
        """Whether anything can read the value in this stage or later."""
        readers, useful = self.graph.readers[value], self._useful[stage]
        return value in self.graph.results or any(j >= stage or useful[j] for j in readers)

    def _add_needs(self, stage: int) -> None:
        """What is read, and what is kept, must be there."""
        for value in self._own:
            maker = self.graph.maker[value]
            if maker > stage:
                continue
            sources = [int(self.kept[stage, value]), self.making(stage, value)]
            self.programme.imply(int(self.kept[stage + 1, value]), sources)
            for reader in self.graph.readers[value]:
                if reader <= stage:
                    self.programme.imply(self.reading(stage, reader, value), sources)
            if NEVER not in sources and ALWAYS not in sources:
                # A value that is made again in a stage need not be kept until then.
                self.programme.limit([(column, 1.0) for column in sources], 1.0)

    def _add_memory(self, stage: int) -> None:
        """Bytes while a node runs; where none can run the row of the node before holds too."""
        graph, runs = self.graph, self.runs[stage]
        there: _Columns = np.full((stage + 1, len(graph.values)), NEVER)
        for value in self._own:
            maker = graph.maker[value]
            if maker > stage:
                continue
            there[:maker, value] = self.kept[stage, value]
            need, end = int(self.kept[stage + 1, value]), stage + 1
            for reader in reversed([j for j in graph.readers[value] if j <= stage]):
                there[reader + 1 : end, value] = need
                read = self.reading(stage, reader, value)
                need, end = self.programme.either(read, need), reader + 1
            there[maker + 1 : end, value] = need
            there[maker, value] = self.programme.either(self.making(stage, value), need)
        for node in np.flatnonzero(runs != NEVER):
            terms = [
                (int(there[node, v]), graph.values[v].size / self.unit.size) for v in self._own
            ]
            terms.append((int(runs[node]), graph.nodes[node].workspace / self.unit.size))
            terms += [
                (column, size / self.unit.size) for column, size in self.more(stage, int(node))
            ]
            self.programme.limit([*terms, (PEAK, -1.0)], 0.0)

    def order(self, solution: npt.NDArray[np.float64]) -> tuple[int, ...]:
        """Return the order that the columns of a solution stand for."""
        chosen = np.append(solution > 0.5, False)  # at the end, for NEVER
        return tuple(int(node) for row in self.runs for node in np.flatnonzero(chosen[row]))


def _punctual(graph: Graph) -> list[bool]:
    """Return whether each node runs in its own stage in any case.

    A node that may repeat may run late as well. It need not where the next node reads it and
    is punctual: to run just before that one is the same in either stage.
    """
    punctual = [False] * len(graph.nodes)
    for node in reversed(range(len(graph.nodes))):
        punctual[node] = node not in graph.repeatable or (
            punctual[node + 1]
            and not set(graph.nodes[node].makes).isdisjoint(graph.nodes[node + 1].reads)
        )
    return punctual


def _useful_again(graph: Graph) -> npt.NDArray[np.bool_]:
    """Return (stage, node): whether the node may run in the stage, and something reads it then.

    A stage after the last one that can read what a node makes has no use for it.
    """
    count = len(graph.nodes)
    useful = np.zeros((count, count), dtype=np.bool_)
    for stage in range(count):
        for node in reversed(range(min(stage + 1, graph.border))):
            useful[stage, node] = node == stage or (
                node in graph.repeatable
                and any(
                    value in graph.results
                    or any(j >= stage or useful[stage, j] for j in graph.readers[value])
                    for value in graph.nodes[node].makes
                )
            )
    return useful


# --- solving --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class LeastPeak:
    """The fewest bytes that a staged order takes.

    Attributes:
        order: indices of nodes.
        peak: its most bytes at one time.
        seconds: of all its computations.
        bound: bytes that no staged order can stay under.
        complete: whether the search came to its own end, before its time was up.
    """

    order: tuple[int, ...]
    peak: int
    seconds: float
    bound: int
    complete: bool


def solve_checkmate(
    graph: Graph, budget: int, *, time_limit: float = 60.0, gap: float = 1e-4
) -> Answer:
    """Return the cheapest staged order within a budget.

    Node t of border and backward, and of what may not be repeated, runs last in stage t. Before
    it any repeatable nodes of the forward below t run, in the order of the graph: again, or
    for the first time where that was not yet needed.

        min sum over t, i of c_i R[t,i],    c_i seconds, R[t,i] = 1 where i runs in stage t.

    Orders of other kinds can be cheaper: where backward nodes change places, or where forward
    nodes run against the order of the graph between two of backward. Graphs of 25 nodes take a
    second, of 60 nodes ten, of 120 a minute and more.

    Args:
        graph: the operations.
        budget: bytes that the peak may reach.
        time_limit: seconds for the search; the best order so far is the answer then.
        gap: share of the seconds by which the answer may miss the best.

    Returns:
        The order. Its bound holds for staged orders; it is complete where it is the best of
        them, but for the gap.

    Raises:
        OverBudgetError: there is no staged order within the budget, or none was found in time.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> f, g = Node("f", 1.0, (), (0,)), Node("g", 1.0, (0,), (1,))
        >>> loss, b = Node("loss", 0.0, (1,), (2,)), Node("b", 1.0, (0, 2), (3,))
        >>> values = (Value("x", 8), Value("y", 6), Value("dy", 4), Value("dx", 1))
        >>> graph = Graph((f, g, loss, b), values, 2, frozenset(), frozenset({3}))
        >>> solve_checkmate(graph, 14).order
        (0, 1, 2, 0, 3)

    Source:
        Jain et al., "Checkmate: Breaking the Memory Wall with Optimal Tensor
        Rematerialization", MLSys 2020, section 4.
    """
    end = time.monotonic() + time_limit
    plain = simulate(graph, graph.plain)
    if plain.peak <= budget:
        return _answer(graph, graph.plain, graph.seconds, "checkmate", complete=True)
    _require_room_for_each_node(graph, budget)
    unit, price = unit_of_bytes(graph, budget), unit_of_seconds(graph)
    model = StagedModel(graph, unit)
    bound, allowed = graph.seconds, budget
    while True:
        found = solve_model(model, model.costs(price.size), (allowed, allowed), end=end, gap=gap)
        if allowed == budget:
            bound = max(bound, price.bound(found.bound))
        if found.order is None:
            raise _over(graph, budget, end=end, searched=found.complete)
        order = without_waste(graph, found.order)
        excess = simulate(graph, order).peak - budget
        if excess <= 0:
            return _answer(graph, order, bound, "checkmate", complete=found.complete)
        assert not unit.whole, "the model counts fewer bytes than there are"
        allowed -= excess  # the solver's tolerance let it through


def least_peak(graph: Graph, *, time_limit: float = 60.0) -> LeastPeak:
    """Return the staged order of the fewest bytes: no budget below them can be met.

    It is the model of `solve_checkmate` with the budget as its objective, whatever the seconds.

    Args:
        graph: the operations.
        time_limit: seconds for the search; the best order so far is the answer then.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> f, g = Node("f", 1.0, (), (0,)), Node("g", 1.0, (0,), (1,))
        >>> loss, b = Node("loss", 0.0, (1,), (2,)), Node("b", 1.0, (0, 2), (3,))
        >>> values = (Value("x", 8), Value("y", 6), Value("dy", 4), Value("dx", 1))
        >>> graph = Graph((f, g, loss, b), values, 2, frozenset(), frozenset({3}))
        >>> least_peak(graph).peak
        14
    """
    end = time.monotonic() + time_limit
    plain = simulate(graph, graph.plain).peak
    floor = max(_bytes_of(graph, node) for node in range(len(graph.nodes)))
    if plain == floor:
        return LeastPeak(graph.plain, plain, graph.seconds, plain, complete=True)
    model = StagedModel(graph, unit_of_bytes(graph, plain))
    costs = np.zeros(len(model.programme.integral))
    costs[PEAK] = 1.0
    found = solve_model(model, costs, (floor, plain), end=end, gap=0.0)
    order = graph.plain if found.order is None else without_waste(graph, found.order)
    result = simulate(graph, order)
    bound = min(max(floor, model.unit.bound(found.bound)), result.peak)
    return LeastPeak(order, result.peak, result.seconds, math.ceil(bound), complete=found.complete)


def without_waste(graph: Graph, order: Sequence[int]) -> tuple[int, ...]:
    """Return an order without computations that nothing reads.

    Args:
        graph: the operations.
        order: indices of nodes.
    """
    left = collections.Counter(order)
    needed = set(graph.results)
    kept = []
    for index in reversed(order):
        node = graph.nodes[index]
        if left[index] > 1 and needed.isdisjoint(node.makes):
            left[index] -= 1
            continue
        kept.append(index)
        needed.difference_update(node.makes)
        needed.update(node.reads)
    return tuple(reversed(kept))


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What the solver says: an order if it has one, and its bound in its own units."""

    order: tuple[int, ...] | None
    solution: npt.NDArray[np.float64] | None
    bound: float
    complete: bool


def solve_model(
    model: StagedModel,
    costs: npt.NDArray[np.float64],
    peak: tuple[int, int],
    *,
    end: float,
    gap: float,
) -> Found:
    """Solve a model for some costs, its bytes between two limits, until a time."""
    lower, upper = np.zeros(len(costs)), np.ones(len(costs))
    lower[ALWAYS] = 1.0
    lower[PEAK], upper[PEAK] = peak[0] / model.unit.size, peak[1] / model.unit.size
    solution = milp(
        costs,
        integrality=np.array(model.programme.integral),
        bounds=Bounds(lower, upper),
        constraints=model.rows,
        options={"time_limit": max(end - time.monotonic(), 0.01), "mip_rel_gap": gap},
    )
    order = None if solution.x is None else model.order(solution.x)
    bound = solution.mip_dual_bound
    bound = -math.inf if bound is None or math.isnan(bound) else float(bound)
    return Found(order, solution.x, bound, complete=solution.status in {_OPTIMAL, _INFEASIBLE})


def _answer(
    graph: Graph, order: tuple[int, ...], bound: float, solver: str, *, complete: bool
) -> Answer:
    result = simulate(graph, order)
    bound = min(bound, result.seconds)
    return Answer(order, result.peak, result.seconds, bound, solver, complete)


def _bytes_of(graph: Graph, node: int) -> int:
    """Return the bytes without which a node cannot run."""
    reads, makes = graph.nodes[node].reads, graph.nodes[node].makes
    there = {*reads, *makes}.difference(graph.held)
    return graph.sizes(tuple(there)) + graph.nodes[node].workspace


def _require_room_for_each_node(graph: Graph, budget: int) -> None:
    hungriest = max(range(len(graph.nodes)), key=lambda node: _bytes_of(graph, node))
    least = _bytes_of(graph, hungriest)
    if least > budget:
        name = graph.nodes[hungriest].name
        message = f"{name} alone takes {least} bytes, {budget} are allowed"
        raise OverBudgetError(message, least=least, node=hungriest, proven=True)


def _over(graph: Graph, budget: int, *, end: float, searched: bool) -> OverBudgetError:
    """Return the error for a budget that no order was found for, with the least that was."""
    if searched:
        least = least_peak(graph, time_limit=max(end - time.monotonic(), 1.0))
        order, message = least.order, f"no staged order stays within {budget} bytes"
    else:
        order, message = graph.plain, f"no order within {budget} bytes was found in time"
    result = simulate(graph, order)
    node = order[result.at]
    return OverBudgetError(
        f"{message}; the least that was reached is {result.peak}, at {graph.nodes[node].name}",
        least=result.peak,
        node=node,
        order=order,
    )


class _Unit(NamedTuple):
    """What is one to the solver.

    Attributes:
        size: in bytes or seconds.
        whole: whether every number of the graph is a multiple of it.
    """

    size: float
    whole: bool

    def bound(self, found: float) -> float:
        """Return the solver's lower bound in bytes or seconds, its tolerance taken off."""
        if self.whole and math.isfinite(found):
            return math.ceil(found - _TOLERANCE) * self.size
        return found * self.size * (1 - _TOLERANCE)


def unit_of_bytes(graph: Graph, budget: int) -> _Unit:
    """Return a unit that the solver can tell apart within a budget."""
    sizes = [value.size for value in graph.values] + [node.workspace for node in graph.nodes]
    common = math.gcd(*sizes)
    return _Unit(max(common, budget / _GRID, 1.0), whole=common >= budget / _GRID)


def unit_of_seconds(graph: Graph) -> _Unit:
    """Return a unit that the solver can tell apart within the seconds of all nodes."""
    seconds = [Fraction(node.seconds) for node in graph.nodes]
    base = math.lcm(*(part.denominator for part in seconds))
    common = Fraction(math.gcd(*(int(part * base) for part in seconds)), base)
    least = Fraction(graph.seconds) / _GRID
    return _Unit(float(max(common, least)) or 1.0, whole=common >= least)
