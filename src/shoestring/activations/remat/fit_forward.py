"""The forward of a model that was fitted into a budget."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NoReturn, TypeAlias

import torch
from torch import nn

from shoestring.activations.remat.capture._torch import (
    BackendCompilerFailed,
    FailOnRecompileLimitHit,
    TorchDynamoException,
    capturing_whole,
    counted_alone,
    is_sharded,
)
from shoestring.activations.remat.compiled import LargerError, RematBackend
from shoestring.activations.remat.outside import outside_bytes
from shoestring.core.errors import AssumptionWarning, RefusedError, ShoestringError
from shoestring.measure.tracing.fake import Batch, tensors_in
from shoestring.measure.tracing.step import Loss

Forward: TypeAlias = Callable[..., object]

_LARGER: Final = (
    "a batch is larger than the one that the model was fitted with: its step was captured and "
    "scheduled anew, within the same bytes."
)


class Fitted:
    """What a model was fitted with.

    Args:
        batch: only its form and its sizes are kept.
        loss: ``f(output, batch) -> scalar``, if the model returns none.

    Attributes:
        shapes: of the tensors of the batch.
        loss: as given.
        aside: whether the plain forward is to run in place of the fitted one.
    """

    def __init__(self, batch: Batch, loss: Loss | None) -> None:
        self.shapes = shapes_of(batch)
        self.loss = loss
        self.aside = False
        self._form = dict if isinstance(batch, Mapping) else type(batch)

    def like(self, plain: Forward, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Batch:
        """Return the arguments of a call as a batch of the form that the model was fitted with.

        Args:
            plain: the forward as a function of the model and its arguments.
            args: positional arguments, without the model.
            kwargs: keyword arguments.

        Raises:
            RefusedError: they cannot be brought into that form.
        """
        given = inspect.signature(plain).bind(None, *args, **kwargs)
        positional, named = given.args[1:], dict(given.kwargs)
        if self._form is dict:
            names = list(inspect.signature(plain).parameters)[1:]
            if len(positional) <= len(names):
                return {**dict(zip(names, positional, strict=False)), **named}
        elif not named and issubclass(self._form, (tuple, list)):
            return tuple(positional)
        elif len(positional) == 1 and not named and isinstance(positional[0], torch.Tensor):
            return positional[0]
        raise RefusedError(
            "a batch is larger than the one that the model was fitted with, and of another form.",
            hint="call remat.remove(model), and remat.fit with this batch.",
        )

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[None]:
        """In this context the plain forward runs."""
        self.aside = True
        try:
            yield
        finally:
            self.aside = False


def shapes_of(batch: object) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the tensors of a batch.

    Args:
        batch: a tensor, or tuples, lists and dicts of them.
    """
    return tuple(tuple(tensor.shape) for tensor in tensors_in(batch))


def scheduled(plain: Forward, backend: RematBackend, fitted: Fitted) -> Forward:
    """Return a forward that follows a schedule in training, and is the plain one elsewhere.

    Args:
        plain: the forward as a function of the model and its arguments.
        backend: compiles it.
        fitted: what the model was fitted with.
    """
    alone = counted_alone(plain)  # one for both, so that the second knows the first one's sizes
    fixed = torch.compile(alone, backend=backend, fullgraph=True, dynamic=False)
    changing = torch.compile(alone, backend=backend, fullgraph=True, dynamic=True)

    def run(self: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        # Sizes as they were fitted have a graph of their own, with the least to check.
        compiled = fixed if shapes_of((args, kwargs)) == fitted.shapes else changing
        with capturing_whole():
            return compiled(self, *args, **kwargs)

    @functools.wraps(plain, updated=())
    def forward(self: nn.Module, *args: object, **kwargs: object) -> object:
        training = self.training and torch.is_grad_enabled()
        if not training or fitted.aside or torch.compiler.is_compiling():
            return plain(self, *args, **kwargs)
        refuse_sharded(self)
        try:
            return run(self, args, kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            if not isinstance(getattr(error, "inner_exception", None), LargerError):
                raise_for(error)
        larger = fitted.like(plain, args, kwargs)
        with fitted.set_aside():
            outside = outside_bytes(self, larger, fitted.loss)
        try:
            with backend.growing(outside):
                output = run(self, args, kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            raise_for(error)
        warnings.warn(_LARGER, AssumptionWarning, stacklevel=4)
        return output

    forward.__dict__["schedules"] = backend.schedules
    return forward


def raise_for(error: Exception) -> NoReturn:
    """Raise what a user can act on in place of an error of the compiler.

    Args:
        error: what was raised.

    Raises:
        RefusedError: the step cannot be captured, or not again.
    """
    if isinstance(error, FailOnRecompileLimitHit):
        raise RefusedError(
            "the model's step was captured as often as torch allows, and this batch needs "
            "another graph.",
            hint="fit the largest batch, pad batches to fewer sizes, or raise "
            "torch._dynamo.config.recompile_limit.",
        ) from error
    inner = error.inner_exception if isinstance(error, BackendCompilerFailed) else None
    if isinstance(inner, ShoestringError):
        raise inner.with_traceback(None) from None
    if inner is not None:
        raise error
    raise not_captured(error) from error


def not_captured(error: Exception) -> RefusedError:
    """Return the error of a model that cannot be captured.

    Args:
        error: what was raised when it was tried.
    """
    lines = str(error).strip().splitlines()
    return RefusedError(
        "the model's step cannot be captured as one graph"
        + (f": {lines[0].rstrip('.')}." if lines else "."),
        hint="remat.fit computes again without capture where it must.",
    )


def refuse_sharded(model: nn.Module) -> None:
    """Raise where a model's parameters are sharded over processes.

    Args:
        model: any.

    Raises:
        RefusedError: they are.
    """
    if is_sharded(model):
        raise RefusedError(
            "the model is sharded by FSDP, whose gathering of parameters is in no captured graph.",
            hint="profile and plan before sharding, or use DistributedDataParallel; call "
            "remat.remove on a model that was fitted before it was sharded.",
        )
