"""What each worker does in ``test_workers.py``: train on a shard, and meet workers that differ."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import ZOSGD, ZOAdam, ZOSign
from shoestring.zeroth.catch_up import rejoin
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.marina import ZOMarina
from shoestring.zeroth.workers import AllGather, Workers
from tests.zeroth.processes import forks, meet

SHARDS = {2: [11, 5], 4: [5, 9, 2, 0]}
STEPS = 5


@dataclasses.dataclass
class Case:
    """An optimizer, and on what it trains.

    Attributes:
        make: builds it.
        dtype: of the parameters.
        bad: (step, worker) at which a loss is not a number.
    """

    make: Callable[[nn.Module], ZerothOrder]
    dtype: torch.dtype = torch.float32
    bad: tuple[int, int] | None = None


CASES = {
    "plain": Case(lambda m: ZOSGD(m.parameters(), lr=0.01)),
    "three": Case(lambda m: ZOSGD(m.parameters(), lr=0.01, q=3, seed=5)),
    "one-sided": Case(lambda m: ZOSGD(m.parameters(), lr=0.01, q=2, two_sided=False)),
    "pending": Case(lambda m: ZOSGD(m.parameters(), lr=0.01, pending=True)),
    "momentum": Case(lambda m: ZOSGD(m.parameters(), lr=0.01, momentum=0.9)),
    "adam": Case(lambda m: ZOAdam(m.parameters(), lr=0.01)),
    "gaussian": Case(lambda m: ZOSGD(m.parameters(), lr=0.01, directions="gaussian")),
    "bfloat16": Case(lambda m: ZOSGD(m.parameters(), lr=0.01, q=3), torch.bfloat16),
    "not a number": Case(lambda m: ZOSGD(m.parameters(), lr=0.01), bad=(2, 1)),
}


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return a small network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def batch(step: int) -> torch.Tensor:
    """Return the samples of a step, of all workers."""
    return torch.randn(24, 6, generator=torch.Generator().manual_seed(step))


def losses(model: nn.Module, rows: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a closure that returns the loss of each sample; of no sample, an empty tensor."""
    dtype = next(model.parameters()).dtype
    return lambda: (model(rows.to(dtype)).float() - rows[:, :3]).square().mean(1)


def on_shard(case: Case, model: nn.Module, step: int, worker: int, shards: list[int]) -> object:
    """Return the closure of a worker."""
    rows = batch(step)[: sum(shards)].split(shards)[worker]
    if case.bad == (step, worker):
        return lambda: torch.full((len(rows),), math.nan)
    return losses(model, rows)


def kept(model: nn.Module, optimizer: ZerothOrder) -> dict[str, object]:
    """Return what is compared in the end."""
    with optimizer.unperturbed():
        weights = [parameter.detach().clone() for parameter in model.parameters()]
    return {"weights": weights, "deltas": optimizer.log.deltas}


def train(name: str, rank: int, shards: list[int], group: object = None) -> dict[str, object]:
    """Train on this worker's shard."""
    case = CASES[name]
    model = net(case.dtype)
    optimizer = case.make(model)
    optimizer.exchange = exchange = AllGather(optimizer, group)
    for step in range(STEPS):
        closure = on_shard(case, model, step, rank, shards)
        if step % 2 and shards[rank]:
            optimizer.step(closure)  # counts its samples
        else:
            optimizer.estimate(closure, weight=shards[rank])
            optimizer.step()
    sent = {"floats": exchange.floats_sent, "bytes": exchange.bytes_sent}
    return {**kept(model, optimizer), **sent}


def alone(name: str, shards: list[int]) -> dict[str, object]:
    """Train in one process that asks for the losses of each shard."""
    case = CASES[name]
    model = net(case.dtype)
    optimizer = case.make(model)
    for step in range(STEPS):
        for worker, samples in enumerate(shards):
            if samples:
                closure = on_shard(case, model, step, worker, shards)
                optimizer.estimate(closure, weight=samples)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if case.bad else "error")
            optimizer.step()
    return kept(model, optimizer)


# --- workers that differ ---------------------------------------------------------------------


def differing(name: str, rank: int) -> None:
    """Train where one worker differs from the others."""
    model = net()
    odd = rank == 1
    options: dict[str, object] = {"lr": 0.01, "momentum": 0.9}
    options |= (
        {
            "seed": {"seed": 1},
            "directions": {"directions": "rank1"},
            "q": {"q": 2},
            "lr": {"lr": 0.02},
        }.get(name, {})
        if odd
        else {}
    )
    kind = ZOSign if odd and name == "its optimizer" else ZOSGD
    optimizer = kind(model.parameters(), **options)
    if odd:
        _spoil(name, model, optimizer)
    optimizer.exchange = AllGather(optimizer)
    for step in range(4):
        if odd and step == 2 and name.endswith("later"):
            setting = {"lr later": {"lr": 0.02}, "q later": {"q": 2}}[name]
            optimizer.param_groups[0].update(setting)
        weight = -1.0 if odd and name == "weight" and step == 2 else None
        optimizer.estimate(losses(model, batch(step)[:4]), weight=weight)
        optimizer.step()


