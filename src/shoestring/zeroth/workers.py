"""Workers that train together: each sends one number for a direction, never a gradient.

They hold the same parameters and draw the same directions, so what a step came to is all that they
have to tell each other. Sums are made in float64 in the order of ranks, on every worker alike: all
of them, and one worker that asks for the losses of all shards, end at the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
import torch.distributed as dist

from shoestring.core.errors import InputError
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.found import Found
from shoestring.zeroth.log import option_of

_MOST_ASPECTS: Final = 32
"""Things compared at most; a message is as long for any number of them."""


class Workers:
    """The workers of a process group, and what this one has sent them.

    Args:
        group: of torch.distributed; None for all processes.

    Attributes:
        rank: of this worker in the group.
        count: of workers.
        floats_sent: numbers that this worker has sent, each counted once however many receive it.
        bytes_sent: bytes that it has sent, those that compare workers included.

    Raises:
        InputError: torch.distributed has not been started, or this process is outside the group.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InputError(
                "torch.distributed has not been started.",
                hint="call torch.distributed.init_process_group, or start by torchrun.",
            )
        self.rank, self.count = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise InputError("this process is outside the group.", hint="make the group with it.")
        self.floats_sent = self.bytes_sent = 0
        self._group = group
        on_cpu = "cpu:" in dist.get_backend_config(group)
        self._device = torch.device("cpu" if on_cpu else "cuda")

    def gather(self, numbers: torch.Tensor) -> list[torch.Tensor]:
        """Return what each worker sends, in the order of ranks.

        Args:
            numbers: of one dimension, as many and of one dtype on all workers.
        """
        sent = numbers.to(self._device)
        received = [torch.empty_like(sent) for _ in range(self.count)]
        dist.all_gather(received, sent, group=self._group)
        self._count(numbers)
        return [part.to("cpu") for part in received]

    def broadcast(self, data: bytes, source: int, *, most_bytes: int) -> bytes:
        """Return the bytes that one worker sends to all.

        Args:
            data: what this worker sends, if it is the source; not empty.
            source: its rank in the group.
            most_bytes: that are taken.

        Raises:
            InputError: on all workers, where there are more.
        """
        size = int(self.gather(torch.tensor([len(data)]))[source])
        if size > most_bytes:
            raise InputError(
                f"worker {source} would send {size} bytes, and {most_bytes} are taken.",
                hint="begin with a later checkpoint.",
            )
        mine = self.rank == source
        sent = torch.frombuffer(bytearray(data), dtype=torch.uint8) if mine else None
        buffer = torch.empty(size, dtype=torch.uint8) if sent is None else sent
        buffer = buffer.to(self._device)
        dist.broadcast(buffer, group=self._group, group_src=source)
        if sent is not None:
            self._count(sent)
        return buffer.cpu().numpy().tobytes()

    def compare(self, aspects: Mapping[str, object]) -> None:
        """Raise the same error on all workers where one of them differs from the first.

        Args:
            aspects: what must be the same, by its name; what JSON can say.

        Raises:
            InputError: something differs.
        """
        assert len(aspects) <= _MOST_ASPECTS
        marks = [mark(value) for value in aspects.values()]
        whole = [int(found) for found in self.gather(torch.tensor([mark(marks)]))]
        if len(set(whole)) == 1:
            return
        marks += [0] * (_MOST_ASPECTS - len(marks))
        first, *others = (found.tolist() for found in self.gather(torch.tensor(marks)))
        differing = [
            (rank, name)
            for rank, theirs in enumerate(others, 1)
            for name, mine, other in zip(aspects, first, theirs, strict=False)
            if mine != other
        ]
        rank, name = differing[0]
        raise InputError(
            f"worker {rank} differs from worker 0 in {name}.",
            hint="give all workers the same weights, options and steps; rejoin brings one up.",
        )

    def _count(self, sent: torch.Tensor) -> None:
        self.floats_sent += sent.numel() if sent.is_floating_point() else 0
        self.bytes_sent += sent.nbytes


