"""The contract checks catch what they are for: one broken thing for every clause."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterable
from typing import ClassVar, Self

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import ALWAYS
from shoestring.optim import ReleaseGradients, SlicedStep
from shoestring.testing import check_optimizer, check_technique
from shoestring.testing.optimizers import SCHEDULERS

# --- optimizers -------------------------------------------------------------------------------


class Broken(torch.optim.SGD):
    """SGD with momentum; each subclass below breaks one clause."""

    def __init__(self, params: ParamsT, lr: float = 0.05) -> None:
        super().__init__(params, lr=lr, momentum=0.5)


class CallsClosureTwice(Broken):
    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        return super().step(closure)


class CallsClosureWithoutGradients(Broken):
    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        super().step()
        return loss


class ForgetsTheLoss(Broken):
    def step(self, closure=None):
        super().step(closure)


class DecaysWithoutGradients(Broken):
    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    param.mul_(1 - group["lr"] * 0.01)
        return loss


class CountsWithoutGradients(Broken):
    def step(self, closure=None):
        loss = super().step(closure)
        for entry in self.state.values():
            entry["count"] = entry.get("count", 0) + 1
        return loss


class HasNoMomentum(torch.optim.Optimizer):
    def __init__(self, params: ParamsT) -> None:
        super().__init__(params, {"lr": 0.05})

    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        param.sub_(param.grad, alpha=group["lr"])
        return closure


class FreezesTheRate(Broken):
    def __init__(self, params: ParamsT) -> None:
        super().__init__(params)
        self.rate = 0.05

    def step(self, closure=None):
        kept = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] = getattr(self, "rate", 0.05)
        loss = super().step(closure)
        for group, lr in zip(self.param_groups, kept, strict=True):
            group["lr"] = lr
        return loss


class HasATensorRate(Broken):
    def __init__(self, params: ParamsT) -> None:
        super().__init__(params)
        for group in self.param_groups:
            group["lr"] = torch.tensor(0.05)


class StandsStill(Broken):
    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                return closure()
        return None


class WidensParameters(Broken):
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for param in group["params"]:
                param.data = param.data.float()
                param.grad = None
        return loss


class KeepsWideMomentum(Broken):
    """Its float32 state becomes bfloat16 on load, as torch's base class casts it."""

    def step(self, closure=None):
        loss = super().step(closure)
        for entry in self.state.values():
            entry["norm"] = torch.ones(2, dtype=torch.float32)
        return loss


class LosesMomentumOnLoad(Broken):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for entry in self.state.values():
            entry["momentum_buffer"].zero_()


class CountsInTheGroup(torch.optim.SGD):
    """It has no state by parameter, so a checkpoint takes a step too many."""

    def __init__(self, params: ParamsT) -> None:
        super().__init__(params, lr=0.05)

    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            if any(param.grad is not None for param in group["params"]):
                group["count"] = group.get("count", 0) + 1
        return loss


class ShowsStateThatTorchCannotSee(CountsInTheGroup):
    """What a checkpoint asks for is in `state_dict` only."""

    step = torch.optim.SGD.step

    def state_dict(self):
        found = super().state_dict()
        number = sum(len(group["params"]) for group in self.param_groups)
        return {**found, "state": {i: {"step": 0} for i in range(number)}}


class LosesWhatIsBesideTheState(Broken):
    """Its `state_dict` has a key of its own, which a checkpoint does not ask for."""

    count = 0

    def step(self, closure=None):
        kept = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] /= 1 + self.count
        loss = super().step(closure)
        for group, lr in zip(self.param_groups, kept, strict=True):
            group["lr"] = lr
        self.count += any(
            p.grad is not None for group in self.param_groups for p in group["params"]
        )
        return loss

    def state_dict(self):
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.count = state_dict.get("count", 0)

    def __getstate__(self):
        return {**super().__getstate__(), "count": self.count}


