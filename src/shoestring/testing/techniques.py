"""The contract that every technique keeps, as one function."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import AssumptionWarning, NoEffectWarning, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Technique
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.fake import Batch, map_tensors
from shoestring.measure.tracing.step import Loss, call_model, scalar_loss
from shoestring.planner.batches import with_row_sizes
from shoestring.planner.profiling import profile

MakeOptimizer: TypeAlias = Callable[[ParamsT], torch.optim.Optimizer]

PEAK_TOLERANCE: Final = 0.05
"""Largest relative error of a predicted peak."""

PEAK_SLACK: Final = 64 * 1024
"""Bytes by which the peak of a tiny step may be off: states of generators and the like."""

TOLERANCE: Final = 1e-12
"""Largest difference of EXACT gradients in float64, relative to the largest gradient."""


def check_technique(
    technique: Technique,
    model: torch.nn.Module,
    batch: Batch,
    *,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
) -> None:
    """Check that a technique keeps the contract of the house on a model.

    The clauses: where it is EXACT, loss, gradients (float64, 1e-12 of the largest), buffers
    and the state of the global generator are the plain step's, and with an optimizer of its
    own so are the parameters after three steps; the predicted peak is within 5 % of what the
    allocator measures; applying it twice is refused; the changed
    model keeps class, state_dict keys and forward signature, and can be deep-copied; `remove`
    restores it. The model itself is only copied.

    Args:
        technique: the technique with its options.
        model: a model that it works on.
        batch: tensor, tuple or dict.
        loss: ``f(output, batch) -> scalar``; the output's own by default.
        optimizer: class or ``functools.partial``; AdamW by default.

    Raises:
        AssertionError: a clause is broken; the message says which.
        ShoestringError: the technique does not work on this model.
    """
    make = optimizer or functools.partial(torch.optim.AdamW, lr=1e-3)
    with rng_untouched(), warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        plain = profile(model, batch, optimizer=make, loss=loss)
        with contextlib.suppress(RefusedError):
            plain = with_row_sizes(plain)
        reason = technique.refuse(plain)
        _demand(not reason, f"{technique.name} refuses this step: {reason}")
        _check_options(technique)
        _check_surface(technique, model, batch, loss)
        if technique.fidelity(plain) is Fidelity.EXACT:
            _check_exact(technique, model, batch, loss)
            _check_course(technique, model, batch, loss, make)
        _check_twice(technique, model, make)
        _check_prediction(technique, plain)
        _check_measured(technique, plain, model, batch, loss, make)


def _check_options(technique: Technique) -> None:
    again = type(technique).from_options(technique.options())
    _demand(again == technique, f"{technique.name} is not rebuilt from its own options.")


def _check_prediction(technique: Technique, plain: Profile) -> None:
    before = dataclasses.replace(plain)
    changed = technique.predict(plain)
    _demand(plain == before, f"predict of {technique.name} changed the profile it was given.")
    _demand(
        len(changed.traces) == len(plain.traces),
        f"predict of {technique.name} does not predict every batch shape.",
    )


def _check_measured(
    technique: Technique,
    plain: Profile,
    model: torch.nn.Module,
    batch: Batch,
    loss: Loss | None,
    make: MakeOptimizer,
) -> None:
    """Compare the predicted peak with what the allocator saw in the third changed step."""
    twin = copy.deepcopy(model)
    _apply(technique, twin)
    optimizer = technique.make_optimizer(make(twin.parameters()))

    def step() -> None:
        for parameter in twin.parameters():
            parameter.grad = None
        _backward(twin, batch, loss, technique)
        optimizer.step()

    step()
    step()
    measured = measure_step(step, roots=lambda: standing(twin, batch, optimizer)).peak
    predicted = technique.predict(plain).peak
    _demand(
        abs(predicted - measured) <= PEAK_TOLERANCE * measured + PEAK_SLACK,
        f"{technique.name} predicts a peak of {predicted:,} B, and the step takes {measured:,} B.",
    )


def _double(model: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(model).double()


def _widened(batch: Batch) -> Batch:
    return map_tensors(batch, lambda t: t.double() if t.is_floating_point() else t)


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    loss: float
    gradients: dict[str, torch.Tensor]
    buffers: dict[str, torch.Tensor]
    generator: torch.Tensor


def _run(
    model: torch.nn.Module, batch: Batch, loss: Loss | None, technique: Technique | None
) -> _Outcome:
    torch.manual_seed(0)
    model.zero_grad()
    total = _backward(model, batch, loss, technique)
    return _Outcome(
        loss=total,
        gradients={n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        buffers={n: b.detach().clone() for n, b in model.named_buffers()},
        generator=torch.get_rng_state(),
    )


def _backward(
    model: torch.nn.Module, batch: Batch, loss: Loss | None, technique: Technique | None
) -> float:
    total = 0.0
    parts = [(batch, 1.0)] if technique is None else technique.split(batch)  # type: ignore[arg-type]  # the same trees
    with contextlib.nullcontext() if technique is None else technique.context():
        for part, weight in parts:
            value, _ = scalar_loss(call_model(model, part), part, loss)
            torch.autograd.backward(value * weight)
            total += value.item() * weight
    return total


def _check_exact(
    technique: Technique, model: torch.nn.Module, batch: Batch, loss: Loss | None
) -> None:
    plain, changed, wide = _double(model), _double(model), _widened(batch)
    _apply(technique, changed)
    expected = _run(plain, wide, loss, None)
    found = _run(changed, wide, loss, technique)
    _compare(technique.name, expected, found)
    copied = copy.deepcopy(changed)
    copied.load_state_dict(_double(model).state_dict())  # buffers may have moved on
    _compare(
        f"a deep copy of a model with {technique.name}",
        expected,
        _run(copied, wide, loss, technique),
    )


def _compare(name: str, expected: _Outcome, found: _Outcome) -> None:
    scale = max((float(g.abs().max()) for g in expected.gradients.values()), default=0.0)
    error = abs(expected.loss - found.loss)
    _demand(
        error <= TOLERANCE * max(1.0, abs(expected.loss)),
        f"{name} changes the loss by {error:.1e}.",
    )
    _demand(
        expected.gradients.keys() == found.gradients.keys(),
        f"{name} gives gradients to other parameters.",
    )
    for path, gradient in expected.gradients.items():
        error = float((gradient - found.gradients[path]).abs().max()) if gradient.numel() else 0.0
        _demand(
            error <= TOLERANCE * scale,
            f"{name} changes the gradient of {path} by {error:.1e}, where the largest is "
            f"{scale:.1e}.",
        )
    for path, buffer in expected.buffers.items():
        _demand(torch.equal(buffer, found.buffers[path]), f"{name} changes the buffer {path}.")
    _demand(
        torch.equal(expected.generator, found.generator),
        f"{name} leaves the global generator in another state.",
    )


def _check_course(
    technique: Technique,
    model: torch.nn.Module,
    batch: Batch,
    loss: Loss | None,
    make: MakeOptimizer,
) -> None:
    """Compare parameters after three steps, where the technique has an optimizer of its own."""
    if not _overrides(technique, "make_optimizer"):
        return
    wide = _widened(batch)
    courses = []
    for used in (None, technique):
        twin = _double(model)
        optimizer = make(twin.parameters())
        if used is not None:
            _apply(used, twin)
            optimizer = used.make_optimizer(optimizer)
        torch.manual_seed(0)
        for _ in range(3):
            optimizer.zero_grad()
            _backward(twin, wide, loss, used)
            optimizer.step()
        courses.append([p.detach() for p in twin.parameters()])
    for expected, found in zip(*courses, strict=True):
        error = float((expected - found).abs().max()) if expected.numel() else 0.0
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        _demand(
            error <= TOLERANCE * largest,
            f"the optimizer of {technique.name} is off by {error:.1e} after three steps.",
        )


def _check_surface(
    technique: Technique, model: torch.nn.Module, batch: Batch, loss: Loss | None
) -> None:
    twin = copy.deepcopy(model)
    before = _surface(twin)
    inside = _inside(twin)
    _apply(technique, twin)
    _demand(_surface(twin) == before, f"{technique.name} changes {_difference(twin, before)}.")
    copied = copy.deepcopy(twin)
    technique.remove(twin)
    _demand(_surface(twin) == before, f"remove of {technique.name} leaves another surface.")
    left = _inside(twin)
    for path, value in inside.items():
        _demand(
            left.get(path) == value,
            f"remove of {technique.name} leaves the module {path or 'at the top'} changed.",
        )
    _demand(left.keys() == inside.keys(), f"remove of {technique.name} leaves other modules.")
    _run(copied, batch, loss, technique)  # whose forward must not need the original


def _surface(model: torch.nn.Module) -> dict[str, object]:
    return {
        "its class": type(model),
        "the keys of state_dict": list(model.state_dict()),
        "the signature of forward": inspect.signature(model.forward),
        "the names of parameters": [name for name, _ in model.named_parameters()],
        "which parameters are trained": [p.requires_grad for p in model.parameters()],
        "the training flag": model.training,
    }


def _difference(model: torch.nn.Module, before: dict[str, object]) -> str:
    after = _surface(model)
    return ", ".join(key for key, value in before.items() if after[key] != value)


def _inside(model: torch.nn.Module) -> dict[str, object]:
    """Return, for each module, what a change of its forward would have to touch."""
    return {
        path: (
            type(module),
            id(module),
            {key: id(value) for key, value in vars(module).items() if callable(value)},
            sorted(key for key in vars(module)),
            [len(value) for key, value in vars(module).items() if key.endswith("_hooks")],
        )
        for path, module in model.named_modules()
    }


def _check_twice(technique: Technique, model: torch.nn.Module, make: MakeOptimizer) -> None:
    twin = copy.deepcopy(model)
    if _overrides(technique, "apply"):
        _apply(technique, twin)
        _demand(
            _refuses(lambda: _apply(technique, twin)), f"{technique.name} can be applied twice."
        )
        technique.remove(twin)
        _apply(technique, twin)  # applying again after remove is not applying twice
    if _overrides(technique, "make_optimizer"):
        changed = technique.make_optimizer(make(twin.parameters()))
        _demand(
            _refuses(lambda: technique.make_optimizer(changed)),
            f"{technique.name} can be applied twice to an optimizer.",
        )
    technique.remove(twin)


def _refuses(action: Callable[[], object]) -> bool:
    try:
        action()
    except RefusedError:
        return True
    return False


def _apply(technique: Technique, model: torch.nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        technique.apply(model)


def _overrides(technique: Technique, method: str) -> bool:
    return getattr(type(technique), method) is not getattr(Technique, method)


def _demand(truth: bool, sentence: str) -> None:
    if not truth:
        raise AssertionError(sentence)
