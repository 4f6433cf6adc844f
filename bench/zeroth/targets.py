"""Evaluations until a target is reached: every optimizer here, and nevergrad's and cma's searches.

    python -m bench.zeroth.targets [optimizers | searches]

Each optimizer's learning rate is the best of a grid on one draw of a problem; what is shown is of
three others. All other options are the defaults. A peer has no rate to choose, and ours has none
there either: `shoestring.zeroth.suggest` measures it, and its evaluations are counted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from bench.harness import (
    RESULTS,
    is_older,
    make_result,
    one_thread,
    read_result,
    source_hash,
    write_result,
)
from bench.zeroth.problems import PROBLEMS, Make, Problem
from shoestring import zeroth

MOST: Final = 20_000
"""Evaluations after which a run has failed."""
RATES: Final = tuple(10 ** (-k / 4) for k in range(21))
TUNED, SHOWN = 0, (1, 2, 3)
"""Seeds of the problems."""

OPTIMIZERS: Final[dict[str, type[torch.optim.Optimizer]]] = {
    "ZOSGD": zeroth.ZOSGD,
    "ZOSign": zeroth.ZOSign,
    "ZOAdam": zeroth.ZOAdam,
    "ZOConservative": zeroth.ZOConservative,
    "ZOMuon": zeroth.ZOMuon,
    "SamplingMuon": zeroth.SamplingMuon,
    "JaguarSign": zeroth.JaguarSign,
    "JaguarMuon": zeroth.JaguarMuon,
    "LOZO": zeroth.LOZO,
    "HiZOO": zeroth.HiZOO,
    "SparseZO": zeroth.SparseZO,
    "ZOSVRG": zeroth.ZOSVRG,
    "SubspaceZOMuon": zeroth.SubspaceZOMuon,
    "ZOMarina": zeroth.ZOMarina,
    "ForwardGradient": zeroth.ForwardGradient,
}
SEARCH_DEPENDS: Final = ("zeroth.survey",)
SIZES: Final = (10, 100, 1000)
SEARCHES: Final = {"one-plus-one": "OnePlusOne", "cma": "CMA", "diagonal-cma": "DiagonalCMA"}


class Counted:
    """A loss that counts how often it is asked for, and notes when it is low enough.

    Only the parameters themselves count for that, so `look` asks once more without counting.

    Args:
        problem: whose loss.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.count = 0

    def __call__(self) -> torch.Tensor:
        """Return the loss."""
        self.count += 1
        return self._problem.loss()

    def look(self) -> bool:
        """Return whether the loss at the parameters is low enough."""
        with torch.no_grad():
            return float(self._problem.loss()) <= self._problem.least


def evaluations(make: Make, lr: float, problem: Problem) -> float:
    """Return the evaluations until the target; infinite where it is not reached.

    Args:
        make: of the optimizer.
        lr: learning rate.
        problem: to minimise.
    """
    optimizer, loss = make(problem.params, lr), Counted(problem)
    more = {"full": loss} if isinstance(optimizer, zeroth.ZOSVRG) else {}
    while loss.count < MOST:
        try:
            value = float(optimizer.step(loss, **more))  # type: ignore[arg-type]
        except ValueError:  # no loss was finite
            return math.inf
        if value > 1e6:
            return math.inf
        if value < 2 * problem.least and loss.look():
            return loss.count
    return math.inf


def _best_rate(make: Make, problem: Callable[[int], Problem]) -> float:
    """Return the rate of the grid with the fewest evaluations, from the largest on."""
    tried: dict[float, float] = {}
    for lr in RATES:
        tried[lr] = evaluations(make, lr, problem(TUNED))
        best = min(tried, key=lambda rate: tried[rate])
        if tried[best] < math.inf and lr < best / 3:
            break  # it takes ever longer from here on
    return best


