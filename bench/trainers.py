"""What a plan costs in time, beside what Hugging Face's Trainer offers.

    python -m bench.trainers [--job NAME ...] [--rounds 3] [--steps 3] [--again]

Two trainings run plainly, by plans for several budgets, with ``gradient_checkpointing=True`` and
with ``auto_find_batch_size=True``: the same rows in the same order, the same optimizer and the
same clipping, each in a process of its own on one thread, in turns. One JSON file for a training
and a way to train goes to ``bench/results/trainers/`` after every round; what stands and whose
code has not changed is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias, cast

import torch

from bench import trainers_results
from bench.harness import RESULTS, machine, source_hash
from bench.trainers_jobs import JOBS, MAX_GRAD_NORM, OPTIMIZER, Job, MissingError, require
from bench.trainers_processes import FailedError, Processes, Record
from bench.trainers_results import ROOMS, Outcome
from bench.trainers_terms import (
    AUTO_FIND,
    CHECKPOINTING,
    LEAST,
    MATCHED,
    PLAIN,
    SECONDS,
    TITLES,
    Settings,
    Verb,
)
from recipes.limited import unwind_on_signals
from shoestring.core.errors import InputError
from shoestring.core.units import format_bytes

Ask: TypeAlias = Callable[[Settings], Record]

ROUNDS: Final = 3
STEPS: Final = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing.

    Args:
        arguments: of the command line.

    Returns:
        The exit code: 0 everything stands, 1 a run failed, 2 something is missing.
    """
    options = _parse(arguments)
    try:
        if platform.system() != "Linux":
            raise MissingError("the enforced limit (RLIMIT_DATA) needs Linux.")
        require()
        whole = True
        for name in options.job or JOBS:
            with tempfile.TemporaryDirectory(prefix="shoestring-trainers-") as scratch:
                comparison = Comparison(
                    JOBS[name],
                    ask=Processes(Path(scratch)),
                    rounds=options.rounds,
                    steps=options.steps,
                )
                whole &= comparison.run(again=options.again)
    except (MissingError, FailedError) as error:
        print(f"trainers: {error}", file=sys.stderr)
        return 2 if isinstance(error, MissingError) else 1
    return int(not whole)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--job", action="append", choices=sorted(JOBS), help="all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of all sides ({ROUNDS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"timed in a round ({STEPS})")
    parser.add_argument("--again", action="store_true", help="run what stands as well")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.steps < 1:
        parser.error("--rounds and --steps must be at least 1.")
    return options


class Comparison:
    """All ways to train of one job.

    Args:
        job: the job.
        ask: runs a process and returns its answer.
        rounds: wanted of each side.
        steps: timed in a round.
        results: folder of all results.
    """

    def __init__(
        self, job: Job, *, ask: Ask, rounds: int, steps: int, results: Path = RESULTS
    ) -> None:
        self._job = job
        self._ask = ask
        self._rounds = rounds
        self._steps = steps
        self._results = results
        self._made_with = source_hash(ROOMS)
        self._outcomes: dict[str, Outcome] = {}

    def run(self, *, again: bool = False) -> bool:
        """Run what is missing, and write every outcome.

        Args:
            again: also run what stands.

        Returns:
            Whether nothing failed.

        Raises:
            FailedError: planning or the plain training failed.
        """
        before = {} if again else self._before()
        if all(name in before and before[name].stands(self._rounds) for name in self._names):
            _say(f"{self._job.name}: everything stands")
            return True
        self._begin(before)
        for turn in range(self._rounds):
            if not (wanted := self._wanted()):
                break
            self._turn(wanted, f"{self._job.name}, round {turn + 1} of {self._rounds}")
        return not any(outcome.error for outcome in self._outcomes.values())

    @property
    def _names(self) -> list[str]:
        return [name for name in TITLES if self._job.seconds or name != SECONDS]

    def _before(self) -> dict[str, Outcome]:
        """Return what was measured before with the same code."""
        found = {}
        for name in self._names:
            path = trainers_results.path_of(self._job.name, name, self._results)
            # A damaged file is measured again, as a missing one is.
            with contextlib.suppress(InputError, ValueError):
                outcome = trainers_results.read(path)
                if outcome.source_hash == self._made_with and not outcome.error:
                    found[name] = outcome
        return found

    # --- what is to be run ---------------------------------------------------------------

    def _begin(self, before: Mapping[str, Outcome]) -> None:
        """Plan, and take over what was measured of the same plans."""
        _say(f"{self._job.name}: planning")
        answer = self._ask(self._settings("plan"))
        plans = cast("Mapping[str, Record]", answer["plans"])
        for name in self._names:
            planned = plans.get(name)
            outcome = self._blank(name)
            if planned is not None:
                outcome = _with_plan(outcome, planned)
            elif name == PLAIN:
                outcome = dataclasses.replace(outcome, predicted_peak=_whole(answer["peak"]))
            elif name == AUTO_FIND:
                matched = plans[MATCHED if plans[MATCHED]["feasible"] else LEAST]
                outcome = dataclasses.replace(outcome, budget=_whole(matched["budget"]))
            self._outcomes[name] = _taken_over(outcome, before.get(name))
        self._find_batch()
        for outcome in self._outcomes.values():
            trainers_results.write(outcome, self._results)

    def _blank(self, name: str) -> Outcome:
        job = self._job
        return Outcome(
            job=job.name,
            description=job.description,
            side=name,
            title=TITLES[name],
            asked_rows=job.rows,
            rows=job.rows,
            length=job.length,
            max_grad_norm=MAX_GRAD_NORM,
            optimizer=OPTIMIZER,
            threads=1,
            dtype="float32",
            machine=machine(),
            torch=torch.__version__,
            transformers=importlib.metadata.version("transformers"),
            accelerate=importlib.metadata.version("accelerate"),
            source_hash=self._made_with,
            command=f"python -m bench.trainers --job {job.name} "
            f"--rounds {self._rounds} --steps {self._steps}",
        )

    def _find_batch(self) -> None:
        """Let the Trainer find its batch, once, under the enforced limit."""
        outcome = self._outcomes[AUTO_FIND]
        if outcome.own:
            return
        assert outcome.budget is not None
        settings = self._settings("find", auto_find=True, budget=outcome.budget)
        try:
            found = self._ask(dataclasses.replace(settings, steps=2))
        except FailedError as error:
            self._outcomes[AUTO_FIND] = dataclasses.replace(outcome, error=str(error))
            return
        rows = _whole(found["rows"])
        _say(f"{self._job.name}: {rows} rows fit in {format_bytes(outcome.budget)}")
        self._outcomes[AUTO_FIND] = dataclasses.replace(outcome, rows=rows)

    def _settings(
        self, verb: Verb, *, auto_find: bool = False, budget: int = 0, rows: int | None = None
    ) -> Settings:
        return Settings(
            verb=verb,
            job=self._job.name,
            folder="",
            rows=rows or self._job.rows,
            auto_find=auto_find,
            budget=budget,
            steps=self._steps,
        )

    # --- rounds --------------------------------------------------------------------------

    def _wanted(self) -> list[str]:
        return [
            name
            for name, outcome in self._outcomes.items()
            if outcome.feasible and not outcome.error and len(outcome.own) < self._rounds
        ]

    def _turn(self, wanted: Sequence[str], where: str) -> None:
        """Run the plain training, then every side that lacks a round."""
        measure = any(self._outcomes[name].peak is None for name in wanted)
        base = self._train(PLAIN, measure=measure, where=where)
        done: dict[tuple[str, ...], Record] = {}
        for name in wanted:
            outcome = self._outcomes[name]
            key = (name.partition("-")[0], *outcome.changes) if outcome.changes else (name,)
            try:
                if name == PLAIN:
                    done[key] = base
                elif key not in done:  # two budgets may have the same plan
                    done[key] = self._train(name, measure=outcome.peak is None, where=where)
                outcome = _with_round(outcome, done[key], base)
            except FailedError as error:
                _say(f"{where}, {name}: failed: {error}")
                outcome = dataclasses.replace(outcome, error=str(error))
            self._outcomes[name] = outcome
            trainers_results.write(outcome, self._results)

    def _train(self, name: str, *, measure: bool, where: str) -> Record:
        auto = name == AUTO_FIND
        settings = dataclasses.replace(
            self._settings("train", auto_find=auto, rows=self._outcomes[name].rows),
            plan=name if name.startswith("plan-") else "",
            checkpointing=name == CHECKPOINTING,
            measure=measure,
        )
        answer = self._ask(settings)
        steps = sorted(_floats(answer["seconds"]))
        _say(f"{where}, {name}: {steps[len(steps) // 2]:.2f} s a step")
        return answer


def _with_plan(outcome: Outcome, planned: Record) -> Outcome:
    return dataclasses.replace(
        outcome,
        changes=tuple(map(str, cast("list[str]", planned["changes"]))),
        feasible=bool(planned["feasible"]),
        budget=None if planned["budget"] is None else _whole(planned["budget"]),
        predicted_peak=_whole(planned["peak"]),
        predicted_ratio=float(str(planned["ratio"])),
    )


def _taken_over(outcome: Outcome, before: Outcome | None) -> Outcome:
    """Return the outcome with the samples of an earlier one of the same plan and budget."""
    if before is None or (before.changes, before.budget) != (outcome.changes, outcome.budget):
        return outcome
    same = ("own", "plain", "peak", "gradient_error", "rows")
    return dataclasses.replace(outcome, **{name: getattr(before, name) for name in same})


def _with_round(outcome: Outcome, answer: Record, base: Record) -> Outcome:
    if _whole(answer["rows"]) != outcome.rows:
        raise FailedError(f"it trained on {answer['rows']} rows, and not on {outcome.rows}")
    outcome = dataclasses.replace(
        outcome,
        own=(*outcome.own, tuple(_floats(answer["seconds"]))),
        plain=(*outcome.plain, tuple(_floats(base["seconds"]))),
    )
    if outcome.peak is None:
        outcome = dataclasses.replace(
            outcome,
            peak=_whole(answer["peak"]),
            gradient_error=float(str(answer["gradient_error"])),
        )
    return outcome


def _whole(value: object) -> int:
    return int(str(value))


def _floats(value: object) -> list[float]:
    return [float(str(item)) for item in cast("list[object]", value)]


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    unwind_on_signals()
    sys.exit(main())
