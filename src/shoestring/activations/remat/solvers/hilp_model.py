"""The mixed program over the top of a graph: which node runs when, and in which of its ways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shoestring.activations.remat.solvers.checkmate import (
    NEVER,
    StagedModel,
    solve_model,
    unit_of_bytes,
    unit_of_seconds,
)
from shoestring.activations.remat.solvers.hilp_top import Mode, Top


class ModalModel(StagedModel):
    """The staged orders of a small graph whose nodes run in several ways.

    To the columns of Checkmate come, for a node of several ways, X[t,i,o] = 1 where node i runs
    in stage t in way o, with

        sum over o of X[t,i,o] = R[t,i].

    A value that only some ways read or make is needed or there only where one of those is
    chosen: where way o of a backward reads the phantom that way o of its forward makes, it can
    run in no other. The seconds and the workspace of a way are added to those of the least.

    Args:
        top: the small graph.
        room: most bytes, to choose the solver's unit by.
    """

    def __init__(self, top: Top, room: int) -> None:
        self._modes = top.modes
        self._ways: dict[tuple[int, int], list[int]] = {}
        self._sums: dict[tuple[int, ...], int] = {}
        super().__init__(top.graph, unit_of_bytes(top.graph, room))

    def add_columns(self, stage: int) -> None:
        """Add the columns of a stage, those of the ways too."""
        super().add_columns(stage)
        for node in np.flatnonzero(self.runs[stage] != NEVER).tolist():
            modes, run = self._modes[node], int(self.runs[stage, node])
            if len(modes) == 1:
                self._ways[stage, node] = [run]
                continue
            ways = [self.programme.column(integral=True) for _ in modes]
            self._ways[stage, node] = ways
            self._equal(run, ways)

    def _equal(self, column: int, parts: list[int]) -> None:
        self.programme.limit([(column, 1.0), *((part, -1.0) for part in parts)], 0.0)
        self.programme.limit([(column, -1.0), *((part, 1.0) for part in parts)], 0.0)

    def _where(self, stage: int, node: int, has: Callable[[Mode], bool]) -> int:
        """Return the column that says that a node runs in one of some ways."""
        if (stage, node) not in self._ways:
            return NEVER
        pairs = zip(self._ways[stage, node], self._modes[node], strict=True)
        ways = tuple(column for column, mode in pairs if has(mode))
        if len(ways) == len(self._modes[node]):
            return int(self.runs[stage, node])
        if len(ways) < 2:
            return ways[0] if ways else NEVER
        if ways not in self._sums:
            self._sums[ways] = self.programme.column(integral=False)
            self._equal(self._sums[ways], list(ways))
        return self._sums[ways]

    def making(self, stage: int, value: int) -> int:
        """Return the column that says that a value is made in a stage."""
        return self._where(stage, self.graph.maker[value], lambda mode: value in mode.makes)

    def reading(self, stage: int, reader: int, value: int) -> int:
        """Return the column that says that a node reads a value in a stage."""
        return self._where(stage, reader, lambda mode: value in mode.reads)

    def more(self, stage: int, node: int) -> list[tuple[int, int]]:
        """Return the columns of ways and what each needs beyond the least of them."""
        least = self.graph.nodes[node].workspace
        ways = zip(self._ways[stage, node], self._modes[node], strict=True)
        return [(column, mode.workspace - least) for column, mode in ways]

    def costs(self, price: float) -> npt.NDArray[np.float64]:
        """Return what each column costs, in units of so many seconds."""
        costs = super().costs(price)
        for (_, node), columns in self._ways.items():
            least = self.graph.nodes[node].seconds
            for column, mode in zip(columns, self._modes[node], strict=True):
                costs[column] += (mode.seconds - least) / price
        return costs

    def chosen(self, solution: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
        """Return the nodes that run, in order, each with its way."""
        taken = np.append(solution > 0.5, False)  # at the end, for NEVER
        return [
            (node, next(at for at, way in enumerate(self._ways[stage, node]) if taken[way]))
            for stage, row in enumerate(self.runs)
            for node in np.flatnonzero(taken[row]).tolist()
        ]


def best_runs(
    top: Top, budget: int, *, end: float, gap: float
) -> tuple[list[tuple[int, int]] | None, float, bool]:
    """Return the cheapest runs of a top's nodes within a budget.

        min sum over t, i, o of c_io X[t,i,o]

    Args:
        top: the small graph.
        budget: most bytes, by the top's own figures.
        end: by `time.monotonic`; then the best so far is returned.
        gap: share of the seconds by which the answer may miss the best.

    Returns:
        Nodes with their ways, the bound that the program proves for them, and whether it came
        to its own end. None where nothing was found.
    """
    room = max(budget - top.pinned, 1)
    model = ModalModel(top, room)
    price = unit_of_seconds(top.graph)
    found = solve_model(model, model.costs(price.size), (room, room), end=end, gap=gap)
    runs = None if found.solution is None else model.chosen(found.solution)
    return runs, found.bound * price.size, found.complete
