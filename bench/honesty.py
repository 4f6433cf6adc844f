"""Predicted against measured: is the profile honest?

    python -m bench.honesty [--case NAME ...] [--again]
    python -m bench.honesty --random SEED

For every model of the zoo, two batch sizes and three optimizers, the peak of one training step
is predicted here, without data, and measured in another process from the events of the CPU
allocator. One JSON file a cell goes to ``bench/results/honesty/``; a cell that stands and whose
sources have not changed is not run again. With ``--random`` the models are ten architectures
of transformers that the seed draws.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import torch

import shoestring
from bench.architectures import ROWS, draw, find_case
from bench.honesty_measure import OPTIMIZERS
from bench.honesty_results import RESULTS, read, sources, summarise, write
from shoestring.core.errors import AssumptionWarning
from tests.zoo import ZOO, Case

ROOT: Final = Path(__file__).resolve().parent.parent
SCHEMA: Final = "shoestring/bench/honesty/1"
WANTED: Final = 10
"""Architectures that a random comparison ends with."""
LARGEST_STEP: Final = 2**30
"""A drawn architecture whose plain step takes more bytes is passed over."""
PATIENCE: Final = 600.0
"""Seconds after which a drawn architecture is passed over all the same."""

Record: TypeAlias = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One comparison.

    Attributes:
        case: name of the model.
        rows: rows of the batch.
        optimizer: one of `OPTIMIZERS`.
    """

    case: str
    rows: int
    optimizer: str

    @property
    def path(self) -> Path:
        """Where its result is kept."""
        return RESULTS / f"{self.case.replace('/', '-')}-{self.rows}-{self.optimizer}.json"

    @property
    def words(self) -> tuple[str, str, str]:
        """Its place in the command line of the child."""
        return self.case, str(self.rows), self.optimizer


def cells_of(name: str, rows: Sequence[int]) -> list[Cell]:
    """Return the cells of one model.

    Args:
        name: of the model.
        rows: the batch sizes.
    """
    return [Cell(name, r, optimizer) for r in rows for optimizer in OPTIMIZERS]


