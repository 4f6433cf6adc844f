"""First-order optimizers that consume each gradient as it arises in backward.

As soon as a parameter's gradient is complete, a hook updates the parameter and frees the
gradient, so that all gradients are never alive at once. The trajectory is the plain one's,
bit for bit, where there is one backward pass a step and nothing needs gradients between
backward and step; what reads them all the same raises.
"""

from __future__ import annotations

import dataclasses
import weakref
from typing import NoReturn, overload

import torch
from torch.utils.hooks import RemovableHandle

from shoestring.core.errors import RefusedError
from shoestring.optim._torch import accumulate_hooks
from shoestring.optim.sliced import (
    Closure,
    SlicedAdam,
    SlicedAdamW,
    SlicedOptimizer,
    SlicedSGD,
)
from shoestring.optim.taken import ONE_BACKWARD, TakenGradient


@dataclasses.dataclass(frozen=True, slots=True)
class Consume:
    """The hook of one parameter.

    It holds its optimizer weakly: an optimizer that is dropped leaves a plain model.

    Attributes:
        optimizer: the optimizer that it steps.
        group: index of the parameter's group.
    """

    optimizer: weakref.ReferenceType[ReleasedOptimizer]
    group: int

    def __call__(self, param: torch.Tensor) -> None:
        """Update the parameter and free its gradient.

        Args:
            param: a parameter whose gradient was just accumulated.
        """
        optimizer = self.optimizer()
        if optimizer is not None:
            optimizer.consume(param, self.group)


