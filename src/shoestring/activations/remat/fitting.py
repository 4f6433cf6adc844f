"""Fit a model's step into a budget of activations, in place."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Final, TypeAlias

from torch import nn

from shoestring.activations.remat.capture.pricing import CostKind, price_nodes
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.check import check_blocks
from shoestring.activations.remat.check_captured import captured_again
from shoestring.activations.remat.choose import plain_schedule, schedule_graph
from shoestring.activations.remat.compiled import NotRunError, RematBackend
from shoestring.activations.remat.eager.recorded import RecordedSchedule, within
from shoestring.activations.remat.eager.recording import forget, is_recorded
from shoestring.activations.remat.fit_forward import (
    Fitted,
    Forward,
    not_captured,
    refuse_sharded,
    scheduled,
)
from shoestring.activations.remat.front import Front
from shoestring.activations.remat.front_search import pareto_front
from shoestring.activations.remat.outside import outside_bytes
from shoestring.activations.remat.solvers.find import Solver
from shoestring.core.budget import Budget
from shoestring.core.errors import InfeasibleError, RefusedError
from shoestring.measure._torch import DATA_DEPENDENT, check_version
from shoestring.measure.timing.machines import load_machine
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import Loss, StepOptions, call_model
from shoestring.measure.tracing.twin import trace_model

AnySchedule: TypeAlias = Schedule | RecordedSchedule

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
    check: bool = True,
) -> AnySchedule:
    """Keep the peak of forward and backward within a budget, by computing values again.

    The model's forward and backward are captured as one graph of operations. What it keeps and
    what it computes again is decided so that the peak, simulated to the byte, stays within the
    budget at the least seconds. Losses, gradients and buffers are those of the plain step to the
    last bit: dropout draws the same numbers again, statistics of batch normalisation move once.

    Batches of other sizes, up to those of `batch` in every dimension, keep within the same bytes:
    the first of them is captured once more, with sizes that may change. A batch that is larger
    is captured for itself, with a warning, if its step fits the same bytes.

    A step that cannot be captured, because its course depends on data, say, or that cannot be
    fitted so, or that the compiler would compute otherwise (under autocast, for one), runs
    operator by operator as before, and values are made again when autograd asks for them; that
    is as exact. The result's ``path`` says which it is, and ``why``.

    Args:
        model: changed in place: object, class, state_dict keys and signature stay.
        batch: the largest batch: a tensor, a tuple by position or a dict by keywords.
        activations: peak of forward and backward above parameters, buffers and the batch,
            gradients included: a size, or a percentage of the plain step's.
        solver: ``auto``, ``closure``, ``rotor``, ``checkmate``, ``hilp`` or ``dtr``.
        cost: how seconds are told: ``measure``, ``flops`` or ``roofline``.
        time_limit: seconds for the solver.
        loss: ``f(output, batch) -> scalar``, if the model returns none.
        check: compute each distinct block again on two rows of the batch first, and compare.

    Returns:
        What is kept and computed again, and what that costs. Where the plain step is within the
        budget, the model is left as it was.

    Raises:
        InfeasibleError: no order fits; the message says the least that does.
        RefusedError: the model is fitted already, or something that is computed again differs.

    Example:
        >>> import torch
        >>> model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.GELU()) for _ in range(8)])
        >>> batch = torch.randn(512, 64)
        >>> mean = lambda output, batch: output.square().mean()
        >>> fitted = fit(model, batch, activations="70%", loss=mean, cost="flops")
        >>> fitted.peak <= fitted.budget, fitted.path
        (True, 'captured')
        >>> mean(model(batch), batch).backward()
        >>> remove(model)
    """
    made = schedule(
        model,
        batch,
        activations=activations,
        solver=solver,
        cost=cost,
        time_limit=time_limit,
        loss=loss,
        check=check,
    )
    made.apply(model)
    return made


def schedule(
    model: nn.Module,
    batch: Batch,
    *,
    activations: str | int,
    solver: str = "auto",
    cost: str = "measure",
    time_limit: float = 10.0,
    loss: Loss | None = None,
    check: bool = True,
) -> AnySchedule:
    """Decide what a step keeps and what it computes again, and leave the model as it is.

    ``made.apply(model)`` then does what `fit` does at once.

    Args:
        model: as for `fit`.
        batch: the largest batch.
        activations: most bytes, or a percentage of the plain step's.
        solver: who finds the order.
        cost: how seconds are told.
        time_limit: seconds for the solver.
        loss: ``f(output, batch) -> scalar``, if the model returns none.
        check: compute each distinct block again on two rows of the batch first, and compare.

    Returns:
        As for `fit`.

    Raises:
        InfeasibleError: no order fits; the message says the least that does.
        RefusedError: as for `fit`.
    """
    how, kind = Solver(solver), CostKind(cost)
    _refuse_fitted(model)
    check_version()
    refuse_sharded(model)
    machine = load_machine()
    trace = trace_model(model, batch, None, StepOptions(loss=loss), machine).trace
    plain = trace.peak - trace.static
    budget = Budget(activations=activations).activation_bytes(plain_peak=plain)
    assert budget is not None, "it was given"
    if plain <= budget:
        return within(trace, machine, budget, "")
    choose = functools.partial(
        schedule_graph, activations=budget, solver=how, time_limit=time_limit
    )
    checked = functools.partial(check_blocks, model, batch, budget_bytes=budget)
    try:
        made = _captured(model, batch, choose, kind, loss)
        # The compiler may compute in another order: then it is not the step that was asked for.
        return dataclasses.replace(made, check=checked(captured_again) if check else None)
    except (RefusedError, InfeasibleError) as error:
        try:
            other = within(trace, machine, budget, error.message.rstrip("."))
        except InfeasibleError as least:
            raise (error if isinstance(error, InfeasibleError) else least) from None
    return dataclasses.replace(other, check=checked(other.wrap(model)) if check else None)


def pareto(
    model: nn.Module,
    batch: Batch,
    *,
    n: int = 20,
    cost: str = "measure",
    time_limit: float = 10.0,
    loss: Loss | None = None,
) -> Front:
    """Find the front of a captured step: what its peak can be, and what each costs.

    Args:
        model: left as it is.
        batch: one batch.
        n: most schedules.
        cost: how seconds are told: ``measure``, ``flops`` or ``roofline``.
        time_limit: seconds for the search.
        loss: ``f(output, batch) -> scalar``, if the model returns none.

    Returns:
        Schedules by falling peak.

    Raises:
        RefusedError: the step cannot be captured.
    """
    _refuse_fitted(model)
    check_version()
    refuse_sharded(model)
    plain = _captured(model, batch, plain_schedule, CostKind(cost), loss)
    return Front(pareto_front(plain.graph, n=n, time_limit=time_limit))


def remove(model: nn.Module) -> None:
    """Let a model keep its activations again.

    Args:
        model: one that `fit` changed, or a copy of one.

    Raises:
        RefusedError: it was not changed.
    """
    if is_recorded(model):
        forget(model)
        return
    if _PLAIN not in model.__dict__:
        raise RefusedError("the model is not fitted into a budget.", hint="call remat.fit first.")
    plain = model.__dict__.pop(_PLAIN)
    del model.__dict__["forward"]
    if plain is not None:
        model.__dict__["forward"] = plain


def schedules(model: nn.Module) -> list[Schedule]:
    """Return the schedules of a fitted model, one for each graph that was captured of it.

    The first is of the batch that it was fitted with; others come with batches of other sizes.

    Args:
        model: one that `fit` changed, or a copy of one.

    Raises:
        RefusedError: it was not changed so, or it is not captured.
    """
    if _PLAIN not in model.__dict__:
        raise RefusedError("the model is not fitted as a captured graph.", hint="see its path.")
    made: list[Schedule] = model.__dict__["forward"].__func__.schedules
    return list(made)


def _refuse_fitted(model: nn.Module) -> None:
    if _PLAIN in model.__dict__ or is_recorded(model):
        raise RefusedError(
            "the model is fitted into a budget already.", hint="call remat.remove(model) first."
        )


def _captured(
    model: nn.Module,
    batch: Batch,
    choose: Callable[..., Schedule],
    cost: CostKind,
    loss: Loss | None,
) -> Schedule:
    """Return the schedule of a captured step, which can be installed; the model stays as it is.

    Raises:
        InfeasibleError: no order fits.
        RefusedError: the step cannot be captured.
    """
    try:
        outside = outside_bytes(model, batch, loss)
    except DATA_DEPENDENT as error:
        raise not_captured(error) from error
    pricing = functools.partial(price_nodes, kind=cost)
    backend = RematBackend(choose, pricing, outside=outside, knows_largest=True)
    forward = scheduled(_unbound(model), backend, Fitted(batch, loss))
    _install(forward, model)
    try:
        with backend.only_compiling():
            call_model(model, batch)
    except NotRunError:
        made = backend.schedules[-1]
        return dataclasses.replace(made, install=functools.partial(_install, forward))
    finally:
        remove(model)
    raise RefusedError("the model's forward has no operations.", hint="train another model.")


def _install(forward: Forward, model: nn.Module) -> None:
    _refuse_fitted(model)
    model.__dict__[_PLAIN] = model.__dict__.get("forward")
    model.__dict__["forward"] = types.MethodType(forward, model)


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
