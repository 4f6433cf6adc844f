"""What ``test_catch_up.py`` tells: a worker is killed, the others go on, and it comes back."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from shoestring.core.documents import write_text
from shoestring.zeroth import ZOSGD
from shoestring.zeroth.catch_up import rejoin
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.workers import AllGather
from tests.zeroth.processes import forks, meet, wait_for
from tests.zeroth.workers_program import alone, batch, kept, losses, net

SHARDS = [5, 9, 2, 4]
KILLED = 2
LOST, BACK, END = 4, 8, 12
"""Steps before which the worker is killed, is back, and the run ends."""


def begin() -> tuple[nn.Module, ZerothOrder]:
    """Return what every worker begins with."""
    model = net()
    return model, ZOSGD(model.parameters(), lr=0.02, q=2, momentum=0.5)


def step(model: nn.Module, optimizer: ZerothOrder, number: int, worker: int) -> None:
    """Make a step on a worker's shard."""
    optimizer.step(losses(model, batch(number)[: sum(SHARDS)].split(SHARDS)[worker]))


def join(optimizer: ZerothOrder, store: Path, members: list[int], worker: int) -> int:
    """Form a group, and bring all in it to the same step."""
    meet(store, members.index(worker), len(members))
    made = rejoin(optimizer)
    optimizer.exchange = AllGather(optimizer)
    return made


def work(worker: int, folder: Path, *, returned: bool) -> None:
    """Be a worker, from the first step or from its return on."""
    model, optimizer = begin()
    everyone = list(range(4))
    if not returned:
        join(optimizer, folder / "first", everyone, worker)
        for number in range(LOST):
            step(model, optimizer, number, worker)
        if worker == KILLED:
            hang(model, optimizer, folder)
        try:
            step(model, optimizer, LOST, worker)
        except RuntimeError:  # gloo's, of a connection that was closed
            dist.destroy_process_group()
        wait_for(folder / "alive")
        alive = json.loads((folder / "alive").read_text())
        join(optimizer, folder / "second", alive, worker)
        for number in range(LOST, BACK):
            step(model, optimizer, number, worker)
        dist.destroy_process_group()
    made = join(optimizer, folder / "third", everyone, worker)
    for number in range(BACK, END):
        step(model, optimizer, number, worker)
    torch.save({**kept(model, optimizer), "made": made}, folder / f"{worker}.pt")
    dist.barrier()
    dist.destroy_process_group()


def hang(model: nn.Module, optimizer: ZerothOrder, folder: Path) -> None:
    """Be in the middle of a step, with weights perturbed, until the end."""

    def closure() -> float:
        (folder / "here").touch()
        time.sleep(1000)
        return 0.0

    optimizer.step(closure)


def reference() -> dict[str, object]:
    """Make the run in one process, with the members that there were at each step."""
    model, optimizer = begin()
    for number in range(END):
        shards = batch(number)[: sum(SHARDS)].split(SHARDS)
        for worker, rows in enumerate(shards):
            if worker != KILLED or not LOST <= number < BACK:
                optimizer.estimate(losses(model, rows))
        optimizer.step()
    return kept(model, optimizer)


def main(folder: Path) -> None:
    """Start four workers, kill one, and start it again."""
    alone("plain", SHARDS)  # compiles what all of them need
    with forks() as fork:
        ids = [fork(functools.partial(work, k, folder, returned=False)) for k in range(4)]
        wait_for(folder / "here")
        os.kill(ids[KILLED], signal.SIGKILL)
        os.waitid(os.P_PID, ids[KILLED], os.WEXITED | os.WNOWAIT)
        alive = [k for k in range(4) if k != KILLED]
        write_text(folder / "alive", json.dumps(alive))
        fork(functools.partial(work, KILLED, folder, returned=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
