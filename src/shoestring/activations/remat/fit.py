"""Fit a model's step into a budget of activations, in place."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Final

import torch
from torch import nn

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.backend import NotRunError, RematBackend
from shoestring.activations.remat.capture._torch import (
    BackendCompilerFailed,
    TorchDynamoException,
)
from shoestring.activations.remat.capture.pricing import CostKind, price_nodes
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.outside import outside_bytes
from shoestring.activations.remat.schedule import Schedule
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.find import Solver, find_order
from shoestring.core.budget import Budget
from shoestring.core.errors import InfeasibleError, RefusedError, ShoestringError
from shoestring.core.units import format_bytes
from shoestring.measure._torch import DATA_DEPENDENT, check_version
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import Loss, call_model

_PLAIN: Final = "_shoestring_unscheduled_forward"


def fit(
    model: nn.Module,
    batch: Batch,
    *,
    activations: str | int,
    solver: str = "auto",
    cost: str = "measure",
    time_limit: float = 10.0,
    loss: Loss | None = None,
) -> Schedule:
    """Keep the peak of forward and backward within a budget, by computing values again.

    The model's forward and backward are captured as one graph of operations. What it keeps and
    what it computes again is decided so that the peak, simulated to the byte, stays within the
    budget at the least seconds. Losses, gradients and buffers are those of the plain step to the
    last bit: dropout draws the same numbers again, statistics of batch normalisation move once.

    Args:
        model: changed in place: object, class, state_dict keys and signature stay.
        batch: the largest batch: a tensor, a tuple by position or a dict by keywords.
        activations: peak of forward and backward above parameters, buffers and the batch,
            gradients included: a size, or a percentage of the plain step's.
        solver: ``auto``, ``closure``, ``rotor``, ``checkmate`` or ``dtr``.
        cost: how seconds are told: ``measure``, ``flops`` or ``roofline``.
        time_limit: seconds for the solver.
        loss: ``f(output, batch) -> scalar``, if the model returns none.

    Returns:
        What is kept and computed again, and what that costs. Where the plain step is within the
        budget, the model is left as it was.

    Raises:
        InfeasibleError: no order fits; the message says the least that does.
        RefusedError: the model is fitted already, or its step cannot be captured.
    """
    if _PLAIN in model.__dict__:
        raise RefusedError(
            "the model is fitted into a budget already.", hint="call remat.remove(model) first."
        )
    check_version()
    choose = functools.partial(
        schedule_graph, activations=activations, solver=Solver(solver), time_limit=time_limit
    )
    pricing = functools.partial(price_nodes, kind=CostKind(cost))
    try:
        outside = outside_bytes(model, batch, loss)
    except DATA_DEPENDENT as error:
        raise _not_captured(error) from error
    backend = RematBackend(choose, pricing, outside=outside)
    plain = model.__dict__.get("forward")
    forward = scheduled(_unbound(model), backend)
    model.__dict__[_PLAIN] = plain
    model.__dict__["forward"] = types.MethodType(forward, model)
    try:
        with backend.only_compiling():
            call_model(model, batch)
    except NotRunError:
        schedule = backend.schedules[-1]
        if schedule.order == schedule.graph.plain:
            remove(model)
        return schedule
    except TorchDynamoException as error:
        remove(model)
        inner = error.inner_exception if isinstance(error, BackendCompilerFailed) else None
        if isinstance(inner, ShoestringError):
            raise inner.with_traceback(None) from None
        if inner is not None:
            raise
        raise _not_captured(error) from error
    except BaseException:
        remove(model)
        raise
    remove(model)
    raise RefusedError("the model's forward has no operations.", hint="train another model.")


def _not_captured(error: Exception) -> RefusedError:
    lines = str(error).strip().splitlines()
    return RefusedError(
        "the model's step cannot be captured as one graph"
        + (f": {lines[0].rstrip('.')}." if lines else "."),
        hint="leave this model to block checkpointing.",
    )


def _unbound(model: nn.Module) -> Callable[..., object]:
    """Return a model's forward as a function of the model and its arguments."""
    own = model.__dict__.get("forward")
    if own is None:
        return type(model).forward
    if isinstance(own, types.MethodType) and own.__self__ is model:
        return own.__func__
    raise RefusedError(
        "the model's forward was replaced by a function that does not take the model.",
        hint="fit the model before other tools wrap its forward.",
    )


def remove(model: nn.Module) -> None:
    """Let a model keep its activations again.

    Args:
        model: one that `fit` changed, or a copy of one.

    Raises:
        RefusedError: it was not changed.
    """
    if _PLAIN not in model.__dict__:
        raise RefusedError("the model is not fitted into a budget.", hint="call remat.fit first.")
    plain = model.__dict__.pop(_PLAIN)
    del model.__dict__["forward"]
    if plain is not None:
        model.__dict__["forward"] = plain


def scheduled(plain: Callable[..., object], backend: RematBackend) -> Callable[..., object]:
    """Return a forward that follows a schedule in training, and is the plain one elsewhere.

    Args:
        plain: the forward as a function of the model and its arguments.
        backend: compiles it.
    """
    compiled = torch.compile(plain, backend=backend, fullgraph=True)

    @functools.wraps(plain, updated=())
    def forward(self: nn.Module, *args: object, **kwargs: object) -> object:
        if not (self.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return plain(self, *args, **kwargs)
        return compiled(self, *args, **kwargs)

    return forward


def schedule_graph(
    graph: Graph, *, activations: str | int, solver: Solver, time_limit: float
) -> Schedule:
    """Find a schedule for a graph.

    Args:
        graph: the operations.
        activations: most bytes, or a percentage of the plain order's peak.
        solver: who finds it.
        time_limit: in seconds.

    Raises:
        InfeasibleError: no order fits.
    """
    plain = simulate(graph, graph.plain)
    budget = Budget(activations=activations).activation_bytes(plain_peak=plain.peak)
    assert budget is not None, "it was given"
    if plain.peak <= budget:
        same = Answer(graph.plain, plain.peak, plain.seconds, plain.seconds, "none", complete=True)
        return Schedule(graph, same, budget)
    try:
        answer = find_order(graph, budget, solver=solver, time_limit=time_limit)
    except OverBudgetError as error:
        raise InfeasibleError(
            f"no order fits {format_bytes(budget)} of activations: the least that was found is "
            f"{format_bytes(error.least)}, bound by {graph.nodes[error.node].name}.",
            hint=f"give activations={error.least} or more, or a smaller batch.",
        ) from error
    return Schedule(graph, answer, budget)
