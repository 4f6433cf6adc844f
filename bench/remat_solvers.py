"""How fast the solvers of rematerialisation are, how much they take, and which of them is best.

    python -m bench.remat_solvers [scale | speed | best | near] ...

scale: graphs of ten thousand operations, 96 layers that are equal or no two of which are alike:
seconds of one core and growth of resident memory, each in a process of its own. speed: each
solver on a graph of its own kind, against a bar. best: named graphs and budgets, on each of
which one solver shall find a faster order than every other. near: how often each comes within
3 % of Checkmate's order, on drawn graphs of at most 25 nodes. All graphs are made here; no model
is run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.harness import Result, make_result, one_thread, source_hash, write_result
from bench.remat_solver_graphs import (
    any_shape,
    chain,
    linear_net,
    skipping,
    transformer,
    u_net,
)
from bench.trace_speed import fresh_figures, highest_resident
from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.closure import hull, sweep
from shoestring.activations.remat.solvers.dtr import solve_dtr
from shoestring.activations.remat.solvers.find import Solver, find_order
from shoestring.activations.remat.solvers.rotor import Option, Run, Stage, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOMS: Final = ("activations/remat", "core")
LAYERS: Final = 96
SECONDS: Final = 30.0
"""The most that ten thousand nodes may take."""


# --- scale ----------------------------------------------------------------------------------

SCALES: Final = ("alike", "unlike")
SHARES: Final = (0.5, 0.2)
"""Budgets, as shares of the plain peak."""


def measure_scale(name: str) -> dict[str, float]:
    """Find orders for ten thousand operations in this process.

    Args:
        name: one of `SCALES`.

    Returns:
        By budget: seconds of the processor, overhead and its bound; bytes that the resident
        size grew by at most; nodes.
    """
    graph = transformer(LAYERS, alike=name == "alike")
    plain = simulate(graph, graph.plain).peak
    before = _forget_highest()
    figures: dict[str, float] = {"nodes": len(graph.nodes)}
    for share in SHARES:
        begun = time.process_time()
        answer = find_order(graph, int(plain * share))
        figures[f"seconds {share}"] = time.process_time() - begun
        figures[f"overhead {share}"] = answer.seconds / graph.seconds - 1
        figures[f"bound {share}"] = answer.bound / graph.seconds - 1
        figures[f"peak {share}"] = answer.peak / plain
    figures["grown"] = float(highest_resident() - before)
    return figures


def _forget_highest() -> int:
    """Make the highest resident size the present one, and return it."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return highest_resident()


def hold_scale(*, rounds: int) -> list[Result]:
    """Hold ten thousand operations against the bar.

    Args:
        rounds: processes for each kind of layers.
    """
    before, results = source_hash(ROOMS), list[Result]()
    for name in SCALES:
        runs = [fresh_figures("bench.remat_solvers", "--child", name) for _ in range(rounds)]
        note = f"{runs[0]['nodes']:.0f} operations, {LAYERS} layers, {name}"
        for share in SHARES:
            said = f"{note}; at {share:.0%} of the plain peak"
            said += f" {runs[0][f'overhead {share}']:.2%} computed again"
            said += f", at least {runs[0][f'bound {share}']:.2%}"
            samples = _column(runs, f"seconds {share}")
            scenario = f"remat-solvers/{name}-{share:.0%}".replace("%", "")
            results.append(_held(scenario, "find_order", samples, SECONDS, said, "scale", before))
        results.append(
            make_result(
                f"remat-solvers/{name}-memory",
                ours="find_order",
                peer="",
                samples={"ours": _column(runs, "grown")},
                unit="bytes",
                rooms=ROOMS,
                command=("bench.remat_solvers", "scale"),
                note=f"{note}; growth of the resident size over both budgets",
                made_with=before,
            )
        )
    return results


def _column(runs: Sequence[Mapping[str, float]], figure: str) -> list[float]:
    return [run[figure] for run in runs]


def _held(
    scenario: str,
    ours: str,
    samples: list[float],
    most: float,
    note: str,
    part: str,
    made_with: str,
) -> Result:
    return make_result(
        scenario,
        ours=ours,
        peer="bar",
        samples={"ours": samples, "peer": [most]},
        unit="CPU s",
        rooms=ROOMS,
        command=("bench.remat_solvers", part),
        limit=1.0,
        note=note,
        made_with=made_with,
    )


# --- speed ----------------------------------------------------------------------------------