class AllGather:
    """Lets an optimizer step on what all workers found: data-parallel training by a few numbers.

    A step sends ``q + 2`` numbers of float64: one for each direction, what the batch counts, and a
    mark of step and options by which workers notice that they are no longer alike. At the first
    step options, weights and state are compared. Whatever differs, on whichever worker, is one and
    the same error on all of them. A worker whose batch counts 0 takes part and says nothing.

    Weights come from ``estimate(closure, weight=n)``, or from closures that return the loss of each
    sample; a closure that returns one number counts 1.

    Args:
        optimizer: whose attribute ``exchange`` this becomes.
        group: of torch.distributed; None for all processes.

    Raises:
        InputError: torch.distributed has not been started; on a step, the workers differ or a
            weight is negative.

    Source: Qin et al., Federated full-parameter tuning of billion-sized language models with
    communication cost under 18 kilobytes (2024), and Li et al., Achieving dimension-free
    communication in federated learning via zeroth-order optimization (2025), send scalars so.

    Example:
        >>> import torch.distributed as dist
        >>> from shoestring.zeroth import ZOSGD
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ZOSGD([x], lr=0.1)
        >>> opt.exchange = AllGather(opt)
        >>> for _ in range(100):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-3), opt.exchange.floats_sent
        (True, 300)
        >>> dist.destroy_process_group()
    """

    def __init__(self, optimizer: ZerothOrder, group: dist.ProcessGroup | None = None) -> None:
        self._optimizer, self._workers = optimizer, Workers(group)
        self._numbers = 0

    @property
    def floats_sent(self) -> int:
        """Numbers that this worker has sent."""
        return self._workers.floats_sent

    @property
    def bytes_sent(self) -> int:
        """Bytes that this worker has sent, those of comparing included."""
        return self._workers.bytes_sent

    def __call__(self, found: Found) -> list[Found]:
        """Return what each worker found, in the order of ranks.

        Args:
            found: by this worker.

        Raises:
            InputError: the workers differ, or a weight is negative.
        """
        now = self._now(len(found.deltas))
        if not self._numbers:
            self._workers.compare({**self._lasting(), **now, **self._bits()})
            self._numbers = len(found.deltas)
        # As long as agreed, or the others would wait for what does not come.
        deltas = [*found.deltas, *[math.nan] * self._numbers][: self._numbers]
        exact = mark(list(now.values())) >> 12  # float64 holds 53 bits
        message = torch.tensor([exact, found.weight, *deltas], dtype=torch.float64)
        sent = [numbers.tolist() for numbers in self._workers.gather(message)]
        if len({numbers[0] for numbers in sent}) > 1:
            self._workers.compare(now)
        parts = [Found(weight, tuple(deltas)) for _, weight, *deltas in sent]
        for rank, part in enumerate(parts):
            if not 0 <= part.weight < math.inf:
                raise InputError(
                    f"worker {rank} gives its batch the weight {part.weight}.",
                    hint="weights are numbers of samples, 0 or more.",
                )
        return parts

    def _lasting(self) -> dict[str, object]:
        """Return what stays the same in all steps."""
        log = self._optimizer.log
        kind = {"its optimizer": log.optimizer, "the shapes of parameters": log.shapes}
        return {**kind, "its groups": log.sizes, **log.options}

    def _now(self, numbers: int) -> dict[str, object]:
        """Return what may change from step to step, though on all workers alike."""
        groups = self._optimizer.param_groups
        counted = {"the numbers a step comes to": numbers, "steps made": groups[0]["draws"]}
        names = self._optimizer.log.names
        return {**counted, **{name: [option_of(g, name) for g in groups] for name in names}}

    def _bits(self) -> dict[str, object]:
        """Return digests of weights and state."""
        params = [p for group in self._optimizer.param_groups for p in group["params"]]
        kept = [self._optimizer.state.get(parameter, {}) for parameter in params]
        tensors = [entry[name] for entry in kept for name in sorted(entry)]
        with self._optimizer.unperturbed():
            weights = digest(params)
        state = digest(value for value in tensors if isinstance(value, torch.Tensor))
        return {"its weights": weights, "the optimizer's state": state}


def mark(value: object) -> int:
    """Return 64 bits that differ where values do.

    Args:
        value: what JSON can say.
    """
    data = json.dumps(value).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """Return a text that differs where the bits of tensors do.

    Args:
        tensors: in an order that counts, of any dtype and layout in memory.
    """
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        rows = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        found.update(rows.view(torch.uint8).numpy().data)
    return found.hexdigest()
