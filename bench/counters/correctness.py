"""Who counts right: ours and the others on small models, against counts by hand.

    python -m bench.counters.correctness [CASE ...] [--again] [--environment FOLDER]

The others live in a virtual environment of their own, made on first use, and each runs in a
process of its own; one that dies costs its own cell only. What stands is kept: ours as long as
its code, the others as long as their version, torch and the cases are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from bench.counters import flopco
from bench.counters.case import ROWS, Case
from bench.counters.cases import CASES
from bench.counters.environment import FOLDER, Environment
from bench.counters.every import EVERY
from bench.counters.peers import PEERS, Peer
from bench.counters.records import (
    FORWARD_TABLE,
    NOT_INSTALLED,
    ROOMS,
    STEP_TABLE,
    Record,
    Said,
    inputs_hash,
    path_of,
    read,
    write,
)
from bench.harness import RESULTS, ROOT, one_thread, source_hash
from shoestring.core.errors import InputError

PATIENCE: Final = 300.0
"""Seconds after which a counter's process counts as stuck."""


def ours(case: Case) -> dict[str, object]:
    """Return what `shoestring.measure.count` says of a case.

    Args:
        case: the case.

    Returns:
        Counts by phase under ``ours``, operators without a formula under ``unknown``, and an
        ``error`` where it failed.
    """
    from shoestring.measure.counting.count import count

    model, x = case.build(ROWS)
    try:
        with count(model) as counted:
            case.run(model, x)
        phases = counted.by_phase()
    except Exception as error:  # noqa: BLE001 - ours that fails is a result too
        text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return {"ours": {}, "unknown": {}, "error": text}
    figures = {
        phase: totals.macs if case.unit == "MACs" else totals.flops
        for phase, totals in phases.items()
    }
    shown = {phase: n for phase, n in figures.items() if n or phase in case.hand(ROWS)}
    return {"ours": shown, "unknown": counted.unknown_ops, "error": ""}


def answers(
    command: Sequence[str], names: Sequence[str], *, patience: float = PATIENCE
) -> Iterator[Mapping[str, object]]:
    """Yield a counter's answer to each case from a child process.

    Args:
        command: of the process; names of cases are added, and it prints a line for each.
        names: of cases.
        patience: seconds after which the process counts as stuck.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    left = list(names)
    while left:
        child = subprocess.Popen(
            [*command, *left],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        stuck = threading.Timer(patience, child.kill)
        stuck.start()
        try:
            with child:
                for line in child.stdout:
                    left.pop(0)
                    yield json.loads(line)
        finally:
            stuck.cancel()
        if left:
            left.pop(0)
            yield {"error": f"the process died ({child.returncode})"}


def asked(
    peer: Peer, cases: Sequence[Case], environment: Environment, reason: str, version: str
) -> Iterator[Said]:
    """Yield what a counter says of each case.

    Args:
        peer: the counter.
        cases: the cases.
        environment: it lives in.
        reason: why it is not installed, or empty.
        version: of the counter.
    """
    python = str(environment.python) if peer.distribution else sys.executable
    command = [python, "-m", "bench.counters.peers", peer.name]
    found: Iterator[Mapping[str, object]] = (
        iter([{"error": NOT_INSTALLED + reason}] * len(cases))
        if reason
        else answers(command, [case.name for case in cases])
    )
    for case, answer in zip(cases, found, strict=True):
        scale = (2 if case.unit == "FLOPs" else 1) / peer.unit
        terms = {
            kind: peer.rules[kind] * size * scale
            for kind, size in case.beside(ROWS).items()
            if kind in peer.rules
        }
        yield Said(
            title=peer.title,
            version=version,
            used=peer.used,
            note=peer.note,
            answer=answer.get("answer"),  # type: ignore[arg-type]
            added=answer.get("added", {}),  # type: ignore[arg-type]
            terms=terms,
            error=str(answer.get("error", "")),
        )


def compare(
    cases: Sequence[Case],
    environment: Environment,
    *,
    results: Path = RESULTS,
    again: bool = False,
) -> Iterator[Record]:
    """Yield every case, counted anew where something is missing or older.

    Args:
        cases: the cases.
        environment: of the other counters.
        results: folder of all results.
        again: whether what stands is made anew.
    """
    before, inputs = source_hash(ROOMS), inputs_hash()
    reasons = environment.prepare()
    old = {} if again else {case.name: _old(case, inputs, results) for case in cases}
    said: dict[str, dict[str, Said]] = {case.name: {} for case in cases}
    have = environment.versions([peer.distribution for peer in PEERS if peer.distribution])
    for peer in PEERS:
        version = have.get(peer.distribution, "") if peer.distribution else torch.__version__
        own = [case for case in cases if case in CASES or peer.steps]
        known = {case.name: _known(old.get(case.name), peer, version) for case in own}
        fresh = [case for case in own if known[case.name] is None]
        reason = "" if version else reasons.get(peer.distribution, "it is not there")
        anew = dict(
            zip(
                (case.name for case in fresh),
                asked(peer, fresh, environment, reason, version),
                strict=True,
            )
        )
        for case in own:
            said[case.name][peer.name] = known[case.name] or anew[case.name]
        print(f"{peer.title}: {len(fresh)} asked, {len(own) - len(fresh)} known", flush=True)
    for case in cases:
        record = _record(case, said[case.name], old.get(case.name), before, inputs)
        write(record, results)
        yield record


def _known(record: Record | None, peer: Peer, version: str) -> Said | None:
    """Return what a counter said earlier, where it need not or cannot be asked again."""
    said = record.peers.get(peer.name) if record else None
    if said is None or not said.version:
        return None
    return said if version in ("", said.version) else None


def _old(case: Case, inputs: str, results: Path) -> Record | None:
    """Return a record whose other counters need not be asked again."""
    try:
        found = read(path_of(case.name, results))
    except (InputError, ValueError):
        return None
    return found if (found.inputs, found.torch) == (inputs, torch.__version__) else None


def _record(
    case: Case, said: Mapping[str, Said], old: Record | None, before: str, inputs: str
) -> Record:
    stands = old is not None and old.source_hash == before
    mine = (
        {"ours": old.ours, "unknown": old.unknown, "error": old.error}
        if stands and old is not None
        else ours(case)
    )
    return Record(
        case=case.name,
        title=case.title,
        table=FORWARD_TABLE if case in CASES else STEP_TABLE,
        place=list(EVERY).index(case.name),
        unit=case.unit,
        formula=case.formula,
        hand=case.hand(ROWS),
        peers=said,
        inputs=inputs,
        torch=torch.__version__,
        source_hash=before,
        command=f"python -m bench.counters.correctness {case.name}",
        **mine,  # type: ignore[arg-type]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Args:
        arguments: of the command line.

    Returns:
        0, or 1 where ours is wrong.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(EVERY))
    parser.add_argument("--again", action="store_true", help="make what stands anew")
    parser.add_argument(
        "--environment", type=Path, default=FOLDER, help="folder of the others' environment"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.cases if name not in EVERY]:
        parser.error(f"there is no case {unknown[0]!r}: choose from {', '.join(EVERY)}.")
    one_thread()
    environment = Environment(options.environment)
    chosen = [EVERY[name] for name in options.cases or EVERY]
    wrong = 0
    for record in compare(chosen, environment, again=options.again):
        wrong += not record.ours_is_right
        state = "right" if record.ours_is_right else f"WRONG {dict(record.ours)} {record.error}"
        print(f"{record.case:<20} {record.right:>10} {record.unit}  ours {state}", flush=True)
    if not options.cases:
        flopco.compare(environment)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
