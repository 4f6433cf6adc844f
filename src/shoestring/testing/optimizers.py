"""The contract that every optimizer keeps, as one function."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch.optim import lr_scheduler
from torch.optim.optimizer import ParamsT

from shoestring.measure.rng import rng_untouched

if TYPE_CHECKING:
    from torch.distributed.checkpoint.state_dict import OptimizerStateType

Params: TypeAlias = list[torch.nn.Parameter]
MakeOptimizer: TypeAlias = Callable[[ParamsT], torch.optim.Optimizer]
MakeScheduler: TypeAlias = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]

SCHEDULERS: dict[str, MakeScheduler] = {
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(o)]),
    "ConstantLR": lr_scheduler.ConstantLR,
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=4),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, base_lr=1e-3, max_lr=1e-2, step_size_up=2),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    "LinearLR": lr_scheduler.LinearLR,
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, milestones=[1, 3]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=1e-2, total_steps=8),
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.LinearLR(o)], milestones=[2]
    ),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=1),
}
"""Every scheduler of torch -> how the check builds one; `LRScheduler` itself does nothing."""


def check_optimizer(
    make: MakeOptimizer,
    *,
    expect_convergence: bool = True,
    closure_calls: int = 1,
    closure_grad: bool = True,
    state_at_construction: bool = False,
) -> None:
    """Check that an optimizer keeps the contract that torch's own keep.

    The clauses: the closure is called the stated number of times under the stated grad mode
    and its loss returned, or for several calls the mean of their losses; nothing changes
    without gradients; every scheduler of torch works, and a learning rate of 0 stops; training
    resumed from ``state_dict``, ``copy.deepcopy``, pickle or ``torch.distributed.checkpoint``
    goes on bit for bit; float32, bfloat16 and float64 stay what they are, also in loaded state;
    frozen parameters are untouched; parameters come as list, groups or ``named_parameters``;
    parabola and Rosenbrock are descended; the same seed gives the same bits and the global
    generators are left alone; ``group["lr"]`` is always a float.

    ``torch.distributed.checkpoint`` takes a step with gradients of zero and a learning rate of
    0 where it finds no state. Such a step must change nothing, and no gradients may be made to
    save an optimizer that has state.

    Args:
        make: builds the optimizer from parameters, with every option set.
        expect_convergence: whether parabola and Rosenbrock must be descended, at the given
            learning rate or at a power of ten below it.
        closure_calls: how often ``step(closure)`` evaluates the closure.
        closure_grad: whether it does so with gradients enabled.
        state_at_construction: whether there is state before the first step, so that no
            gradients may be made to load it either; torch's own optimizers have none.

    Raises:
        AssertionError: a clause is broken; the message says which.

    Example:
        >>> check_optimizer(lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9))
    """
    _check_closure(make, closure_calls, closure_grad)
    _check_without_gradients(make)
    for name, scheduler in SCHEDULERS.items():
        _check_scheduler(make, name, scheduler)
    _check_zero_rate(make)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        _check_dtype(make, dtype)
        _check_resume(make, dtype)
        _check_checkpoint(make, dtype, state_at_construction)
    _check_copies(make)
    _check_frozen(make)
    _check_ways_to_pass(make)
    _check_seed(make)
    if expect_convergence:
        _check_descent(make, "parabola", _parabola)
        _check_descent(make, "Rosenbrock's function", _rosenbrock)


def _demand(truth: bool, sentence: str) -> None:
    if not truth:
        raise AssertionError(sentence)


def _params(dtype: torch.dtype = torch.float32) -> Params:
    generator = torch.Generator().manual_seed(7)
    shapes = [(5, 3), (3,), ()]
    values = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [torch.nn.Parameter(value.to(dtype)) for value in values]


def _loss(params: Params) -> torch.Tensor:
    return torch.stack([((p - 0.3) ** 2).sum() * (i + 1) for i, p in enumerate(params)]).sum()


def _step(
    optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], modes: list[bool]
) -> object:
    """Step with a closure like a user's, and note under which grad mode it was called."""

    def closure() -> torch.Tensor:
        modes.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        value = loss()
        if torch.is_grad_enabled():
            torch.autograd.backward(value)
        return value

    # torch's closures return the loss as a tensor, though they are annotated to return a float.
    return optimizer.step(cast(Callable[[], float], closure))


