"""The fastest schedule of a chain of stages under a budget of memory, by dynamic programming."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]
Counts = NDArray[np.int64]

SLOTS = 500


class Run(NamedTuple):
    """What running a part of a stage takes.

    Attributes:
        seconds: that it takes.
        peak: most bytes of the stage's own while it runs. The stage's input is left out.
    """

    seconds: float
    peak: int


class Option(NamedTuple):
    """One way of keeping something from a stage's forward to its backward.

    Attributes:
        first: the forward, when the stage has never been run.
        again: the forward, when what is pinned is there from before (its bytes included).
        kept: bytes between forward and backward: the output, what is kept, what is shared.
        back: the backward, with what it is given and what it computes again.
    """

    first: Run
    again: Run
    kept: int
    back: Run


class Stage(NamedTuple):
    """A link of the chain: a forward and the backward that belongs to it.

    Attributes:
        input: bytes of what it reads from the stage before, x_i.
        first: a forward that keeps nothing, when the stage has never been run.
        again: the same when what is pinned is there from before (its bytes included).
        freeing: peaks of `first` and `again`, input included, when the input goes with them.
        options: ways of keeping something.
        solos: forward and backward in one go, with nothing kept from before but the input and
            what is pinned. In the last stage, which is run once: all of it.
        arrives: bytes of gradients that its backward is given, d_(i+1).
        pinned: bytes that stay from its first forward to its backward, as they cannot be made
            again.
        results: bytes that its backward leaves behind until the step ends.
    """

    input: int
    first: Run
    again: Run
    freeing: tuple[int, int]
    options: tuple[Option, ...]
    solos: tuple[Run, ...]
    arrives: int = 0
    pinned: int = 0
    results: int = 0


class Act(enum.Enum):
    """What is done with a stage.

    Attributes:
        SKIP: forward; its input and all else is let go.
        CHECK: forward; its input is kept.
        KEEP: forward; its input and what an option keeps is kept.
        BACK: backward of an option.
        SOLO: forward and backward in one go.
    """

    SKIP = "skip"
    CHECK = "check"
    KEEP = "keep"
    BACK = "back"
    SOLO = "solo"


class Operation(NamedTuple):
    """One step of a schedule.

    Attributes:
        act: what is done.
        stage: with which stage.
        option: index of the option, or of the solo.
    """

    act: Act
    stage: int
    option: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """A way through the chain and back.

    Attributes:
        operations: what is done, in order.
        seconds: of all of them.
        peak: bytes at worst, by the stages' own figures.
    """

    operations: tuple[Operation, ...]
    seconds: float
    peak: int


class Table:
    r"""Least seconds of every part of a chain, for every number of slots of memory.

    Schedules are persistent: what is kept stays until its own backward. With m slots for stages
    i..j, x_i there and not counted:

        C(i, i, m) = min_k solo_ik                                     where solo k fits m
        C(i, j, m) = min( min_{i<s<=j} sum_{l=i}^{s-1} f_l + C(s, j, m - x_s) + C(i, s-1, m),
                          min_k f_ik + b_ik + C(i+1, j, m - a_ik) )    where the runs fit m

    Legend: f_l the forward that keeps nothing, f_ik and b_ik forward and backward of option k,
    a_ik what it keeps. A run fits when its own peak and all that stands beside it do: gradients
    that wait for stage j, results of the stages above, and what is pinned. Only parts that end
    with the last stage are run for the first time; all others are run again, so what is pinned
    in them is there already. Here m counts the pinned bytes of the stages below i as well.

    Sizes are rounded up to slots, so what fits the slots fits the bytes. The table has a slot
    more for each stage, so that what fits the bytes is not lost by rounding.

    Source: Herrmann, Beaumont, Eyraud-Dubois, Joly, Shilova, "Optimal checkpointing for
    heterogeneous chains" (rotor), theorem 1; Zhao et al., "Rockmate" (several options a stage).
    """

    def __init__(self, stages: Sequence[Stage], budget: int, *, slots: int = SLOTS) -> None:
        """Fill the table.

        Args:
            stages: the chain; the last one holds the turn from forward to backward.
            budget: the largest budget that it will be asked for, in bytes.
            slots: that the budget is divided into; a budget of fewer bytes is not rounded.

        Raises:
            ValueError: the chain is empty, or the budget is not positive.
        """
        if not stages or budget < 1 or slots < 1:
            raise ValueError("a chain needs a stage, a budget of a byte and a slot")
        self.stages = tuple(stages)
        self.unit = -(-budget // slots)
        self.top = budget // self.unit + (len(stages) + 2 if self.unit > 1 else 0)
        self._needs = _Needs(self.stages, self.unit)
        # what is pinned and not kept gives memory back
        self._width = self.top + min(max(self.top, slots), self._needs.given_back) + 1
        count = len(stages)
        self._cost: Costs = np.full((count, count, self._width), np.inf)
        # [j, s]: of stages s..j when x_s is counted, and the forwards before s added
        self._after: Costs = np.full((count, count, self._width), np.inf)
        self._columns: Counts = np.arange(self._width)
        self._fill()

    @property
    def front(self) -> tuple[tuple[int, float], ...]:
        """Budgets in bytes, each with the least seconds, where more memory saves time."""
        found: list[tuple[int, float]] = []
        for slot, seconds in enumerate(self._cost[0, -1, : self.top + 1].tolist()):
            if seconds < (found[-1][1] if found else np.inf):
                found.append((slot * self.unit, seconds))
        return tuple(found)

    def solve(self, budget: int) -> Schedule | None:
        """Return the fastest schedule within a budget; None where nothing fits.

        The slots promise what fits. Beyond them the schedules of more slots are tried as long
        as their true bytes stay within the budget.

        Args:
            budget: in bytes; at most the one that the table was made for.
        """
        low = min(budget // self.unit, self.top)
        slack = self.top if self.unit == 1 else min(self.top, low + len(self.stages) + 2)
        best: Schedule | None = None
        if low >= 0 and np.isfinite(self._cost[0, -1, low]):
            best = self._schedule(low)
            assert best.peak <= budget, "rounding up is safe"
        high = (low if self.unit == 1 else slack) + 1
        while high - low > 1:
            middle = (low + high) // 2
            if not np.isfinite(self._cost[0, -1, middle]):
                low = middle
                continue
            found = self._schedule(middle)
            if found.peak > budget:
                high = middle
                continue
            low = middle
            if best is None or found.seconds < best.seconds:
                best = found
        return best

    def least(self) -> Schedule | None:
        """Return the schedule of the fewest slots; None where the whole table is too small."""
        finite = np.flatnonzero(np.isfinite(self._cost[0, -1, : self.top + 1]))
        return self._schedule(int(finite[0])) if len(finite) else None

    def _fill(self) -> None:
        count = len(self.stages)
        room = np.empty((count, self._width))
        for i in reversed(range(count)):
            for j in range(i, count):
                row = self._solo(i) if i == j else self._span(i, j, room[: j - i])
                self._cost[i, j] = row
                shift = self._needs.input[i]
                if shift < self._width:
                    forward = self._needs.forward(j)[i]
                    self._after[j, i, shift:] = row[: self._width - shift] + forward

    def _solo(self, i: int) -> Costs:
        row = np.full(self._width, np.inf)
        for need, run in zip(self._needs.solo[i], self.stages[i].solos, strict=True):
            np.minimum(row[need:], run.seconds, out=row[need:])
        return row

    def _span(self, i: int, j: int, room: Costs) -> Costs:
        best = self._kept(i, j)
        np.add(self._after[j, i + 1 : j + 1], self._cost[i, i:j], out=room)
        needs = self._needs.sweep(i, j)
        # needs never fall with s: rows of one need are taken together
        edges = [*np.flatnonzero(np.diff(needs, prepend=-1)).tolist(), j - i]
        start = self._needs.forward(j)[i]
        for first, last in itertools.pairwise(edges):
            need = int(needs[first])
            if need < self._width:
                part = room[first:last, need:].min(axis=0)
                np.minimum(best[need:], part - start, out=best[need:])
        return best

    def _kept(self, i: int, j: int) -> Costs:
        shifts = self._needs.kept[i]
        if not len(shifts):
            return np.full(self._width, np.inf)
        # beyond the table its last column is safe
        columns = np.minimum(self._columns - shifts[:, None], self._width - 1)
        fits = (columns >= 0) & (self._columns >= self._needs.keep(i, j)[:, None])
        costs = self._cost[i + 1, j][np.maximum(columns, 0)]
        costs += self._needs.seconds(i, j)[:, None]
        best: Costs = np.where(fits, costs, np.inf).min(axis=0)
        return best

    def _schedule(self, slots: int) -> Schedule:
        done: list[Operation] = []
        todo: list[Operation | tuple[int, int, int]] = [(0, len(self.stages) - 1, slots)]
        while todo:
            step = todo.pop()
            if isinstance(step, Operation):
                done.append(step)
            elif step[0] == step[1]:
                done.append(Operation(Act.SOLO, step[0], self._best_solo(step[0], step[2])))
            else:
                todo.extend(reversed(self._split(*step)))
        run = measure(self.stages, done)
        return Schedule(tuple(done), run.seconds, run.peak)

    def _best_solo(self, i: int, m: int) -> int:
        runs = self.stages[i].solos
        fitting = [k for k, need in enumerate(self._needs.solo[i]) if need <= m]
        return min(fitting, key=lambda k: runs[k].seconds)

    def _split(self, i: int, j: int, m: int) -> list[Operation | tuple[int, int, int]]:
        fits = self._needs.sweep(i, j) <= m
        costs = self._after[j, i + 1 : j + 1, m] + self._cost[i, i:j, m]
        costs = np.where(fits, costs, np.inf) - self._needs.forward(j)[i]
        at = int(costs.argmin())
        option, best = -1, float(costs[at])
        needs, seconds = self._needs.keep(i, j), self._needs.seconds(i, j)
        for k, shift in enumerate(self._needs.kept[i].tolist()):
            if needs[k] <= m and m >= shift:
                cost = float(self._cost[i + 1, j, min(m - shift, self._width - 1)] + seconds[k])
                if cost < best:
                    option, best = k, cost
        if option >= 0:
            rest = min(m - int(self._needs.kept[i][option]), self._width - 1)
            keep, back = Operation(Act.KEEP, i, option), Operation(Act.BACK, i, option)
            return [keep, (i + 1, j, rest), back]
        s = i + 1 + at
        skips = [Operation(Act.SKIP, stage) for stage in range(i + 1, s)]
        checked = (s, j, m - self._needs.input[s])
        return [Operation(Act.CHECK, i), *skips, checked, (i, s - 1, m)]


class _Needs:
    """The slots that each run needs, all that stands beside it included."""

    def __init__(self, stages: tuple[Stage, ...], unit: int) -> None:
        self._stages = stages
        self._unit = unit
        last = len(stages) - 1
        pinned = [stage.pinned for stage in stages]
        self._pinned: Counts = np.cumsum([0, *pinned])
        results: Counts = np.cumsum([stage.results for stage in stages])
        above = results[-1] - results
        # beside stages i..j when they are run again
        waiting = np.array([stage.arrives for stage in stages])
        self._beside = np.where(np.arange(last + 1) < last, self._pinned[1:] + waiting + above, 0)
        self.input: list[int] = [self._slots(stage.input) for stage in stages]
        self._forwards = tuple(
            np.cumsum([0.0, *(run.seconds for run in runs)])
            for runs in ([s.again for s in stages], [s.first for s in stages])
        )
        self._sweeps = [self._sweep(i) for i in range(last + 1)]
        self.solo: list[list[int]] = []
        self.kept: list[Counts] = []
        self._back: list[Counts] = []
        for i, stage in enumerate(stages):
            beside = int(self._pinned[i] + above[i])
            self.solo.append([self._slots(beside + run.peak) for run in stage.solos])
            kept = [self._slots(option.kept - pinned[i]) for option in stage.options]
            self.kept.append(np.array(kept, np.int64))
            back = [self._slots(beside + option.back.peak) for option in stage.options]
            self._back.append(np.array(back, np.int64))
        self.given_back = sum(max(0, -int(kept.min(initial=0))) for kept in self.kept)

    def forward(self, j: int) -> Costs:
        """Seconds of the forwards before each stage, in a part that ends with stage j."""
        return self._forwards[self._fresh(j)]

    def sweep(self, i: int, j: int) -> Counts:
        """Slots for running i..s-1 with only x_i kept; one for each s from i+1 to j."""
        running = self._sweeps[i][self._fresh(j)][: j - i]
        slots: Counts = np.maximum(-(-(running + self._beside[j]) // self._unit), 0)
        return slots

    def keep(self, i: int, j: int) -> Counts:
        """Slots for forward and backward with each option, as the first of stages i..j."""
        if self._fresh(j):
            peaks = [option.first.peak + self._pinned[i] for option in self._stages[i].options]
        else:
            less = self._beside[j] - self._stages[i].pinned
            peaks = [option.again.peak + less for option in self._stages[i].options]
        return np.maximum(-(-np.array(peaks, np.int64) // self._unit), self._back[i])

    def seconds(self, i: int, j: int) -> Costs:
        """Seconds of forward and backward with each option."""
        fresh = self._fresh(j)
        return np.array(
            [
                (option.first if fresh else option.again).seconds + option.back.seconds
                for option in self._stages[i].options
            ]
        )

    def _fresh(self, j: int) -> bool:
        return j == len(self._stages) - 1

    def _sweep(self, i: int) -> tuple[Counts, Counts]:
        below, beyond = self._stages[i], self._stages[i + 1 :]
        again = [below.again.peak - below.pinned]
        again += [stage.freeing[1] - stage.pinned for stage in beyond]
        first = [below.first.peak, *(stage.freeing[0] for stage in beyond)]
        return (
            np.maximum.accumulate(np.array(again, np.int64)),
            np.maximum.accumulate(np.array(first, np.int64) + self._pinned[i:-1]),
        )

    def _slots(self, size: int) -> int:
        return -(-size // self._unit)


def measure(stages: Sequence[Stage], operations: Sequence[Operation]) -> Run:
    """Return the seconds and the peak in bytes of a schedule, without rounding.

    Args:
        stages: the chain.
        operations: a schedule of it.

    Example:
        >>> stage = Stage(1, Run(1.0, 1), Run(1.0, 1), (2, 2), (), (Run(3.0, 2),))
        >>> measure([stage], [Operation(Act.SOLO, 0)])
        Run(seconds=3.0, peak=2)
    """
    seconds, peak, seen = 0.0, 0, 0
    gradients = results = 0
    pinned: dict[int, int] = {}
    inputs: dict[int, int] = {0: 0}
    kept: dict[int, int] = {}
    for act, i, option in operations:
        stage = stages[i]
        again = i < seen
        seen = max(seen, i + 1)
        if act is not Act.SKIP and i - 1 not in kept and i not in inputs:
            inputs[i] = stage.input
        own = pinned.pop(i, 0)
        beside = sum(inputs.values()) + sum(kept.values()) + sum(pinned.values()) + results
        if act is Act.KEEP:
            choice = stage.options[option]
            run = choice.again if again else choice.first
            kept[i] = choice.kept
        elif act is Act.CHECK or act is Act.SKIP:
            run = stage.again if again else stage.first
            if act is Act.SKIP:
                run = Run(run.seconds, stage.freeing[again])
            pinned[i] = own if again else stage.pinned
        else:
            run = stage.solos[option] if act is Act.SOLO else stage.options[option].back
            beside -= kept.pop(i, 0)
            inputs.pop(i, None)
            # its own gradients are part of the run
            gradients = 0
        seconds += run.seconds
        peak = max(peak, beside + gradients + run.peak)
        if act is Act.BACK or act is Act.SOLO:
            results += stage.results
            gradients = stages[i - 1].arrives if i else 0
    return Run(seconds, peak)
