"""Run every technique on two processes, with and without a plan; write what came of it.

Called by ``test_distributed.py`` as
``python -m tests.integrations.two_processes PART RANK FOLDER``; the parts are ``plans`` and
``large``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from shoestring.core.errors import RefusedError
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.optim import SlicedStep
from shoestring.planner.batches import with_row_sizes
from shoestring.planner.plan import Plan
from shoestring.planner.profiling import profile
from tests.integrations.planned import (
    ADAMW,
    SGD,
    TECHNIQUES,
    language_model,
    plan_of,
    tokens,
    weights,
)

STEPS = 2
PREDICTED: tuple[tuple[str, ...], ...] = (
    (),
    ("sliced-step",),
    ("remat", "chunked-loss", "sliced-step"),
    ("micro-batches",),
    ("remat", "chunked-loss", "sliced-step", "micro-batches"),
)
"""Techniques whose step together is predicted."""
OTHERS: dict[str, dict[str, int]] = {
    "unused": {"unused": True},
    "accumulated": {"accumulate": 2},
    "zeroed": {"set_to_none": False},
    "accumulated and zeroed": {"accumulate": 2, "set_to_none": False},
}
"""Other steps that are predicted."""

Gradients = dict[str, torch.Tensor]


def ddp(model: nn.Module, plan: Plan, *, late: bool = False, **options: bool) -> nn.Module:
    """Wrap a model, and apply a plan before or afterwards."""
    if not late:
        plan.apply(model)
    wrapped = DistributedDataParallel(model, **options)
    if late:
        plan.apply(model)
    return wrapped


def fsdp2(model: nn.Module, plan: Plan, *, late: bool = False, head: bool = False) -> nn.Module:
    """Shard a model, and apply a plan before or afterwards."""
    if not late:
        plan.apply(model)
    for block in [*model.model.layers, *([model.lm_head] if head else [])]:
        fully_shard(block)
    fully_shard(model)
    if late:
        plan.apply(model)
    return model


@contextlib.contextmanager
def synchronised(model: nn.Module, last: bool) -> Iterator[None]:
    """Exchange gradients in the last part's backward only."""
    if isinstance(model, DistributedDataParallel):
        with contextlib.nullcontext() if last else model.no_sync():
            yield
    else:
        model.set_requires_gradient_sync(last)
        yield


def train(
    plan: Plan, wrap: Callable[..., nn.Module], **options: bool
) -> tuple[Gradients, Gradients]:
    """Return the gradients of the first step, and the weights after the last."""
    plain = language_model()
    model = wrap(plain, plan, **options)
    optimizer = plan.optimizer(plain.parameters(), **SGD.keywords)
    gradients: Gradients = {}
    for step in range(STEPS):
        parts = list(plan.split(tokens(10 * step + dist.get_rank())))
        with plan.context():
            for number, (part, weight) in enumerate(parts, 1):
                with synchronised(model, number == len(parts)):
                    (weight * model(**part).loss).backward()
        if not step:
            for name, parameter in plain.named_parameters():
                if parameter.grad is not None:
                    grad = parameter.grad
                    gradients[name] = getattr(grad, "full_tensor", grad.clone)().clone()
        optimizer.step()
        optimizer.zero_grad()
    return gradients, weights(plain)


def compare(
    wrap: Callable[..., nn.Module], names: tuple[str, ...], **options: bool
) -> dict[str, object]:
    """Say how a plan's gradients and weights differ from those of the same run without it."""
    expected = train(plan_of(optimizer=SGD), wrap, **options)
    try:
        got = train(plan_of(*names, optimizer=SGD), wrap, **options)
    except RefusedError as error:
        return {"refused": error.message}
    found: dict[str, object] = {}
    for kind, one, other in zip(("gradients", "weights"), expected, got, strict=True):
        found[kind] = one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
        largest = max(float(t.abs().max()) for t in one.values())
        gap = max(float((one[n] - other[n]).abs().max()) for n in one)
        found[f"{kind} apart"] = gap / largest
    return found


