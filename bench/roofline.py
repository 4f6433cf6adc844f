"""The estimated time of a training step against the measured one, on the models of the zoo.

    python -m bench.roofline [--again] [MODEL ...]
    python -m bench.roofline --random SEED

The constants of this machine are measured first, in processes of their own. Then a process for
each model takes steps with AdamW at two batch sizes on one thread, measures the processor time of
each, and counts one more, whose roofline is the estimate. No constant is fitted to the models.
One file a model goes to ``bench/results/roofline/``; a result that stands and whose sources have
not changed is kept. With ``--random`` the models are architectures of transformers that the seed
draws: what measures the constants was chosen with the zoo in sight, and not with these.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

import torch

from bench.architectures import draw, find_case
from bench.harness import RESULTS, ROOT, machine, one_thread, source_hash
from bench.roofline_table import SCHEMA
from shoestring.core.documents import read_document, write_text
from shoestring.core.errors import ShoestringError
from shoestring.measure import Count, count, load_machine
from shoestring.measure.tracing.step import StepOptions, plain_step
from tests.zoo import ZOO, Case

ROOMS: Final = ("core", "measure")
FEWEST: Final = 7
MOST_SECONDS: Final = 4.0
"""Of the steps that are measured of one batch, once there are enough of them."""
DRAWN: Final = 10
"""Architectures that a random comparison ends with."""
PATIENCE: Final = 120.0
"""Seconds after which a model is given up."""
MEASURED: Final = 3
"""Processes that measure the machine; what the quietest of them found is kept."""

Record: TypeAlias = dict[str, object]


def folder(results: Path = RESULTS) -> Path:
    """Return where the results of this scenario are kept.

    Args:
        results: folder of all results.
    """
    return results / "roofline"


# --- in a process of its own -----------------------------------------------------------------


def measure_model(case: Case) -> list[Record]:
    """Measure steps of a model at its two batch sizes, and estimate them.

    Args:
        case: the model.

    Returns:
        A row for each batch size.
    """
    return [measure_row(case, rows) for rows in case.rows]


def measure_row(case: Case, rows: int) -> Record:
    """Measure the processor time of a steady step, and estimate it.

    Args:
        case: the model.
        rows: of its batch.
    """
    model, batch = case.build(), case.batch(rows)
    optimizer = torch.optim.AdamW(model.parameters())
    options = StepOptions(loss=case.loss)
    samples: list[float] = []
    for _ in range(2):  # the first step makes the optimizer's state
        plain_step(model, batch, optimizer, options)
    start = time.perf_counter()
    while len(samples) < FEWEST or (
        len(samples) < 3 * FEWEST and time.perf_counter() - start < MOST_SECONDS
    ):
        gc.collect()
        begin = time.thread_time()
        plain_step(model, batch, optimizer, options)
        samples.append(time.thread_time() - begin)
    with count(model) as counted:
        plain_step(model, batch, optimizer, options)
    return {"batch": rows, "samples": samples, **estimate(counted)}


def estimate(counted: Count) -> Record:
    """Return the estimate of what was counted, with its bounds and what binds it.

    Args:
        counted: a step.
    """
    roofline = counted.roofline("this")
    return {
        "predicted": roofline.seconds,
        "unfused": roofline.unfused,
        "fused": roofline.fused,
        "bound": roofline.bound._asdict(),
        "calls": counted.total.calls,
        "unknown": len(counted.unknown_ops),
    }


def child(words: Sequence[str]) -> list[Record] | Record:
    """Do what a child process is for: measure the machine, or one model.

    Args:
        words: nothing, or the name of a model.
    """
    one_thread()
    if not words:
        sheet = load_machine("this")
        return {
            "flops": sheet.flops,
            "bandwidth": sheet.bandwidth,
            "paces": {kernel: pace._asdict() for kernel, pace in sheet.paces.items()},
            "op_costs": dict(sheet.op_costs),
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return measure_model(find_case(words[0]))


def run_child(words: Sequence[str], cache: str) -> object:
    """Return what a child process prints as JSON.

    Args:
        words: of `child`.
        cache: folder in which the machine's constants are kept.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "SHOESTRING_CACHE": cache,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.roofline", "--child", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise RuntimeError(lines[-1][:300])
    return json.loads(done.stdout.splitlines()[-1])


