"""The peak of a training step, as other estimators see it, against the measured one.

    python -m bench.peers [--case NAME ...] [--again]
    python -m bench.peers --wheel FILE

Every model of the zoo at the larger of its batches, with AdamW. Ours is `shoestring.profile`.
The peers:

* torch's MemTracker, on fake tensors (on real ones where the step depends on data), at its
  best: it tracks one step whose optimizer state is there already;
* the formula behind ``accelerate estimate-memory``: four times the parameters. It knows no
  batch, and says so.

Estimates are made in a child process, and one that dies costs its own cell only. What
was measured is taken from the honesty comparison where that stands. A result whose sources
have not changed is not made again, and a peer's estimate is kept as long as the model, the
peer and torch are the same. With ``--wheel``, torchtitan's wheel is searched for its estimator.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import torch
from torch import nn

from bench.harness import (
    ROOT,
    Plain,
    Result,
    is_older,
    make_result,
    one_thread,
    path_of,
    read_result,
    source_hash,
    write_result,
)
from bench.honesty import Cell, measure, predict
from bench.honesty_results import read, sources
from shoestring.core.errors import InputError
from shoestring.measure.tracing.allocator import standing, steady_step
from tests.zoo import ZOO, Case
from tests.zoo.case import Batch, Loss

TRACKED: Final = "torch MemTracker"
FORMULA: Final = "accelerate estimate-memory"
TITAN: Final = "torchtitan"
ROOMS: Final = ("core", "measure", "planner")
OURS: Final = "ours"

Record: TypeAlias = dict[str, object]

PEERS: Final = {TRACKED: "memtracker", FORMULA: "accelerate"}
"""Peers, and what their files are called."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One estimate.

    Attributes:
        case: name of the model.
        rows: of its batch.
        side: `OURS` or a peer.
    """

    case: str
    rows: int
    side: str

    @property
    def words(self) -> tuple[str, str, str]:
        """Its place in the command line of the child."""
        return self.case, str(self.rows), self.side


def tracked_peak(
    model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer, loss: Loss | None
) -> int:
    """Return the peak of one plain step that MemTracker reports.

    Args:
        model: real or fake; with fake tensors, call it in their mode.
        batch: of the same kind.
        optimizer: over the model's parameters; its state should be there already.
        loss: of the output and the batch, or None where the output has its own.
    """
    from torch.distributed._tools.mem_tracker import MemTracker

    step = steady_step(model, batch, optimizer, loss)
    tracker = MemTracker()
    tracker.track_external(model, optimizer, *standing(model, batch))
    with tracker:
        step()
    return sum(int(kinds["Total"]) for kinds in tracker.get_tracker_snapshot("peak").values())


def estimate_tracked(case: Case, rows: int) -> Record:
    """Return MemTracker's estimate for a model of the zoo.

    Args:
        case: the model.
        rows: of its batch.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    first = ""
    for kind in ("fake", "real"):
        model, batch = case.build(), case.batch(rows)
        mode: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        try:
            if kind == "fake":
                mode = fake = FakeTensorMode(allow_non_fake_inputs=True)
                model, batch = _faked(fake, model, batch)
            with mode, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
                steady_step(model, batch, optimizer, case.loss)()
                peak = tracked_peak(model, batch, optimizer, case.loss)
        except Exception as error:  # noqa: BLE001 - a peer that fails is a result
            text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            first = first or text
        else:
            return {"peak": peak, "tensors": kind, "error_on_fake": first}
    return {"error": text, "error_on_fake": first}