def buckets_of(model: DistributedDataParallel) -> dict[int, torch.Tensor]:
    """Let a model tell of its buckets, which Python does not see otherwise."""
    seen: dict[int, torch.Tensor] = {}

    def average(state, bucket):  # torch compares annotations, which are texts here
        seen[bucket.index()] = bucket.buffer()
        buffer = bucket.buffer().div_(dist.get_world_size())
        work = dist.all_reduce(buffer, async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    model.register_comm_hook(None, average)
    return seen


def memory(rows: int, length: int, **options: bool) -> dict[str, int]:
    """Measure what DistributedDataParallel adds to a step, in this process."""
    found: dict[str, int] = {}
    batch = tokens(dist.get_rank(), rows, length)
    for kind in ("plain", "ddp"):
        model = language_model()
        called = model if kind == "plain" else DistributedDataParallel(model, **options)
        seen = buckets_of(called) if isinstance(called, DistributedDataParallel) else {}
        optimizer = torch.optim.AdamW(model.parameters())

        def step(called: nn.Module = called, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            called(**batch).loss.backward()
            optimizer.step()

        for _ in range(3):  # buckets are made anew after the first step
            step()
        optimizer.zero_grad()
        roots = [*standing(model, batch, optimizer), *seen.values()]
        found[kind] = measure_step(step, roots=lambda roots=roots: roots).peak
        found["buckets"] = sum(t.untyped_storage().nbytes() for t in seen.values())
        found["trainable"] = sum(p.numel() * p.element_size() for p in model.parameters())
    return found


def predicted(
    names: tuple[str, ...] = (),
    *,
    unused: bool = False,
    accumulate: int = 1,
    set_to_none: bool = True,
    **options: bool,
) -> dict[str, int]:
    """Measure the step of a plan in a wrapped model, and predict it from the wrapper."""
    batch = tokens(dist.get_rank())
    model = language_model()
    if unused:
        model.extra = nn.Linear(300, 400)
    called = DistributedDataParallel(model, find_unused_parameters=unused, **options)
    seen = buckets_of(called)
    prof = profile(called, batch, optimizer=ADAMW, accumulate=accumulate, set_to_none=set_to_none)
    steps = sorted((TECHNIQUES[name] for name in names), key=lambda t: t.slot)
    changed = with_row_sizes(prof) if "micro-batches" in names else prof
    for technique in steps:
        assert not technique.refuse(changed)
        changed = technique.predict(changed)
    plan = dataclasses.replace(plan_of(*names), fingerprint=prof.step.fingerprint)
    plan.apply(called)
    optimizer = plan.optimizer(model.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none)
        parts = list(plan.split(batch)) * accumulate
        for number, (part, weight) in enumerate(parts, 1):
            with synchronised(called, number == len(parts)):
                (weight * called(**part).loss).backward()
        optimizer.step()

    for _ in range(3):
        step()
    optimizer.zero_grad(set_to_none)
    roots = [*standing(model, batch, optimizer, gradients=not set_to_none), *seen.values()]
    measured = measure_step(step, roots=lambda: roots).peak
    return {"measured": measured, "predicted": changed.peak, "ddp": len(changed.step.ddp)}


def large_parameter() -> dict[str, object]:
    """Whether a sharded parameter larger than a slice is trained as without slices."""
    trained = []
    for sliced in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(1024, 512)
        start = layer.weight.detach().clone()
        fully_shard(layer)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(layer.parameters())
        if sliced:
            optimizer = SlicedStep().make_optimizer(optimizer)
        layer(torch.ones(2, 1024)).square().mean().backward()
        optimizer.step()
        trained.append(layer.weight.full_tensor().detach())
    return {
        "same": torch.equal(*trained),
        "moved": not torch.equal(trained[1], start),
    }


def plans() -> dict[str, object]:
    """Run everything about plans, in an order that all processes share."""
    found: dict[str, object] = {}
    for kind, wrap in (("ddp", ddp), ("fsdp2", fsdp2)):
        for name in TECHNIQUES:
            found[f"{kind} {name}"] = compare(wrap, (name,))
        for name in ("remat", "chunked-loss"):
            found[f"{kind}, applied after, {name}"] = compare(wrap, (name,), late=True)
    exact = ("remat", "chunked-loss", "sliced-step", "micro-batches")
    found["ddp together"] = compare(ddp, exact)
    found["ddp together, as views"] = compare(ddp, exact, gradient_as_bucket_view=True)
    found["ddp unused"] = compare(ddp, exact[:3], find_unused_parameters=True)
    found["ddp static"] = compare(ddp, exact[:3], static_graph=True)
    found["fsdp2 head"] = compare(fsdp2, ("chunked-loss",), head=True)
    found["fsdp2 head, applied after"] = compare(fsdp2, ("chunked-loss",), head=True, late=True)
    found["fsdp2 together"] = compare(fsdp2, ("remat", "sliced-step", "micro-batches", "offload"))
    for view in (False, True):
        for rows, length in ((8, 32), (1, 4)):
            found[f"memory {rows} {view}"] = memory(rows, length, gradient_as_bucket_view=view)
    for view in (False, True):
        for names in PREDICTED:
            case = f"predicted {' '.join(names)} {view}"
            found[case] = predicted(names, gradient_as_bucket_view=view)
        for case, more in OTHERS.items():
            found[f"predicted {case} {view}"] = predicted(gradient_as_bucket_view=view, **more)
    return found


def main() -> None:
    """Join the other process, run, and write the results down."""
    part, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=2,
        timeout=dt.timedelta(seconds=60),
    )
    found = plans() if part == "plans" else large_parameter()
    (folder / f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    # Who leaves first closes connections that the other may still read from.
    deadline = time.monotonic() + 60
    while not (folder / f"{1 - rank}.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()  # wrappers go before the group that they use
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