# --- all of them -----------------------------------------------------------------------------


def path_of(name: str, results: Path = RESULTS) -> Path:
    """Return where a model's result is kept.

    Args:
        name: of the model.
        results: folder of all results.
    """
    return folder(results) / f"{name.replace('/', '-')}.json"


def make(
    name: str, cache: str, constants: object, *, drawn: bool = False, results: Path = RESULTS
) -> Record:
    """Make one model's result.

    Args:
        name: of the model.
        cache: folder in which the machine's constants are kept.
        constants: the same, to be written beside what is made of them.
        drawn: whether it is a drawn architecture, which is passed over where it fails.
        results: folder of all results.

    Returns:
        The document, which is written as well; a model of the zoo that fails is a result too.
    """
    hashed = source_hash(ROOMS)  # before, so that what is edited meanwhile makes it older
    try:
        outcome: Mapping[str, object] = {"rows": run_child([name], cache)}
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        outcome = {"rows": [], "error": str(error)}
    document: Record = {
        "schema": SCHEMA,
        "scenario": "roofline",
        "model": name,
        "drawn": drawn,
        **outcome,
        "constants": constants,
        "threads": 1,
        "dtype": "float32",
        "rooms": list(ROOMS),
        "source_hash": hashed,
        "machine": machine(),
        "torch": torch.__version__,
        "command": f"python -m bench.roofline {name}",
    }
    if drawn and "error" in document:
        return document
    path = path_of(name, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=1) + "\n")
    return document


def stands(name: str, results: Path = RESULTS) -> bool:
    """Whether a model's result is of these sources and this torch, and complete.

    Args:
        name: of the model.
        results: folder of all results.
    """
    try:
        old = read_document(path_of(name, results), SCHEMA)
    except ShoestringError:
        return False
    same = old.get("source_hash") == source_hash(ROOMS) and old.get("torch") == torch.__version__
    return same and "error" not in old


def _line(document: Record) -> str:
    if "error" in document:
        return f"{document['model']:<12} {document['error']}"
    rows = document["rows"]
    assert isinstance(rows, list)
    parts = []
    for row in rows:
        measured = median(row["samples"])
        parts.append(
            f"{row['batch']:>5}: {1e3 * measured:7.1f} ms x {row['predicted'] / measured:.2f}"
        )
    return f"{document['model']:<12} " + "   ".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the models whose results are missing or old.

    Args:
        arguments: of the command line.

    Returns:
        0, or 1 where a model failed.
    """
    names = [case.name for case in ZOO]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(names))
    parser.add_argument("--again", action="store_true", help="make results that stand as well")
    parser.add_argument("--random", type=int, metavar="SEED", help="ten drawn architectures")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(child(options.models)))
        return 0
    if unknown := [name for name in options.models if name not in names]:
        parser.error(f"there is no model {unknown[0]!r}: choose from {', '.join(names)}.")
    if options.random is not None:
        return _make_drawn(options.random, again=options.again)
    wanted = [n for n in options.models or names if options.again or not stands(n)]
    failed = 0
    with tempfile.TemporaryDirectory() as cache:
        constants = [run_child([], cache) for _ in range(MEASURED)][-1] if wanted else None
        for name in wanted:
            document = make(name, cache, constants)
            failed += "error" in document
            print(_line(document), file=sys.stderr, flush=True)
    return int(failed > 0)


def _make_drawn(seed: int, *, again: bool) -> int:
    """Make results of the first architectures of a seed whose step runs."""
    found = 0
    with tempfile.TemporaryDirectory() as cache:
        constants: object = None
        for name in draw(seed):
            if again or not stands(name):
                constants = constants or [run_child([], cache) for _ in range(MEASURED)][-1]
                document = make(name, cache, constants, drawn=True)
                print(_line(document), file=sys.stderr, flush=True)
                if "error" in document:
                    continue
            found += 1
            if found == DRAWN:
                return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
