"""Attacks networks that classify Fashion-MNIST, by our methods and by other libraries.

    python -m bench.attacks.run [NAME ...] [--again]

A NAME is a cell such as ``pooled-linf-untargeted/ours-square``, or a part of one. A cell whose
result is of today's code is passed over, so that a run that was stopped goes on where it was. The
networks are trained on first use; the other libraries live in an environment of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from bench.attacks import environment, pictures
from bench.attacks.counting import Counted, other_classes, pick
from bench.attacks.networks import NETWORKS
from bench.attacks.records import Record, is_current, sources, write
from bench.attacks.train import network
from bench.harness import one_thread
from shoestring.zeroth.attacks import attack
from shoestring.zeroth.attacks.loop import METHODS

IMAGES: Final = 500
QUERIES: Final = 1000
EPS: Final = {"linf": 8 / 255, "l2": 0.75}
"""Radii at which networks like these, attacked along their gradients on images of the training set,
lose between 60 and 95 percent."""
PEERS: Final[dict[str, dict[str, float]]] = {
    "torchattacks-square": {},
    "torchattacks-spsa": {"nb_sample": 16, "lr": 0.01, "delta": 0.01},
    "art-square": {},
    "art-square-cached": {},
    "art-zoo": {"nb_parallel": 128},
}
"""Settings of the other libraries, over their defaults."""
ONLY: Final = {"torchattacks-spsa": "linf", "art-zoo": "l2"}
"""Peers with one norm alone."""
UNTARGETED: Final = {"art-square", "art-square-cached", "art-zoo"}
DISTRIBUTIONS: Final = {
    "torchattacks": "torchattacks",
    "art": "adversarial-robustness-toolbox",
}
PATIENCE: Final = 1800.0
"""Seconds after which a peer counts as stuck."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One attack on one network.

    Attributes:
        network: its name.
        norm: of the ball.
        targeted: whether there are targets.
        who: ``ours/METHOD``, or a peer's name.
    """

    network: str
    norm: str
    targeted: bool
    who: str

    @property
    def options(self) -> str:
        """Its settings, as text."""
        name = self.who.removeprefix("ours/")
        for kind in METHODS:
            if name == kind.name:
                return repr(kind())
        return json.dumps(PEERS[name], sort_keys=True)

    def record(self, **figures: object) -> Record:
        """Return its result.

        Args:
            figures: what was measured.
        """
        return Record(
            who=self.who, network=self.network, norm=self.norm, eps=EPS[self.norm],
            targeted=self.targeted, queries=QUERIES, options=self.options,
            **figures,  # type: ignore[arg-type]
        )  # fmt: skip


def cells() -> list[Cell]:
    """Return all cells: those of a network, norm and aim together."""
    found = []
    for targeted in (False, True):
        for norm in EPS:
            for name in NETWORKS:
                found += [Cell(name, norm, targeted, f"ours/{kind.name}") for kind in METHODS]
                found += [
                    Cell(name, norm, targeted, peer)
                    for peer in PEERS
                    if ONLY.get(peer, norm) == norm and not (targeted and peer in UNTARGETED)
                ]
    return found


@functools.cache
def subject(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network, and the test images that it is attacked on with their labels.

    Args:
        name: of the network.
    """
    model = network(name)
    images, labels = pictures.read("test")
    chosen = pick(model, images, labels, IMAGES)
    return model, images[chosen], labels[chosen]


def measure(cell: Cell) -> Record:
    """Run one cell.

    Args:
        cell: to run.
    """
    model, images, labels = subject(cell.network)
    wanted = other_classes(labels) if cell.targeted else labels
    run = _ours if cell.who.startswith("ours/") else _peer
    return run(cell, model, images, wanted)


def _ours(cell: Cell, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Record:
    counted = Counted(
        model, images, labels, norm=cell.norm, eps=EPS[cell.norm], targeted=cell.targeted
    ).eval()
    begin = time.process_time()
    found = attack(
        counted, images, labels, method=cell.who.removeprefix("ours/"), norm=cell.norm,
        eps=EPS[cell.norm], queries=QUERIES, targeted=cell.targeted,
    )  # fmt: skip
    seconds = time.process_time() - begin
    if not torch.equal(found.queries, counted.asked):
        raise RuntimeError(f"{cell}: the attack counts other queries than the network")
    if not torch.equal(found.success, counted.success > 0):
        raise RuntimeError(f"{cell}: the attack succeeds on other images than the network says")
    return cell.record(
        version="", asked=tuple(counted.asked.tolist()), success=tuple(counted.success.tolist()),
        lost=counted.lost,
        seconds=round(seconds, 2),
    )  # fmt: skip


def _peer(cell: Cell, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Record:
    task = {
        "network": cell.network, "weights": model.state_dict(), "images": images,
        "labels": labels, "peer": cell.who, "norm": cell.norm, "eps": EPS[cell.norm],
        "queries": QUERIES, "targeted": cell.targeted, "options": PEERS[cell.who],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.pt"
        torch.save(task, path)
        before = os.times()
        asked, success, lost = _asked(path)
        after = os.times()
    seconds = after.children_user + after.children_system
    seconds -= before.children_user + before.children_system
    version = environment.versions()[DISTRIBUTIONS[cell.who.partition("-")[0]]]
    return cell.record(
        version=version, asked=asked, success=success, lost=lost,
        seconds=round(seconds, 2),
    )  # fmt: skip


def _asked(task: Path) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return queries, successes and queries that are no images."""
    script = str(Path(__file__).with_name("peer.py"))
    done = subprocess.run(
        [str(environment.python_of()), "-W", "ignore", script, str(task)],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    return tuple(found["asked"]), tuple(found["success"]), int(found["lost"])


def _name(cell: Cell) -> str:
    return cell.record(version="", asked=(), success=(), lost=0, seconds=0.0).name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing.

    Args:
        arguments: of the command line.

    Returns:
        0, or 1 where a cell failed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="cells, or parts of their names")
    parser.add_argument("--again", action="store_true", help="run what stands too")
    options = parser.parse_args(arguments)
    one_thread()
    wanted = [c for c in cells() if not options.names or any(n in _name(c) for n in options.names)]
    if not wanted:
        parser.error(f"there is no cell like {options.names[0]!r}.")
    missing = [
        c for c in wanted
        if options.again or not is_current(_name(c), {"options": c.options, "eps": EPS[c.norm]})
    ]  # fmt: skip
    print(f"{len(missing)} of {len(wanted)} cells are to be measured", flush=True)
    failed = 0
    for place, cell in enumerate(missing, start=1):
        made_with = sources(cell.who)
        try:
            record = measure(cell)
        except pictures.MissingPictures as error:
            print(error, file=sys.stderr)
            return 1
        except (RuntimeError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"{_name(cell)} failed: {error}", file=sys.stderr, flush=True)
            continue
        write(record, made_with=made_with)
        said = f"{record.rate:.1%} in {record.seconds:.0f} s"
        print(f"{place} of {len(missing)}, {record.name}: {said}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
