"""First-order optimizers whose step makes no temporaries larger than a slice.

torch's for-loop form of Adam holds two temporaries of the size of each parameter while it
updates it; for an embedding table they can be the peak of the whole step. All of the
arithmetic is element by element, so the same torch routines run here on one slice of the
parameter, its gradient and its state after the other, and give the same bits. With
``fused=True`` torch's fused kernel runs on whole tensors, as it makes no temporaries.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypedDict, cast, overload

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from shoestring.core.errors import RefusedError

SLICE: Final = {"cpu": 1 << 18}
"""Elements of a slice by device type: on a CPU its tensors stay in the cache. A multiple of
64, so that every slice but the last fills whole vector registers, as the whole tensor does."""

DEVICE_SLICE: Final = 1 << 22
"""Elements of a slice on every other device, where launching a kernel is what costs."""

Closure: TypeAlias = Callable[[], float]


class AdamGroup(TypedDict):
    """The options of a parameter group of Adam and AdamW that the update reads."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool
    maximize: bool
    decoupled_weight_decay: bool
    fused: bool | None


class SGDGroup(TypedDict):
    """The options of a parameter group of SGD that the update reads."""

    lr: float
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool
    fused: bool | None


def slice_elements(device_type: str) -> int:
    """Return the number of elements of a slice on a type of device.

    Args:
        device_type: as in ``torch.device.type``.
    """
    return SLICE.get(device_type, DEVICE_SLICE)