def _train(params: Params, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        _step(optimizer, lambda: _loss(params), [])


def _bits(params: Params) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


def _same(left: Iterable[torch.Tensor], right: Iterable[torch.Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(left, right, strict=True))


def _rates(optimizer: torch.optim.Optimizer, when: str) -> None:
    for group in optimizer.param_groups:
        lr = group.get("lr")
        _demand(isinstance(lr, float), f'group["lr"] is {lr!r} {when}, and must be a float.')


def _check_closure(make: MakeOptimizer, calls: int, grad: bool) -> None:
    params = _params()
    optimizer = make(params)
    modes: list[bool] = []
    losses: list[float] = []

    def loss() -> torch.Tensor:
        value = _loss(params)
        losses.append(value.item())
        return value

    before = _loss(params).item()
    returned = _step(optimizer, loss, modes)
    _demand(
        len(modes) == calls, f"step(closure) called the closure {len(modes)} times, not {calls}."
    )
    _demand(
        all(mode is grad for mode in modes),
        f"the closure was called with gradients {'disabled' if grad else 'enabled'}.",
    )
    found = returned.item() if isinstance(returned, torch.Tensor) else returned
    # Several calls are made at several places; what is returned is the first loss, or their mean.
    mean = sum(losses) / len(losses)
    near = isinstance(found, float) and abs(found - mean) <= 1e-6 * abs(mean)
    right = found == before or (calls > 1 and near)
    _demand(right, "step(closure) did not return the closure's loss.")


def _check_without_gradients(make: MakeOptimizer) -> None:
    params = _params()
    optimizer = make(params)
    before = _bits(params)
    optimizer.step()
    _demand(_same(before, params), "step() without gradients changed parameters.")
    _train(params, optimizer, 2)
    optimizer.zero_grad()
    before, state = _bits(params), copy.deepcopy(optimizer.state_dict())
    optimizer.step()
    _demand(_same(before, params), "step() without gradients changed parameters.")
    _demand(_equal(state, optimizer.state_dict()), "step() without gradients changed the state.")


def _equal(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype is right.dtype and torch.equal(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)
    return bool(left == right)


def _check_scheduler(make: MakeOptimizer, name: str, build: MakeScheduler) -> None:
    params = _params()
    optimizer = make(params)
    _rates(optimizer, "after construction")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*epoch parameter.*")  # torch's own, inside
        try:
            scheduler = build(optimizer)
            for _ in range(4):
                _train(params, optimizer, 1)
                if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                    scheduler.step(1.0)
                else:
                    scheduler.step()
        except Exception as error:
            raise AssertionError(f"{name} does not work with it: {error}") from error
    _rates(optimizer, f"after {name}")


def _check_zero_rate(make: MakeOptimizer) -> None:
    params = _params()
    optimizer = make(params)
    before = _bits(params)
    _train(params, optimizer, 1)
    _demand(not _same(before, params), "step() with gradients changed nothing.")
    lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)
    before = _bits(params)
    _train(params, optimizer, 1)
    _demand(
        _same(before, params),
        'a learning rate of 0 still moves parameters: group["lr"] is not read.',
    )


def _check_dtype(make: MakeOptimizer, dtype: torch.dtype) -> None:
    params = _params(dtype)
    optimizer = make(params)
    _train(params, optimizer, 2)
    _demand(
        all(p.dtype is dtype and bool(p.isfinite().all()) for p in params),
        f"parameters in {dtype} did not stay finite and of that dtype.",
    )
    fresh = make(_params(dtype))
    fresh.load_state_dict(_saved(optimizer))
    _rates(fresh, "after load_state_dict")
    kept = _dtypes(optimizer) == _dtypes(fresh)
    _demand(kept, f"load_state_dict changed the dtypes of the state of {dtype} parameters.")


def _dtypes(optimizer: torch.optim.Optimizer) -> list[tuple[int, str, str]]:
    state = optimizer.state_dict()["state"]
    return sorted(
        (index, key, str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__)
        for index, entry in state.items()
        for key, value in entry.items()
    )


def _saved(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Return the state_dict after a trip through a file that is read without unpickling."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    loaded: dict[str, object] = torch.load(file, weights_only=True)
    return loaded


def _check_resume(make: MakeOptimizer, dtype: torch.dtype) -> None:
    params = _params(dtype)
    optimizer = make(params)
    _train(params, optimizer, 3)
    resumed = [torch.nn.Parameter(value) for value in _bits(params)]
    state = _saved(optimizer)
    _train(params, optimizer, 3)
    other = make(resumed)
    other.load_state_dict(state)
    _train(resumed, other, 3)
    _demand(
        _same(params, resumed), f"training in {dtype} resumed from state_dict takes another course."
    )


def _check_checkpoint(make: MakeOptimizer, dtype: torch.dtype, state_at_construction: bool) -> None:
    name = "torch.distributed.checkpoint"
    params = _params(dtype)
    optimizer = make(params)
    _train(params, optimizer, 3)
    optimizer.zero_grad()
    before, state = _bits(params), copy.deepcopy(optimizer.state_dict())
    resumed = [torch.nn.Parameter(value) for value in _bits(params)]
    other = make(resumed)
    try:
        saving, loading = _through_checkpoint(params, optimizer, resumed, other)
    except Exception as error:
        raise AssertionError(f"{name} does not work with it: {error}") from error
    untouched = _same(before, params) and _equal(state, optimizer.state_dict())
    _demand(untouched, f"saving by {name} changed the parameters or the state.")
    _demand(
        not (saving and state["state"]),
        f"saving by {name} made {saving} bytes of gradients, though there is state.",
    )
    _demand(
        not (loading and state_at_construction),
        f"loading by {name} made {loading} bytes of gradients: a new optimizer has no state.",
    )
    _demand(_same(before, resumed), f"loading by {name} changed the parameters.")
    _rates(other, f"after {name}")
    for pair in ((params, optimizer), (resumed, other)):
        _train(*pair, 3)
    _demand(_same(params, resumed), f"training in {dtype} resumed by {name} takes another course.")


def _through_checkpoint(
    params: Params,
    optimizer: torch.optim.Optimizer,
    resumed: Params,
    other: torch.optim.Optimizer,
) -> tuple[int, int]:
    """Save one optimizer and load another; return the bytes of gradients made in each."""
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    saved, saving = _described(params, optimizer)
    loaded, loading = _described(resumed, other)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        save(saved, checkpoint_id=folder, no_dist=True)
        load(loaded, checkpoint_id=folder, no_dist=True)
    set_optimizer_state_dict(torch.nn.ParameterList(resumed), other, loaded)
    return saving, loading


def _described(params: Params, optimizer: torch.optim.Optimizer) -> tuple[OptimizerStateType, int]:
    """Return what is saved of an optimizer, and the bytes of gradients made to find it out."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    made = [0]

    def note(*_: object) -> None:
        made.append(sum(p.grad.nbytes for p in params if p.grad is not None))

    handle = optimizer.register_step_pre_hook(note)
    try:
        return get_optimizer_state_dict(torch.nn.ParameterList(params), optimizer), max(made)
    finally:
        handle.remove()


def _check_copies(make: MakeOptimizer) -> None:
    params = _params()
    optimizer = make(params)
    _train(params, optimizer, 2)
    for way in ("copy.deepcopy", "pickle"):
        before = _bits(params)
        pair = (params, optimizer)
        try:
            twins, twin = _pickled(pair) if way == "pickle" else copy.deepcopy(pair)
        except Exception as error:
            raise AssertionError(f"{way} does not work: {error}") from error
        _train(twins, twin, 2)
        _demand(_same(before, params), f"training a copy by {way} changed the original.")
        _train(params, optimizer, 2)
        _demand(_same(twins, params), f"a copy by {way} takes another course.")


def _pickled(
    pair: tuple[Params, torch.optim.Optimizer],
) -> tuple[Params, torch.optim.Optimizer]:
    again: tuple[Params, torch.optim.Optimizer] = pickle.loads(pickle.dumps(pair))  # noqa: S301  # our own bytes
    return again


def _check_frozen(make: MakeOptimizer) -> None:
    params = _params()
    params[1].requires_grad_(False)
    before = _bits(params)
    optimizer = make(params)
    _train(params, optimizer, 2)
    _demand(torch.equal(before[1], params[1]), "a frozen parameter was changed.")
    _demand(not torch.equal(before[0], params[0]), "beside a frozen parameter none is trained.")


def _check_ways_to_pass(make: MakeOptimizer) -> None:
    courses = []
    for way in ("list", "generator", "groups", "named_parameters"):
        params = _params()
        given: ParamsT = params
        if way == "generator":
            given = (p for p in params)
        elif way == "groups":
            given = [{"params": params[:1]}, {"params": params[1:]}]
        elif way == "named_parameters":
            given = [(f"p{i}", p) for i, p in enumerate(params)]
        try:
            optimizer = make(given)
            _train(params, optimizer, 3)
        except Exception as error:
            raise AssertionError(f"parameters cannot be passed as {way}: {error}") from error
        courses.append(params)
        _demand(_same(courses[0], params), f"parameters passed as {way} take another course.")


def _check_seed(make: MakeOptimizer) -> None:
    courses = []
    for seed in (0, 1):  # the global seed must not matter
        with rng_untouched():
            torch.manual_seed(seed)
            params = _params()
            optimizer = make(params)
            before = torch.get_rng_state()
            _train(params, optimizer, 3)
            _demand(
                torch.equal(before, torch.get_rng_state()), "it draws from the global generator."
            )
            courses.append(_bits(params))
    _demand(_same(*courses), "two runs with the same seed differ.")


def _parabola(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (torch.tensor([1.0, 4.0], dtype=x.dtype) * x**2).sum()


def _rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def _check_descent(
    make: MakeOptimizer, name: str, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Descend to 1 % of the value at (-1, 1.5); the minimum is 0."""
    for power in range(5):
        point = torch.nn.Parameter(torch.tensor([-1.0, 1.5], dtype=torch.float64))
        optimizer = make([point])
        for group in optimizer.param_groups:
            group["lr"] *= 0.1**power
        goal = 0.01 * function(point).item()
        for _ in range(3000):
            _step(optimizer, functools.partial(function, point), [])
            value = function(point).item()
            if value <= goal or not value < 1e12:  # or NaN
                break
        if value <= goal:
            return
    raise AssertionError(f"{name} is not descended to 1 % of its start in 3,000 steps.")