class DividesByTheNorm(Broken):
    """The gradients of zero that torch makes to load a checkpoint become NaN."""

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.grad /= param.grad.norm()
        super().step()
        return loss


class CannotBeCopied(Broken):
    def __init__(self, params: ParamsT) -> None:
        super().__init__(params)
        self.hook = lambda: None

    def __getstate__(self):
        return {**super().__getstate__(), "hook": self.hook}


class CopiesShareMomentum(Broken):
    def __deepcopy__(self, memo):
        twin = Broken.__new__(type(self))
        twin.__setstate__(
            {
                "defaults": self.defaults,
                "param_groups": copy.deepcopy(self.param_groups, memo),
                "state": self.state.__class__(dict),
            }
        )
        for p, q in zip(
            self.param_groups[0]["params"], twin.param_groups[0]["params"], strict=True
        ):
            twin.state[q] = self.state[p]
        return twin


class CopiesForget(Broken):
    def __getstate__(self):
        return {**super().__getstate__(), "state": self.state.__class__(dict)}


class TrainsFrozenOnes(Broken):
    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        if any(p.grad is not None for group in self.param_groups for p in group["params"]):
            for group in self.param_groups:
                for param in group["params"]:
                    param.mul_(1 - 0.01 * group["lr"])
        return loss


class TakesOneGroup(Broken):
    def step(self, closure=None):
        groups = self.param_groups
        self.param_groups = groups[:1]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups


class RefusesNames(Broken):
    def __init__(self, params: Iterable[object]) -> None:
        given = list(params)
        if isinstance(given[0], tuple):
            raise TypeError("no names, please")
        super().__init__(given)


class DrawsGlobally(Broken):
    def step(self, closure=None):
        torch.rand(())
        return super().step(closure)


class SeedsGlobally(Broken):
    def __init__(self, params: ParamsT) -> None:
        super().__init__(params)
        self.scale = float(torch.rand(()))

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.sub_(param.grad, alpha=group["lr"] * getattr(self, "scale", 0.0))
        return loss


class Climbs(Broken):
    def __init__(self, params: ParamsT) -> None:
        super().__init__(params)
        for group in self.param_groups:
            group["maximize"] = True


class HasMomentumAtOnce(Broken):
    """A sound one: its state exists from construction."""

    def __init__(self, params: ParamsT) -> None:
        super().__init__(params)
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["momentum_buffer"] = torch.zeros_like(param)


BROKEN: list[tuple[type[torch.optim.Optimizer], str]] = [
    (CallsClosureTwice, "called the closure 2 times"),
    (CallsClosureWithoutGradients, "called with gradients disabled"),
    (ForgetsTheLoss, "did not return the closure's loss"),
    (DecaysWithoutGradients, "without gradients changed parameters"),
    (CountsWithoutGradients, "without gradients changed the state"),
    (HasNoMomentum, "CyclicLR does not work"),
    (FreezesTheRate, "learning rate of 0 still moves"),
    (HasATensorRate, "must be a float"),
    (StandsStill, "with gradients changed nothing"),
    (WidensParameters, "did not stay finite and of that dtype"),
    (KeepsWideMomentum, "changed the dtypes of the state"),
    (LosesMomentumOnLoad, "resumed from state_dict takes another course"),
    (CountsInTheGroup, "saving by torch.distributed.checkpoint changed"),
    (ShowsStateThatTorchCannotSee, "made 76 bytes of gradients, though there is state"),
    (DividesByTheNorm, "loading by torch.distributed.checkpoint changed the parameters"),
    (LosesWhatIsBesideTheState, "resumed by torch.distributed.checkpoint takes another course"),
    (CannotBeCopied, "pickle does not work"),
    (CopiesShareMomentum, "a copy by copy.deepcopy"),
    (CopiesForget, "a copy by copy.deepcopy takes another course"),
    (TrainsFrozenOnes, "a frozen parameter was changed"),
    (TakesOneGroup, "passed as groups take another course"),
    (RefusesNames, "cannot be passed as named_parameters"),
    (DrawsGlobally, "draws from the global generator"),
    (SeedsGlobally, "takes another course|two runs with the same seed differ"),
    (Climbs, "parabola is not descended"),
]