class ReleasedOptimizer(SlicedOptimizer):
    """What the released forms share: hooks on the parameters, and a step that only finishes.

    Learning rates and other options are read while backward runs; a scheduler that steps
    after the optimizer therefore works as usual. Between ``backward()`` and ``step()`` every
    ``param.grad`` is a `TakenGradient`, which raises where it is read. After an exception in the
    middle of a backward some parameters are updated and others not: the next backward, or
    ``zero_grad()``, says how many.

    ``copy.deepcopy`` and pickle give a released optimizer of the copied parameters, with
    hooks of its own; a shallow copy is refused, as two optimizers would take each gradient.
    """

    def add_param_group(self, param_group: dict[str, object]) -> None:
        """Add a group of parameters, and watch their gradients.

        Args:
            param_group: as for torch's optimizers.
        """
        super().add_param_group(param_group)
        self._watch()

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_closed": self.closed, "_done": [*self._consumed()]}

    def __setstate__(self, state: dict[str, object]) -> None:
        done = state.get("_done")
        super().__setstate__(state)
        # load_state_dict passes through here too, and begins a step afresh.
        self.__dict__["_done"] = dict.fromkeys(done if isinstance(done, list) else ())
        if not self._consumed():
            self._forget()
        self._watch()

    def __copy__(self) -> NoReturn:
        raise RefusedError(
            f"a {type(self).__name__} cannot be copied without its parameters.",
            hint="use copy.deepcopy((model, optimizer)).",
        )

    @property
    def closed(self) -> bool:
        """Whether `close` was called: it then steps as the sliced form does."""
        return bool(self.__dict__.get("_closed", False))

    @property
    def pending(self) -> int:
        """How many parameters backward has updated since the last `step`."""
        return len(self._consumed())

    def close(self) -> None:
        """Remove every hook; from now on gradients wait for `step`, as plain ones do."""
        self.__dict__["_closed"] = True
        for handle in self._handles().values():
            handle.remove()
        self._handles().clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free what gradients there are; those that came in backward are gone already.

        Args:
            set_to_none: as for torch's optimizers.

        Raises:
            RefusedError: backward has run and `step` has not, so that the gradients, which
                this call should discard, are in the parameters already.
        """
        if self.pending:
            self._refuse("zero_grad() cannot take back gradients that backward has applied")
        super().zero_grad(set_to_none)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure) -> float: ...

    def step(self, closure: Closure | None = None) -> float | None:
        """Finish the step: update parameters whose gradient came through no hook.

        Args:
            closure: evaluates the loss and calls backward once, with gradients enabled.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._forget()
        with torch.no_grad():
            for group in self.param_groups:
                self.check(group)
                for param in group["params"]:
                    if param.grad is None:
                        continue
                    if param in self._consumed():
                        self._refuse("a parameter got a second gradient in one step")
                    self.update(param, group)
                    if not self.closed:
                        param.grad = None
        self._consumed().clear()
        self._watch()
        return loss

    def consume(self, param: torch.Tensor, group_index: int) -> None:
        """Update a parameter from the gradient that backward has just completed, and free it.

        Args:
            param: the parameter.
            group_index: the index of its group.

        Raises:
            RefusedError: the gradient is the second one of a step, is itself differentiable,
                or is not yet summed over processes.
        """
        grad = param.grad
        if grad is None:
            return
        if param in self._consumed():
            param.grad = None  # so that step() can go on from the parameters as they are
            self._refuse("a parameter got a second gradient in one step")
        if grad.requires_grad:
            raise RefusedError(
                f"{type(self).__name__} does not work with backward(create_graph=True).",
                hint="use sliced-step, which keeps gradients until step().",
            )
        if _processes() > 1:
            raise RefusedError(
                f"{type(self).__name__} would use gradients before they are summed over "
                f"{_processes()} processes.",
                hint="use sliced-step.",
            )
        group = self.param_groups[group_index]
        self.check(group)
        with torch.no_grad():
            self.update(param, group)
        param.grad = TakenGradient(param)
        self._consumed()[param] = None

    def _refuse(self, what: str) -> NoReturn:
        total = sum(len(group["params"]) for group in self.param_groups)
        raise RefusedError(
            f"{what}: {self.pending} of {total} parameters are updated already and wait for "
            f"{type(self).__name__}.step().",
            hint=ONE_BACKWARD,
        )

    def _watch(self) -> None:
        """Hook each trainable parameter that has no hook yet."""
        if self.closed:
            return
        handles = self._handles()
        for index, group in enumerate(self.param_groups):
            for param in group["params"]:
                if param in handles or not param.requires_grad:
                    continue
                owner = released_by(param)
                if owner is not None and owner is not self:
                    raise RefusedError(
                        "a parameter's gradient is released by another optimizer already.",
                        hint="call close() on that one first.",
                    )
                hook = Consume(weakref.ref(self), index)
                handles[param] = param.register_post_accumulate_grad_hook(hook)

    def _forget(self) -> None:
        """Leave None where gradients were, so that the next backward begins anew."""
        for group in self.param_groups:
            for param in group["params"]:
                if isinstance(param.grad, TakenGradient):
                    param.grad = None

    def _handles(self) -> dict[torch.Tensor, RemovableHandle]:
        # Reached before any __init__ of ours could run: torch's __init__ and unpickling
        # both add parameters first.
        handles: dict[torch.Tensor, RemovableHandle] = self.__dict__.setdefault("_hooked", {})
        return handles

    def _consumed(self) -> dict[torch.Tensor, None]:
        done: dict[torch.Tensor, None] = self.__dict__.setdefault("_done", {})
        return done


class ReleasedAdam(ReleasedOptimizer, SlicedAdam):
    """`torch.optim.Adam` that consumes gradients in backward."""


class ReleasedAdamW(ReleasedOptimizer, SlicedAdamW):
    """`torch.optim.AdamW` that consumes gradients in backward."""


class ReleasedSGD(ReleasedOptimizer, SlicedSGD):
    """`torch.optim.SGD` that consumes gradients in backward."""


def released_by(param: torch.Tensor) -> ReleasedOptimizer | None:
    """Return the optimizer that consumes a parameter's gradient, or None.

    Args:
        param: a leaf tensor.
    """
    for hook in accumulate_hooks(param):
        optimizer = hook.optimizer() if isinstance(hook, Consume) else None
        if optimizer is not None and not optimizer.closed:
            return optimizer
    return None


def _processes() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1