def _spoil(name: str, model: nn.Sequential, optimizer: ZerothOrder) -> None:
    if name == "its weights":
        with torch.no_grad():
            model[2].bias[1] += 2.0**-10
    elif name == "the optimizer's state":
        optimizer.state[model[2].bias]["momentum_buffer"][0] = 1e-30
    elif name == "steps made":
        optimizer.repeat((0.0,), (0.01, 1e-3, 0.0, 0.9))
    elif name == "the numbers a step comes to":
        probe = optimizer._probe
        optimizer._probe = lambda asking: [*probe(asking), 0.0]


DIFFERING = {
    "seed": "seed",
    "directions": "directions",
    "q": "q",
    "lr": "lr",
    "its optimizer": "its optimizer",
    "its weights": "its weights",
    "the optimizer's state": "the optimizer's state",
    "steps made": "steps made",
    "the numbers a step comes to": "the numbers a step comes to",
    "lr later": "lr",
    "q later": "the numbers a step comes to",
    "weight": "",
}
"""Where a worker differs -> what the error calls it."""


def words(call: Callable[[], object]) -> str:
    """Return what an error says."""
    try:
        call()
    except InputError as error:
        return error.message
    return "no error"


# --- catching up and MARINA ------------------------------------------------------------------


def behind(steps: Iterable[int], rank: int, *, seed: int = 0, start: int = 0) -> dict[str, object]:
    """Make as many steps as is said of each worker, and then catch up together."""
    model = net()
    optimizer = ZOSGD(model.parameters(), lr=0.01, momentum=0.9, seed=seed)
    count = list(steps)[rank]
    for step in range(count):
        if step == start > 0:  # as from a checkpoint: the log begins here
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step(losses(model, batch(step)))
    made = rejoin(optimizer)
    return {**kept(model, optimizer), "made": made}


MARINA = {
    "plain": (torch.float32, {"lr": 0.05, "coords": 9}),
    "bfloat16": (torch.bfloat16, {"lr": 0.05, "coords": 9, "eps": 0.05, "momentum": 0.5}),
    "float64": (torch.float64, {"lr": 0.05, "coords": 30, "probability": 0.5}),
}
MARINA_SHARDS = {2: [11, 5], 4: [5, 9, 2, 4]}


def marina(name: str, ranks: list[int], count: int) -> dict[str, object]:
    """Make rounds of some workers."""
    dtype, options = MARINA[name]
    model = net(dtype)
    optimizer = ZOMarina(model.parameters(), **options)
    optimizer.workers = Workers() if len(ranks) == 1 else None
    shards = MARINA_SHARDS[count]
    rows = batch(0)[: sum(shards)].split(shards)
    closures = [losses(model, rows[rank]) for rank in ranks]
    for _ in range(4):
        optimizer.step(closures if len(closures) > 1 else closures[0])
    return {
        "weights": [parameter.detach().clone() for parameter in model.parameters()],
        "evaluations": optimizer.evaluations,
        "floats": optimizer.floats_sent,
        "sent": optimizer.workers.floats_sent if optimizer.workers else 0,
    }


def marina_differing(rank: int) -> None:
    """Make a round where one worker has another seed."""
    optimizer = ZOMarina(net().parameters(), seed=int(rank == 1))
    optimizer.workers = Workers()
    optimizer.step(lambda: 1.0)


def work(rank: int, count: int, folder: Path) -> None:
    """Do all that a worker does, and save what was found."""
    meet(folder / f"{count}.store", rank, count)
    shards = SHARDS[count]
    found: dict[str, object] = {f"train {name}": train(name, rank, shards) for name in CASES}
    found |= {f"marina {name}": marina(name, [rank], count) for name in MARINA}
    found |= {
        f"differing {name}": words(lambda name=name: differing(name, rank)) for name in DIFFERING
    }
    found["marina differing"] = words(lambda: marina_differing(rank))
    data = b"abc" if rank == 1 else b""
    found["sent"] = Workers().broadcast(data, 1, most_bytes=3).decode()
    found["too long"] = words(lambda: Workers().broadcast(data, 1, most_bytes=2))
    if count == 4:
        found["behind"] = behind([4, 1, 3, 4], rank)
        found["too far"] = words(lambda: behind([4, 1, 4, 4], rank, start=2))
        found["another"] = words(lambda: behind([3, 1, 3, 3], rank, seed=int(rank == 1)))
        group = dist.new_group([1, 2, 3])
        if rank:
            found["group"] = train("plain", rank - 1, [9, 2, 4], group)
        else:
            found["outside"] = words(lambda: Workers(group))
    torch.save(found, folder / f"{count}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path) -> None:
    """Run two workers, and then four."""
    alone("plain", SHARDS[4])  # compiles what all of them need
    for count in SHARDS:
        with forks() as fork:
            for rank in range(count):
                fork(functools.partial(work, rank, count, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