def slices(tensors: Sequence[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    """Yield views of like-shaped tensors, piece by piece, that together cover them once.

    Args:
        tensors: tensors of one shape, of any strides.
        size: the most elements of a piece.

    Yields:
        One view of each tensor, of the same elements.
    """
    flat = _flat(tensors)
    if flat is not None:
        for start in range(0, flat[0].numel(), size):
            yield [view[start : start + size] for view in flat]
        return
    pending = [list(tensors)]
    while pending:
        part = pending.pop()
        if part[0].numel() <= size:
            yield part
            continue
        dim = max(range(part[0].dim()), key=part[0].size)
        half = part[0].size(dim) // 2
        rest = part[0].size(dim) - half
        pending.append([tensor.narrow(dim, half, rest) for tensor in part])
        pending.append([tensor.narrow(dim, 0, half) for tensor in part])


def _flat(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    """Return 1-d views in the order of memory; None where the tensors share no dense order."""
    first = tensors[0]
    order = sorted(range(first.dim()), key=first.stride, reverse=True)
    ordered = [tensor.permute(order) for tensor in tensors]
    if not all(tensor.is_contiguous() for tensor in ordered):
        return None
    return [tensor.view(-1) for tensor in ordered]


def _parts(tensors: list[torch.Tensor], *, fused: bool) -> Iterator[list[torch.Tensor]]:
    """Yield the slices of an update; all at once for a fused kernel, which needs none."""
    # A slice of a sharded tensor is a copy. The update is element by element, so each process
    # makes it on the part that it holds.
    tensors = [_held_here(tensor) for tensor in tensors]
    if fused:
        yield tensors
    else:
        yield from slices(tensors, slice_elements(tensors[0].device.type))


def _held_here(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that this process holds: all of it, unless it is sharded."""
    local: Callable[[], torch.Tensor] | None = getattr(tensor, "to_local", None)
    return tensor if local is None else local()


class SlicedOptimizer(torch.optim.Optimizer, abc.ABC):
    """What the sliced forms share: it stays the torch class, with another `step`."""

    @abc.abstractmethod
    def update(self, param: torch.Tensor, group: dict[str, object]) -> None:
        """Update one parameter and its state from ``param.grad``, slice by slice.

        Args:
            param: a parameter with a gradient.
            group: the parameter group it belongs to.
        """

    def check(self, group: dict[str, object]) -> None:
        """Refuse options of a group that the sliced update cannot honour.

        Args:
            group: a parameter group.

        Raises:
            RefusedError: the group is capturable or differentiable.
        """
        for option in ("capturable", "differentiable"):
            if group.get(option):
                raise RefusedError(
                    f"{type(self).__name__} does not work with {option}=True.",
                    hint=f"leave {option} out, or use torch's own class.",
                )

    def refuse_scaler(self, hint: str) -> None:
        """Refuse to step where a GradScaler left unscaling to the optimizer.

        Args:
            hint: what to do instead.

        Raises:
            RefusedError: a GradScaler is at work.
        """
        marks = [self.__dict__.pop(name, None) for name in ("grad_scale", "found_inf")]
        if any(mark is not None for mark in marks):
            raise RefusedError(
                f"{type(self).__name__} does not unscale gradients for GradScaler.", hint=hint
            )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure) -> float: ...

    def step(self, closure: Closure | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the loss once, with gradients enabled.

        Returns:
            The closure's loss, or None.
        """
        self.refuse_scaler("build it without fused=True, then GradScaler unscales by itself.")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                self.check(group)
                for param in group["params"]:
                    if param.grad is not None:
                        self.update(param, group)
        return loss


class SlicedAdam(SlicedOptimizer, torch.optim.Adam):
    """`torch.optim.Adam`, stepped slice by slice; every option and state key is Adam's."""

    def update(self, param: torch.Tensor, group: dict[str, object]) -> None:
        """Update one parameter and its state from ``param.grad``, slice by slice.

        Args:
            param: a parameter with a gradient.
            group: the parameter group it belongs to.

        Raises:
            RuntimeError: the gradient is sparse.
        """
        options = cast(AdamGroup, group)
        grad = param.grad
        assert grad is not None
        if grad.is_sparse:
            raise RuntimeError(
                "Adam does not support sparse gradients, please consider SparseAdam instead"
            )
        state = self.state[param]
        if not state:
            _start_adam(state, param, options)
        tensors = [param, grad, state["exp_avg"], state["exp_avg_sq"]]
        if options["amsgrad"]:
            tensors.append(state["max_exp_avg_sq"])
        fused = bool(options["fused"])
        before = state["step"] if fused else state["step"].cpu()
        for part in _parts(tensors, fused=fused):
            adam(
                [part[0]],
                [part[1]],
                [part[2]],
                [part[3]],
                part[4:],
                [before.clone()],  # each slice counts the same step
                foreach=False,
                fused=fused,
                amsgrad=options["amsgrad"],
                beta1=options["betas"][0],
                beta2=options["betas"][1],
                lr=options["lr"],
                weight_decay=options["weight_decay"],
                eps=options["eps"],
                maximize=options["maximize"],
                decoupled_weight_decay=options["decoupled_weight_decay"],
            )
        state["step"] += 1


class SlicedAdamW(SlicedAdam, torch.optim.AdamW):
    """`torch.optim.AdamW`, stepped slice by slice; every option and state key is AdamW's."""


class SlicedSGD(SlicedOptimizer, torch.optim.SGD):
    """`torch.optim.SGD`, stepped slice by slice; every option and state key is SGD's."""

    def update(self, param: torch.Tensor, group: dict[str, object]) -> None:
        """Update one parameter and its state from ``param.grad``, slice by slice.

        Args:
            param: a parameter with a gradient.
            group: the parameter group it belongs to.
        """
        options = cast(SGDGroup, group)
        grad = param.grad
        assert grad is not None
        if grad.is_sparse:  # nothing to cut: torch's update touches only the rows given
            self._update_sparse(param, grad, options)
            return
        buffer = None
        started = False
        tensors = [param, grad]
        if options["momentum"] != 0:
            buffer = self.state[param].get("momentum_buffer")
            started = buffer is not None
            if buffer is None:
                buffer = torch.empty_like(grad)
            tensors.append(buffer)
        fused = bool(options["fused"]) and not _fused_sgd_is_wrong(param, options)
        for part in _parts(tensors, fused=fused):
            buffers = [part[2] if started else None]
            _sgd(part[0], part[1], buffers, options, fused=fused)
            if buffer is not None and not started:
                first = buffers[0]
                assert first is not None
                part[2].copy_(first)
        if buffer is not None:
            self.state[param]["momentum_buffer"] = buffer

    def _update_sparse(self, param: torch.Tensor, grad: torch.Tensor, options: SGDGroup) -> None:
        buffers: list[torch.Tensor | None] = [None]
        if options["momentum"] != 0:
            buffers = [self.state[param].get("momentum_buffer")]
        _sgd(param, grad, buffers, options, fused=False)
        if options["momentum"] != 0:
            self.state[param]["momentum_buffer"] = buffers[0]


def _start_adam(state: dict[str, torch.Tensor], param: torch.Tensor, group: AdamGroup) -> None:
    """Make the state as torch's Adam makes it at a parameter's first step."""
    if group["fused"]:
        state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
    else:
        double = torch.get_default_dtype() is torch.float64
        state["step"] = torch.tensor(0.0, dtype=torch.float64 if double else torch.float32)
    names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * bool(group["amsgrad"])
    for name in names:
        state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)


def _fused_sgd_is_wrong(param: torch.Tensor, group: SGDGroup) -> bool:
    """Return whether torch's fused kernel spoils the momentum buffer.

    torch 2.13's does on the CPU in bfloat16 and float16: from the second step on the buffer
    holds memory that was never written, and two like runs differ.
    """
    half = param.dtype in (torch.bfloat16, torch.float16)
    return half and param.device.type == "cpu" and group["momentum"] != 0


def _sgd(
    param: torch.Tensor,
    grad: torch.Tensor,
    buffers: list[torch.Tensor | None],
    group: SGDGroup,
    *,
    fused: bool,
) -> None:
    sgd(
        [param],
        [grad],
        buffers,
        has_sparse_grad=grad.is_sparse,
        foreach=False,
        fused=fused,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
    )