def _faked(mode: object, model: nn.Module, batch: Batch) -> tuple[nn.Module, Batch]:
    """Return a copy of model and batch without data; shared tensors stay shared."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    assert isinstance(mode, FakeTensorMode)
    tensors = [*model.parameters(), *model.buffers()]
    memo: dict[int, object] = {id(t): mode.from_tensor(t) for t in tensors}
    twin = copy.deepcopy(model, memo)
    if isinstance(batch, torch.Tensor):
        return twin, mode.from_tensor(batch)
    if isinstance(batch, tuple):
        return twin, tuple(mode.from_tensor(t) for t in batch)
    return twin, {key: mode.from_tensor(t) for key, t in batch.items()}


def estimate_formula(case: Case) -> Record:
    """Return what ``accelerate estimate-memory`` prints under "Training using Adam".

    Args:
        case: the model.
    """
    try:
        from accelerate.commands.estimate import estimate_training_usage
        from accelerate.utils import calculate_maximum_sizes

        size, _ = calculate_maximum_sizes(case.build())
        usage = estimate_training_usage(size, "float32")
    except Exception as error:  # noqa: BLE001 - a peer that fails is a result
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    return {"peak": int(max(usage.values())), "tensors": "none"}


def estimates(jobs: Sequence[Job]) -> Iterator[Record]:
    """Yield the estimate of each job from a child process; a dead one costs its job only.

    Args:
        jobs: what is to be estimated.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    left = list(jobs)
    while left:
        words = [word for job in left for word in job.words]
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.peers", "--child", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        with child:
            for line in child.stdout:
                left.pop(0)
                yield json.loads(line)
        if left:
            left.pop(0)
            yield {"error": f"the process died ({child.returncode})"}


def _estimate(case: Case, rows: int, side: str) -> Record:
    if side == OURS:
        return predict(case, Cell(case.name, rows, "adamw"))
    return estimate_tracked(case, rows) if side == TRACKED else estimate_formula(case)


def _measured(case: Case, rows: int) -> int:
    """Return the measured peak, from the honesty comparison where it stands."""
    cell = Cell(case.name, rows, "adamw")
    old = read(cell.path)
    found = old.get("measured")
    if old.get("measure_hash") != sources()["measure_hash"] or not isinstance(found, dict):
        found = next(iter(measure([cell])))
    if "error" in found:
        raise RuntimeError(f"{case.name} cannot be measured: {found['error']}")
    return int(str(found["peak"]))


def compare(cases: Sequence[Case], *, again: bool = False) -> Iterator[Result]:
    """Yield the comparison of models with each peer, made anew where it is missing or old.

    Args:
        cases: the models.
        again: whether results that stand are made anew.
    """
    inputs, before = str(sources()["measure_hash"]), source_hash(ROOMS)
    kept: dict[Job, Result] = {}
    jobs: list[Job] = []
    for case in cases:
        old = {peer: None if again else _old(case, peer, inputs) for peer in PEERS}
        rows = max(case.rows)
        if any(known is None or is_older(known) for known in old.values()):
            jobs.append(Job(case.name, rows, OURS))
        for peer, known in old.items():
            if known is None:
                jobs.append(Job(case.name, rows, peer))
            else:
                kept[Job(case.name, rows, peer)] = known
    fresh = estimates(jobs)
    anew = set(jobs)
    for case in cases:
        rows = max(case.rows)
        ours = next(fresh) if Job(case.name, rows, OURS) in anew else None
        for peer in PEERS:
            job = Job(case.name, rows, peer)
            if job in anew:
                assert ours is not None
                theirs = _theirs(case, rows, next(fresh), inputs)
                yield _judge(case, peer, ours, *theirs, before)
            elif ours is not None and is_older(kept[job]):
                old_one = kept[job]
                peak = {k: v for k, v in old_one.samples.items() if k != "ours"}
                yield _judge(case, peer, ours, peak, old_one.peer_options, old_one.note, before)
            else:
                yield kept[job]


def _theirs(
    case: Case, rows: int, theirs: Record, inputs: str
) -> tuple[dict[str, list[float]], dict[str, Plain], str]:
    """Return a peer's samples with the measured one, its options and what failed."""
    samples: dict[str, list[float]] = {
        "measured": [_measured(case, rows)],
        "peer": [int(str(theirs["peak"]))] if "peak" in theirs else [],
    }
    used: dict[str, Plain] = {
        "rows": rows,
        "optimizer": "AdamW",
        "tensors": str(theirs.get("tensors", "")),
        "inputs": inputs,
    }
    return samples, used, str(theirs.get("error") or theirs.get("error_on_fake") or "")