def measure(
    cells: Sequence[Cell], *, timeout: float | None = None
) -> Generator[Record, None, None]:
    """Yield what a child process measures for each cell; a dead child costs its cell only.

    Args:
        cells: to be measured.
        timeout: seconds for all of them, or None.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    left = list(cells)
    end = None if timeout is None else time.monotonic() + timeout
    while left:
        words = [word for cell in left for word in cell.words]
        command = [sys.executable, "-m", "bench.honesty_measure", *words]
        # The child's own watch ends it, so that reading its lines never blocks for good.
        if end is not None:
            command = ["timeout", str(max(1, round(end - time.monotonic()))), *command]
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        with child:
            try:
                for line in child.stdout:
                    left.pop(0)
                    yield json.loads(line)
            except GeneratorExit:  # nobody wants the rest
                child.terminate()
                raise
        if left:
            why = "ran out of time" if child.returncode == 124 else f"died ({child.returncode})"
            yield {**dataclasses.asdict(left.pop(0)), "error": f"the measuring process {why}"}


def predict(case: Case, cell: Cell) -> Record:
    """Return what `shoestring.profile` says, from a model without weights where that works.

    Args:
        case: the model.
        cell: which batch and optimizer.
    """
    begin = time.perf_counter()
    batch = case.batch(cell.rows)
    made, first = "meta", ""
    for made in ("meta", "real"):
        try:
            with torch.device("meta" if made == "meta" else "cpu"):
                model = case.build()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AssumptionWarning)
                profile = shoestring.profile(
                    model, batch, optimizer=OPTIMIZERS[cell.optimizer], loss=case.loss
                )
            break
        except Exception as error:  # noqa: BLE001 - a refusal is a result, and the other cells go on
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            first = first or text
    else:
        return {"error": text, "error_on_meta": first}
    return {
        "peak": profile.peak,
        "static": profile.static,
        "model": made,
        "error_on_meta": first,
        "without_data": profile.step.fake,
        "assumptions": list(profile.assumptions),
        "seconds": round(time.perf_counter() - begin, 3),
    }


def record(cell: Cell, predicted: Record, measured: Record, hashes: Record) -> Record:
    """Return the document of one cell.

    Args:
        cell: which.
        predicted: from `predict`.
        measured: from `measure`.
        hashes: of the sources.
    """
    result: Record = {
        "schema": SCHEMA,
        "scenario": "honesty",
        **dataclasses.asdict(cell),
        "predicted": predicted,
        "measured": {k: v for k, v in measured.items() if k not in ("case", "rows", "optimizer")},
        "dtype": "float32",
        "threads": 1,
        "torch": torch.__version__,
        **hashes,
        "command": f"python -m bench.honesty --case {cell.case}",
    }
    if "error" not in predicted and "error" not in measured:
        peak, true = int(str(predicted["peak"])), int(str(measured["peak"]))
        moving = peak - int(str(predicted["static"]))
        true_moving = true - int(str(measured["static"]))
        result["error"] = peak / true - 1
        result["error_above_static"] = moving / true_moving - 1
    return result


def compare(cells: Sequence[Cell], *, again: bool = False, drawn: bool = False) -> str:
    """Predict and measure the cells whose results are missing or old, and write them.

    Args:
        cells: of the comparison.
        again: whether results that stand are made anew.
        drawn: whether to stop at the first cell whose plain step fails or is large.

    Returns:
        Why it stopped; empty where it did not.
    """
    hashes = sources()
    pending: list[Cell] = []
    known: dict[Cell, Record] = {}
    for cell in cells:
        old = {} if again else read(cell.path)
        if old.get("source_hash") == hashes["source_hash"]:
            continue
        measured = old.get("measured")
        if old.get("measure_hash") == hashes["measure_hash"] and isinstance(measured, dict):
            known[cell] = measured
        else:
            pending.append(cell)
    measuring = measure(pending, timeout=PATIENCE if drawn else None)
    with contextlib.closing(measuring):
        for cell, measured in itertools.chain(known.items(), zip(pending, measuring, strict=True)):
            why = _unfit(measured)
            if drawn and why:
                return why
            # A step that does not run plainly is not predicted either.
            predicted = {} if "error" in measured else predict(find_case(cell.case), cell)
            result = record(cell, predicted, measured, hashes)
            write(cell.path, result)
            print(_line(result), flush=True)
    return ""


def _unfit(measured: Record) -> str:
    if "error" in measured:
        return str(measured["error"])
    peak = int(str(measured["peak"]))
    return f"the plain step takes {peak / 2**20:.0f} MiB" if peak > LARGEST_STEP else ""


def _line(result: Record) -> str:
    name = f"{result['case']} {result['rows']} {result['optimizer']}"
    if "error" in result:
        error, above = float(str(result["error"])), float(str(result["error_above_static"]))
        return f"{name:<40} peak {error:+7.2%}   above static {above:+7.2%}"
    parts = [(side, result[side]) for side in ("measured", "predicted")]
    why = next((f"{s}: {p['error']}" for s, p in parts if isinstance(p, dict) and "error" in p), "")
    return f"{name:<40} {why}"


def compare_drawn(seed: int, *, again: bool = False) -> list[Cell]:
    """Compare the first ten architectures of a seed whose plain step runs.

    Args:
        seed: of the draw.
        again: whether results that stand are made anew.

    Returns:
        The cells of the ten; what was passed over is in the summary.
    """
    path = RESULTS / f"passed-over-{seed}.json"
    old, hashes = read(path), sources()
    same = not again and old.get("measure_hash") == hashes["measure_hash"]
    known = old.get("reasons") if same else None
    passed: dict[str, str] = dict(known) if isinstance(known, dict) else {}
    chosen: list[Cell] = []
    for name in draw(seed):
        if name in passed:
            continue
        cells = cells_of(name, ROWS)
        why = compare(cells, again=again, drawn=True)
        if why:
            print(f"{name:<40} passed over: {why}", flush=True)
            passed[name] = why
            document = {"schema": SCHEMA, "seed": seed, **hashes, "reasons": passed}
            write(path, document)
            for cell in cells:
                cell.path.unlink(missing_ok=True)
            continue
        chosen += cells
        if len(chosen) == WANTED * len(cells):
            break
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and print its summary.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--case", action="append", help="only this model; may be repeated")
    parser.add_argument("--random", type=int, metavar="SEED", help="ten drawn architectures")
    parser.add_argument("--again", action="store_true", help="run cells that stand as well")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as cache:
        # What an earlier version found out about kernels is not believed.
        os.environ["SHOESTRING_CACHE"] = cache
        summary = _run(options)
    print(json.dumps(summary, indent=1))


def _run(options: argparse.Namespace) -> Record:
    if options.random is not None:
        cells = compare_drawn(options.random, again=options.again)
        name = f"random-{options.random}"
    else:
        rows = {case.name: case.rows for case in ZOO}
        names = options.case or list(rows)
        cells = [c for n in names for c in cells_of(n, rows.get(n, ROWS))]
        compare(cells, again=options.again)
        name = "" if options.case else "zoo"
    summary = summarise([read(cell.path) for cell in cells])
    if name:
        write(RESULTS / f"summary-{name}.json", {"schema": SCHEMA, **summary})
    return summary


if __name__ == "__main__":
    main()