@pytest.mark.parametrize(("broken", "sentence"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_each_broken_optimizer_is_caught(
    broken: type[torch.optim.Optimizer], sentence: str
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_optimizer(broken)  # type: ignore[arg-type]


def test_state_at_construction_is_asked_for_only_where_it_is_promised() -> None:
    check_optimizer(Broken)
    with pytest.raises(AssertionError, match="made 76 bytes of gradients: a new optimizer has no"):
        check_optimizer(Broken, state_at_construction=True)
    check_optimizer(HasMomentumAtOnce, state_at_construction=True)


def test_convergence_can_be_left_out() -> None:
    check_optimizer(lambda params: Broken(params, lr=1e-5), expect_convergence=False)


def test_rosenbrock_is_harder_than_the_parabola() -> None:
    # 3,000 steps of this size end the parabola, and stop short in the curved valley.
    with pytest.raises(AssertionError, match="Rosenbrock's function is not descended"):
        check_optimizer(lambda params: Broken(params, lr=2e-4))


def test_every_scheduler_of_torch_is_tried() -> None:
    named = {
        name
        for name in lr_scheduler.__all__
        if name not in ("LRScheduler", "_LRScheduler", "SWALR")
    }
    assert set(SCHEDULERS) == named


# --- techniques -------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(nn.functional.dropout(self.norm(self.first(x)).tanh(), 0.1))


@dataclasses.dataclass(frozen=True)
class Patched(Technique):
    """Replaces the forward of `first`; each subclass below breaks one clause."""

    name: ClassVar[str] = "patched"
    slot: ClassVar[Slot] = Slot.ACTIVATIONS

    def fidelity(self, profile: Profile) -> Fidelity:
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        return ""

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        return (cls(),)

    def predict(self, profile: Profile) -> Profile:
        return profile

    def describe(self) -> str:
        return "nothing"

    def target(self, model: nn.Module) -> nn.Module:
        return model.first  # type: ignore[return-value]

    def apply(self, model: nn.Module) -> None:
        if "forward" in vars(self.target(model)):
            raise RefusedError("it is applied already.", hint="remove it first.")
        self.target(model).forward = Forward(self.target(model))  # type: ignore[assignment]

    def remove(self, model: nn.Module) -> None:
        vars(self.target(model)).pop("forward", None)


class Forward:
    """A forward that does what the class's own does."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return type(self.module).forward(self.module, x)


class ScaledForward(Forward):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x) * (1 + 1e-9)


class DrawingForward(Forward):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand(())
        return super().__call__(x)


class RoundedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.float().to(grad.dtype)


class RoundingForward(Forward):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return RoundedGradient.apply(super().__call__(x))


def _forward_of(kind: type[Forward]) -> type[Patched]:
    class Changed(Patched):
        def target(self, model: nn.Module) -> nn.Module:
            return model.second  # type: ignore[return-value]

        def apply(self, model: nn.Module) -> None:
            self.target(model).forward = kind(self.target(model))  # type: ignore[assignment]

    return Changed


class UpdatesBuffersTwice(Patched):
    def target(self, model: nn.Module) -> nn.Module:
        return model.norm  # type: ignore[return-value]

    def apply(self, model: nn.Module) -> None:
        def forward(x: torch.Tensor) -> torch.Tensor:
            nn.BatchNorm1d.forward(self.target(model), x)  # type: ignore[arg-type]
            return nn.BatchNorm1d.forward(self.target(model), x)  # type: ignore[arg-type]

        self.target(model).forward = forward  # type: ignore[assignment]


class AppliesTwice(Patched):
    def apply(self, model: nn.Module) -> None:
        self.target(model).forward = Forward(self.target(model))  # type: ignore[assignment]


class LeavesForward(Patched):
    def remove(self, model: nn.Module) -> None:
        return


class LeavesHook(Patched):
    def apply(self, model: nn.Module) -> None:
        super().apply(model)
        model.second.register_forward_hook(lambda *_: None)  # type: ignore[union-attr]


class Wraps(Patched):
    def apply(self, model: nn.Module) -> None:
        if not isinstance(model.first, nn.Linear):
            raise RefusedError("it is applied already.", hint="remove it first.")
        model.first = nn.Sequential(model.first)

    def remove(self, model: nn.Module) -> None:
        model.first = model.first[0]  # type: ignore[index]


class SwapsClass(Patched):
    def apply(self, model: nn.Module) -> None:
        model.__class__ = type("Other", (Model,), {})

    def remove(self, model: nn.Module) -> None:
        model.__class__ = Model


class BoundToTheOriginal(Patched):
    """Its forward is a closure, which a deep copy shares with the original."""

    def apply(self, model: nn.Module) -> None:
        first = model.first
        if "forward" in vars(first):
            raise RefusedError("it is applied already.", hint="remove it first.")
        first.forward = lambda x: nn.Linear.forward(first, x)  # type: ignore[assignment,arg-type]


class Refuses(Patched):
    def refuse(self, profile: Profile) -> str:
        return "not today."


class DropsMomentum(SlicedStep):
    def make_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        for group in optimizer.param_groups:
            group["betas"] = (0.0, 0.999)
        return super().make_optimizer(optimizer)


class SlicesTwice(SlicedStep):
    def make_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        return optimizer


class PromisesTooMuch(Patched):
    """Predicts that nothing but parameters, state and batch is ever alive."""

    def predict(self, profile: Profile) -> Profile:
        static = [s for s in profile.trace.storages if s.birth == ALWAYS]
        trace = dataclasses.replace(profile.trace, storages=(*static, *static), ops=())
        return dataclasses.replace(profile, traces=(trace,))


TECHNIQUES: list[tuple[Callable[[], Technique], str]] = [
    (_forward_of(ScaledForward), "changes the loss"),
    (_forward_of(RoundingForward), "changes the gradient of"),
    (_forward_of(DrawingForward), "global generator in another state|changes the loss"),
    (UpdatesBuffersTwice, "changes the buffer norm"),
    (AppliesTwice, "can be applied twice"),
    (LeavesForward, "leaves the module first changed"),
    (LeavesHook, "leaves the module second changed"),
    (Wraps, "keys of state_dict"),
    (SwapsClass, "its class"),
    (BoundToTheOriginal, "deep copy"),
    (Refuses, "not today"),
    (DropsMomentum, "off by"),
    (SlicesTwice, "applied twice to an optimizer"),
    (PromisesTooMuch, "predicts a peak of"),
]


def _loss(output: object, batch: object) -> torch.Tensor:
    assert isinstance(output, torch.Tensor)
    return output.square().mean()


@pytest.mark.parametrize(
    ("broken", "sentence"), TECHNIQUES, ids=lambda x: getattr(x, "__name__", "")
)
def test_each_broken_technique_is_caught(broken: Callable[[], Technique], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_technique(broken(), Model(), torch.randn(5000, 6), loss=_loss)


@pytest.mark.parametrize("technique", [Patched(), SlicedStep(), ReleaseGradients()])
def test_sound_techniques_pass(technique: Technique) -> None:
    model, batch = Model(), torch.randn(5, 6)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    check_technique(technique, model, batch, loss=_loss)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert "forward" not in vars(model.first)


def test_the_checks_need_no_test_framework() -> None:
    module = sys.modules["shoestring.testing.optimizers"]
    assert "pytest" not in vars(module)