def compare(name: str, problem: str) -> None:
    """Tune on one draw, and write the evaluations on others.

    Args:
        name: of `OPTIMIZERS`.
        problem: of `PROBLEMS`.
    """
    make: Make = OPTIMIZERS[name]
    depends = [OPTIMIZERS[name].__module__.partition(".")[2]]
    before = source_hash(depends)
    lr = _best_rate(make, PROBLEMS[problem])
    found = [evaluations(make, lr, PROBLEMS[problem](seed)) for seed in SHOWN]
    result = make_result(
        f"zeroth-targets/{problem}-{name}",
        ours=name,
        peer="bar",
        samples={"ours": [min(n, 2 * MOST) for n in found], "peer": [MOST], "lr": [lr]},
        unit="evaluations",
        rooms=depends,
        command=["bench.zeroth.targets", "optimizers"],
        limit=1.0,
        made_with=before,
        note="" if all(map(math.isfinite, found)) else "twice the most: not reached",
    )
    write_result(result)
    print(f"{problem:16} {name:16} lr {lr:.1e}", found, flush=True)


def bowl(size: int, seed: int, condition: float) -> Problem:
    """Return a quadratic of some weights, from normal numbers, aimed at a hundredth.

    Args:
        size: weights.
        seed: of where it begins, and of the turn.
        condition: largest over smallest curvature.
    """
    generator = torch.Generator().manual_seed(seed)
    x = nn.Parameter(torch.randn(size, generator=generator))
    curvatures = torch.logspace(-math.log10(condition), 0, size)
    if condition == 1:
        return Problem([x], lambda: x.square().sum() / 2, float(x.detach().square().sum()) / 200)
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))

    def loss() -> torch.Tensor:
        return ((turn @ x).square() * curvatures).sum() / 2

    return Problem([x], loss, float(loss().detach()) / 100)


def ours(problem: Problem) -> float:
    """Return our evaluations, those that find the learning rate among them.

    Args:
        problem: to minimise.
    """
    loss = Counted(problem)
    lr, eps = zeroth.suggest(problem.params, loss, growth=1.0)
    optimizer = zeroth.ZOSGD(problem.params, lr, eps)
    while loss.count < 10 * MOST:
        optimizer.step(loss)
        if loss.look():
            return loss.count
    return math.inf


def theirs(search: str, problem: Problem, seed: int) -> float:
    """Return the evaluations of one of nevergrad's searches.

    Args:
        search: its name.
        problem: to minimise.
        seed: of the search.
    """
    import nevergrad as ng

    (x,) = problem.params
    parameter = ng.p.Array(init=x.detach().double().numpy())
    parameter.random_state = np.random.RandomState(seed)
    optimizer = ng.optimizers.registry[search](parameter, budget=10 * MOST)
    for count in range(1, 10 * MOST + 1):
        asked = optimizer.ask()
        with torch.no_grad():
            x.copy_(torch.from_numpy(asked.value))
            loss = float(problem.loss())
        if loss <= problem.least:
            return count
        optimizer.tell(asked, loss)
    return math.inf


def search(size: int, condition: float) -> None:
    """Compare our evaluations with those of each search.

    Args:
        size: weights.
        condition: of the quadratic.
    """
    before = source_hash(SEARCH_DEPENDS)
    mine = [ours(bowl(size, seed, condition)) for seed in SHOWN]
    for name, kind in SEARCHES.items():
        if (size, name) == (1000, "cma"):
            continue  # hours: it decomposes a matrix of a million entries again and again
        found = [theirs(kind, bowl(size, seed, condition), seed) for seed in SHOWN]
        result = make_result(
            f"zeroth-searches/{size}-{condition:.0f}-{name}",
            ours="ZOSGD with suggest",
            peer=f"nevergrad {kind}",
            peer_version=importlib.metadata.version("nevergrad"),
            samples={"ours": mine, "peer": [min(n, 20 * MOST) for n in found]},
            unit="evaluations",
            rooms=SEARCH_DEPENDS,
            command=["bench.zeroth.targets", "searches"],
            made_with=before,
        )
        write_result(result)
        print(size, condition, name, mine, found, flush=True)


def _stands(scenario: str) -> bool:
    """Return whether there is a result of today's code."""
    path = RESULTS / f"{scenario}.json"
    return path.exists() and not is_older(read_result(path))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("part", nargs="*", default=["optimizers", "searches"])
    options = parser.parse_args(arguments)
    one_thread()
    if "optimizers" in options.part:
        for problem in PROBLEMS:
            for name in OPTIMIZERS:
                if not _stands(f"zeroth-targets/{problem}-{name}"):
                    compare(name, problem)
    if "searches" in options.part:
        for size in SIZES:
            for condition in (1.0, 100.0):
                search(size, condition)
    return 0


if __name__ == "__main__":
    sys.exit(main())
