"""One of two processes: what a fitted model gives under the wrappers for several processes.

Usage: python -m tests.activations.remat.processes RANK FOLDER
"""

from __future__ import annotations

import copy
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from shoestring.activations.remat.fitting import fit, remove, schedules
from shoestring.core.errors import RefusedError
from tests.activations.remat.nets import WithLoss, transformer

SIZES = [(8, 32), (5, 17), (8, 9)]


def batch(rank: int, rows: int, length: int) -> torch.Tensor:
    """Return this process's own batch."""
    generator = torch.Generator().manual_seed(10 * rows + length + 1000 * rank)
    return torch.randn(rows, length, 8, generator=generator)


def gradients(wrapped: nn.Module, rank: int) -> list[torch.Tensor]:
    """Return the gradients of a few steps of different sizes, the last two of them summed."""
    found = []
    for number, (rows, length) in enumerate(SIZES):
        if number < len(SIZES) - 1:
            wrapped.zero_grad()
        torch.manual_seed(number)
        wrapped(batch(rank, rows, length)).backward()
        found += [p.grad.clone() for p in wrapped.parameters() if p.grad is not None]
    return found


def wrapped_in_ddp(rank: int) -> dict[str, object]:
    """Compare plain and fitted models under DistributedDataParallel."""
    torch.manual_seed(0)
    plain = WithLoss(transformer(0.1, depth=1))
    model = copy.deepcopy(plain)
    schedule = fit(model, batch(rank, 8, 32), activations="85%", cost="flops")
    found: dict[str, object] = {"overhead": schedule.overhead}
    for view in (False, True):
        options = {"bucket_cap_mb": 0.01, "gradient_as_bucket_view": view}
        theirs = gradients(DistributedDataParallel(copy.deepcopy(plain), **options), rank)
        mine = gradients(DistributedDataParallel(copy.deepcopy(model), **options), rank)
        same = len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))
        found[f"ddp {view}"] = same
    alone = gradients(copy.deepcopy(plain), rank)
    found["exchanged"] = not all(map(torch.equal, alone, theirs))
    found["captures"] = len(schedules(model))
    return found


def refused(call: Callable[[], object]) -> str:
    """Return how a call is refused; empty where it is not."""
    try:
        call()
    except RefusedError as error:
        return str(error)
    return ""


def sharded_by_fsdp(rank: int) -> dict[str, object]:
    """Fit sharded models, and shard fitted ones: the whole, and a part only."""
    found: dict[str, object] = {}
    x = batch(rank, 8, 32)
    for part in (False, True):
        torch.manual_seed(0)
        parts = (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Tanh()) for _ in range(4))
        plain = WithLoss(nn.Sequential(*parts))
        later = copy.deepcopy(plain)
        fully_shard(plain.network[1] if part else plain)
        found[f"fit after {part}"] = refused(lambda p=plain: fit(p, x, activations="85%"))
        fit(later, x, activations="85%", cost="flops")
        fully_shard(later.network[1] if part else later)
        found[f"fit before {part}"] = refused(lambda m=later: m(x))
        remove(later)
        later(x).backward()
    return found


def main(rank: int, folder: Path) -> None:
    """Run one process."""
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = sharded_by_fsdp(rank)
    try:
        found |= wrapped_in_ddp(rank)
    except Exception:  # noqa: BLE001 - whatever it is, a test says it
        found["error"] = traceback.format_exc()
    (folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