class Speed(NamedTuple):
    """Something that is held against a bar.

    Attributes:
        ours: what runs.
        most: seconds of the processor.
        note: on what.
        prepare: makes the input and returns what is timed.
    """

    ours: str
    most: float
    note: str
    prepare: Callable[[], Callable[[], object]]


def stages(count: int, options: int) -> list[Stage]:
    """Return stages of a chain that each have some options."""
    made = []
    for i in range(count):
        size = 10 + i % 3
        kept = [size + 30 * (k + 1) // options for k in range(options)]
        given = tuple(
            Option(Run(4.0, bytes_ + 12), Run(4.0, bytes_ + 12), bytes_, Run(8.0 + n, bytes_ + 20))
            for n, bytes_ in enumerate(reversed(kept))
        )
        forward = Run(4.0, size + 12)
        made.append(Stage(size, forward, forward, (20, 20), given, (Run(16.0, 60),), size))
    return made


def _checkmate(count: int) -> Callable[[], object]:
    graph = linear_net(count)
    return lambda: solve_checkmate(graph, int(0.6 * (count + 3)), time_limit=60.0)


def _sweep(*, alike: bool) -> Callable[[], object]:
    graph = transformer(LAYERS, alike=alike)
    return lambda: hull(sweep(graph))


def _corners() -> Callable[[], object]:
    graph = transformer(LAYERS, alike=True)
    return lambda: hull(graph)


def _dtr() -> Callable[[], object]:
    graph = skipping(1000)
    budget = simulate(graph, graph.plain).peak // 5
    return lambda: solve_dtr(graph, budget)


def _rotor(count: int) -> Callable[[], object]:
    made = stages(count, 8)
    return lambda: Table(made, count * 40).solve(count * 40)


SPEEDS: Final[dict[str, Speed]] = {
    "checkmate-4": Speed("checkmate", 10.0, "linear net of 9 nodes", lambda: _checkmate(4)),
    "checkmate-8": Speed("checkmate", 10.0, "linear net of 17 nodes", lambda: _checkmate(8)),
    "checkmate-12": Speed("checkmate", 10.0, "linear net of 25 nodes", lambda: _checkmate(12)),
    "sweep-alike": Speed("sweep", 10.0, "96 equal layers", lambda: _sweep(alike=True)),
    "sweep-unlike": Speed("sweep", 10.0, "96 unlike layers", lambda: _sweep(alike=False)),
    "hull-alike": Speed("hull", 10.0, "all corners of 96 equal layers", _corners),
    "dtr-1000": Speed("dtr", 5.0, "1000 forward nodes with skips", _dtr),
    "rotor-48": Speed("rotor", 0.5, "48 stages of 8 options", lambda: _rotor(48)),
    "rotor-96": Speed("rotor", 3.0, "96 stages of 8 options", lambda: _rotor(96)),
}


def hold_speeds(*, rounds: int) -> list[Result]:
    """Hold each solver against its bar.

    Args:
        rounds: samples of each.
    """
    before, results = source_hash(ROOMS), list[Result]()
    for name, speed in SPEEDS.items():
        run, samples = speed.prepare(), list[float]()
        for _ in range(rounds):
            begun = time.process_time()
            run()
            samples.append(time.process_time() - begun)
        scenario = f"remat-solvers/{name}"
        results.append(
            _held(scenario, speed.ours, samples, speed.most, speed.note, "speed", before)
        )
    return results


# --- best -----------------------------------------------------------------------------------


class Contest(NamedTuple):
    """A graph and a budget on which one solver shall be best.

    Attributes:
        best: the solver.
        note: what graph it is.
        share: the budget, as a share of the plain peak.
        make: makes the graph.
    """

    best: Solver
    note: str
    share: float
    make: Callable[[], Graph]


CONTESTS: Final[dict[str, Contest]] = {
    "layers": Contest(
        Solver.CLOSURE, "96 unlike layers", 0.5, lambda: transformer(LAYERS, alike=False)
    ),
    "chain": Contest(Solver.ROTOR, "chain of 200", 0.06, lambda: chain(200)),
    "small": Contest(Solver.CHECKMATE, "chain of 11 with skips", 0.7, lambda: skipping(11)),
    "u-net": Contest(Solver.HILP, "U-Net of 5 levels", 0.45, lambda: u_net(4, 6)),
    "skips": Contest(Solver.DTR, "chain of 40 with skips", 0.5, lambda: skipping(40)),
}
SOLVERS: Final = (Solver.CLOSURE, Solver.ROTOR, Solver.CHECKMATE, Solver.HILP, Solver.DTR)


def hold_contests(*, time_limit: float = 10.0) -> list[Result]:
    """Let every solver find an order for each named graph.

    Args:
        time_limit: seconds for each.
    """
    before, results = source_hash(ROOMS), list[Result]()
    for name, contest in CONTESTS.items():
        graph = contest.make()
        budget = int(simulate(graph, graph.plain).peak * contest.share)
        found = {
            solver: seconds / graph.seconds
            for solver in (*SOLVERS, Solver.AUTO)
            if (seconds := _seconds(graph, budget, solver, time_limit)) is not None
        }
        others = [found[solver] for solver in SOLVERS if solver in found and solver != contest.best]
        samples = {solver.value: [seconds] for solver, seconds in found.items()}
        # where no other fits, the bar is to fit at all
        samples["peer"] = [min(others, default=math.inf)] if others else []
        samples["ours"] = [found[contest.best]] if contest.best in found else []
        unfit = [solver.value for solver in SOLVERS if solver not in found]
        results.append(
            make_result(
                f"remat-solvers/best-{name}",
                ours=contest.best.value,
                peer="best of the other solvers",
                samples=samples,
                unit="share of the plain step's seconds",
                rooms=ROOMS,
                command=("bench.remat_solvers", "best"),
                limit=1.0 - 1e-9,
                note=f"{contest.note}, {len(graph.nodes)} nodes, budget {contest.share:.0%} of the "
                f"plain peak, {time_limit:.0f} s; do not fit: {', '.join(unfit) or 'none'}",
                made_with=before,
            )
        )
    return results


def _seconds(graph: Graph, budget: int, solver: Solver, time_limit: float) -> float | None:
    if solver is Solver.CHECKMATE and len(graph.nodes) > 300:
        return None  # the program alone would not fit the memory
    try:
        return find_order(graph, budget, solver=solver, time_limit=time_limit).seconds
    except (OverBudgetError, NotAChainError):
        return None


# --- near -----------------------------------------------------------------------------------

DRAWN: Final = 40
"""Graphs that are drawn."""
NEAR: Final = 1.03
NEAR_SHARES: Final = (0.85, 0.7, 0.55)


def hold_near() -> list[Result]:
    """Count how often each solver comes near Checkmate's order on small graphs."""
    before = source_hash(ROOMS)
    ratios: dict[str, list[float]] = {}
    for seed in range(DRAWN):
        graph = any_shape(seed)
        plain = simulate(graph, graph.plain).peak
        for share in NEAR_SHARES:
            best = _seconds(graph, int(plain * share), Solver.CHECKMATE, 10.0)
            if best is None or best <= graph.seconds:
                continue  # nothing fits, or nothing need run again
            found = {
                solver.value: _seconds(graph, int(plain * share), solver, 10.0) or math.inf
                for solver in (Solver.CLOSURE, Solver.ROTOR, Solver.HILP, Solver.AUTO)
            }
            found["closure and rotor"] = min(found["closure"], found["rotor"])
            for name, seconds in found.items():
                ratios.setdefault(name, []).append(seconds / best)
    return [
        make_result(
            f"remat-solvers/near-{name.replace(' ', '-')}",
            ours=name,
            peer="",
            samples={"ours": [sum(ratio <= NEAR for ratio in found) / len(found)]},
            unit="share of graphs",
            rooms=ROOMS,
            command=("bench.remat_solvers", "near"),
            note=f"within {NEAR - 1:.0%} of Checkmate's seconds, {len(found)} graphs and budgets",
            made_with=before,
        )
        for name, found in ratios.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the scenario.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each")
    parser.add_argument("--child", choices=SCALES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    parts = options.parts or list(PARTS)
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(PARTS)}.")
    one_thread()
    if options.child:
        print(json.dumps(measure_scale(options.child)))
        return
    for part in parts:
        for result in PARTS[part](options.rounds):
            write_result(result)
            print(_line(result), flush=True)


PARTS: Final[dict[str, Callable[[int], list[Result]]]] = {
    "scale": lambda rounds: hold_scale(rounds=rounds),
    "speed": lambda rounds: hold_speeds(rounds=rounds),
    "best": lambda _: hold_contests(),
    "near": lambda _: hold_near(),
}
"""How each part is measured, with so many rounds."""


def _line(result: Result) -> str:
    ours = ", ".join(f"{figure:.4g}" for figure in result.samples["ours"])
    said = {None: "", True: "met", False: "missed"}[result.met]
    return f"{result.scenario:<32} {ours} {result.unit}  {said}  {result.note}"


if __name__ == "__main__":
    main()