def _judge(
    case: Case,
    peer: str,
    ours: Record,
    samples: Mapping[str, Sequence[float]],
    options: Mapping[str, Plain],
    note: str,
    before: str,
) -> Result:
    own = [int(str(ours["peak"]))] if "peak" in ours else []
    note = note.partition("; ours: ")[0]  # of an earlier version of ours
    failed = "" if own else f"; ours: {ours.get('error')}"
    result = make_result(
        f"peers/{case.name}-{PEERS[peer]}",
        ours="shoestring.profile",
        peer=peer,
        peer_version=_version(peer),
        peer_options=options,
        samples={**samples, "ours": own},
        unit="bytes",
        rooms=ROOMS,
        command=("bench.peers", "--case", case.name),
        note=note + failed,
        made_with=before,
    )
    write_result(result)
    return result


def _version(peer: str) -> str:
    return torch.__version__ if peer == TRACKED else importlib.metadata.version("accelerate")


def _old(case: Case, peer: str, inputs: str) -> Result | None:
    """Return a result whose peer need not be asked again, or None."""
    try:
        found = read_result(path_of(f"peers/{case.name}-{PEERS[peer]}"))
    except (InputError, ValueError):
        return None
    now = (_version(peer), torch.__version__, inputs)
    then = (found.peer_version, found.torch, found.peer_options.get("inputs"))
    return found if now == then else None


def search_wheel(path: Path) -> Result:
    """Say whether torchtitan's wheel holds the estimator of its repository.

    Args:
        path: of the wheel, from ``pip download --no-deps torchtitan``.
    """
    version = path.name.split("-")[1]
    with zipfile.ZipFile(path) as wheel:
        names = [n for n in wheel.namelist() if n.endswith(".py")]
        found = [n for n in names if b"FSDPMemTracker" in wheel.read(n)]
    note = (
        f"the wheel has an estimator ({', '.join(found)}), which was not run"
        if found
        else "the wheel has no estimator: none of its modules names FSDPMemTracker, torch's "
        "subclass of MemTracker for sharded modules, which the script in its repository runs "
        "on its own models"
    )
    result = make_result(
        "peers/torchtitan",
        ours="shoestring.profile",
        peer=TITAN,
        peer_version=version,
        samples={},
        unit="bytes",
        rooms=ROOMS,
        command=("bench.peers", "--wheel", path.name),
        note=note,
    )
    write_result(result)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--case", action="append", help="only this model; may be repeated")
    parser.add_argument("--again", action="store_true", help="make results that stand anew")
    parser.add_argument("--wheel", type=Path, help="search torchtitan's wheel for its estimator")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    cases = {case.name: case for case in ZOO}
    if unknown := sorted(set(options.case or ()) - set(cases)):
        parser.error(f"there is no model {unknown[0]!r} in the zoo.")
    one_thread()
    if options.child:
        words = options.child
        for name, rows, side in zip(words[::3], words[1::3], words[2::3], strict=True):
            print(json.dumps(_estimate(cases[name], int(rows), side)), flush=True)
        return
    if options.wheel:
        print(search_wheel(options.wheel).note)
        return
    with tempfile.TemporaryDirectory() as cache:
        # What an earlier version found out about kernels is not believed.
        os.environ["SHOESTRING_CACHE"] = cache
        chosen = [cases[name] for name in options.case or cases]
        for result in compare(chosen, again=options.again):
            print(_line(result), flush=True)


def _line(result: Result) -> str:
    true = result.samples["measured"][0]
    errors = [
        f"{side} {result.samples[side][0] / true - 1:+7.1%}"
        if result.samples[side]
        else f"{side}  failed"
        for side in ("ours", "peer")
    ]
    return f"{result.scenario:<32} {'   '.join(errors)}   {result.note[:60]}"


if __name__ == "__main__":
    main()
