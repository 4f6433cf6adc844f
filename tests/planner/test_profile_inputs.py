"""profile and plan on models and batches as people bring them: they work, or say why not."""

from __future__ import annotations

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

import shoestring
from shoestring import Budget, Profile
from shoestring.core import AssumptionWarning, InputError, RefusedError, ShoestringError
from shoestring.measure._torch import FakeTensor
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.step import StepOptions, plain_step


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Output:
    y: torch.Tensor
    note: str = "text"


class Net(nn.Module):
    """A linear layer whose output is wrapped."""

    def __init__(self, wrap: Callable[[torch.Tensor], object] = lambda y: y) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> object:
        return self.wrap(self.layer(x))


def mean(output: object, batch: object) -> torch.Tensor:
    assert isinstance(output, torch.Tensor)
    return output.square().mean()


profile = functools.partial(shoestring.profile, optimizer=torch.optim.AdamW, machine="h100")


def snapshot(model: nn.Module) -> tuple[dict[str, torch.Tensor], list[torch.Tensor | None]]:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return state, [p.grad for p in model.parameters()]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"y": y, "n": 3},
        lambda y: [y, None],
        lambda y: (y, y.argmax()),
        Output,
        lambda y: Pair(y, 2 * y),
        lambda y: {"parts": [y, {"deeper": y}]},
    ],
    ids=["dict", "list", "tuple", "dataclass", "namedtuple", "nested"],
)
def test_an_output_without_a_loss_is_averaged_with_a_warning(
    wrap: Callable[[torch.Tensor], object],
) -> None:
    model = Net(wrap)
    state, gradients = snapshot(model)
    with pytest.warns(AssumptionWarning, match="the mean of its output"):
        prof = profile(model, torch.zeros(4, 8))
    assert prof.assumptions
    assert prof.peak > 4 * 8 * 8 * 4  # the weight and its like
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.grad for p in model.parameters()] == gradients


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda y: y.argmax(-1), "no loss can be taken"),
        (lambda y: None, "no loss can be taken"),
        (lambda y: {"y": y.detach()}, "no loss can be taken"),
        (lambda y: {"loss": y.detach().sum()}, "no trainable parameter"),
        (lambda y: {"loss": y}, "not a tensor with one element"),
    ],
    ids=["integers", "nothing", "detached", "detached loss", "many losses"],
)
def test_an_output_without_gradients_is_refused(
    wrap: Callable[[torch.Tensor], object], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        profile(Net(wrap), torch.zeros(4, 8))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (torch.zeros(0, 8), "the batch is empty"),
        (torch.zeros(4, 0), "the batch is empty"),
        ({}, "no tensor with rows"),
        ((), "no tensor with rows"),
        (torch.tensor(1.0), "no tensor with rows"),
        ((torch.zeros(4, 8), torch.zeros(4, 8)), "the step raised TypeError"),
        ({"y": torch.zeros(4, 8)}, "the step raised TypeError"),
        (torch.zeros(4, 9), "the step raised RuntimeError"),
    ],
)
def test_a_batch_that_cannot_be_used_is_refused(batch: object, words: str) -> None:
    model = Net()
    state, _ = snapshot(model)
    with pytest.raises(InputError, match=words) as caught:
        profile(model, batch, loss=mean)
    assert caught.value.hint
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_integer_inputs_of_every_width() -> None:
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8))
    for dtype in (torch.int64, torch.int32):
        prof = profile(model, torch.zeros(4, 6, dtype=dtype), loss=mean)
        assert prof.step.batch.endswith(str(dtype).removeprefix("torch."))


def test_complex_weights_and_inputs() -> None:
    model = nn.Linear(8, 8, dtype=torch.complex64)
    prof = profile(model, torch.zeros(4, 8, dtype=torch.complex64), loss=lambda y, x: y.abs().sum())
    assert prof.modules[""].parameters >= 8 * (8 * 8 + 8)


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    apart = profile(model, torch.zeros(4, 64), loss=mean)
    model[1].weight = model[0].weight
    tied = profile(model, torch.zeros(4, 64), loss=mean)
    assert apart.step.num_parameters == 2 * tied.step.num_parameters == 2 * 64 * 64
    # Parameter, and AdamW's two moments.
    assert apart.static - tied.static >= 3 * 64 * 64 * 4


def test_frozen_parameters_have_no_gradient_and_no_state() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    whole = profile(model, torch.zeros(4, 64), loss=mean)
    model[0].requires_grad_(False)
    part = profile(model, torch.zeros(4, 64), loss=mean)
    assert part.step.num_trainable == whole.step.num_trainable // 2
    saved = whole.modules[""].optimizer - part.modules[""].optimizer
    assert saved >= 2 * 4 * (64 * 64 + 64)


def test_a_model_that_is_frozen_altogether_is_refused() -> None:
    model = Net().requires_grad_(False)
    with pytest.raises(ShoestringError):
        profile(model, torch.zeros(4, 8), loss=mean)


class Branches(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return self.layer(y) if y.sum() > 0 else y[y > 0]


def test_a_step_that_depends_on_data_is_run_on_a_copy() -> None:
    model = Branches()
    with torch.no_grad():
        model.layer.bias.fill_(100.0)
    state, gradients = snapshot(model)
    rng = torch.get_rng_state()
    prof = profile(model, torch.zeros(4, 8), loss=mean)
    assert not prof.step.fake
    assert "depends on data" in prof.assumptions[0]
    assert sum(op.name == "aten.addmm.default" for op in prof.trace.ops) == 2, "the other branch"
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [p.grad for p in model.parameters()] == gradients
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_step_that_depends_on_data_is_refused_without_data() -> None:
    with torch.device("meta"):
        model = Branches()
    with pytest.raises(InputError, match="depends on data, and the model has none") as caught:
        profile(model, torch.zeros(4, 8), loss=mean)
    assert "weights" in caught.value.hint


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"is not a torch\.nn\.Module"):
        profile(lambda x: x, torch.zeros(4, 8))


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = Net()
    model.lines = (line for line in ["a"])  # type: ignore[assignment]
    with pytest.raises(RefusedError, match="cannot be copied"):
        profile(model, torch.zeros(4, 8), loss=mean)


@pytest.mark.parametrize("optimizer", [lambda params: "no optimizer", lambda params: None])
def test_what_is_no_optimizer_is_refused(optimizer: Callable[..., object]) -> None:
    with pytest.raises(InputError, match=r"not a torch\.optim\.Optimizer"):
        shoestring.profile(Net(), torch.zeros(4, 8), loss=mean, optimizer=optimizer, machine="h100")


def made() -> Profile:
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)])
    return profile(model, torch.zeros(512, 64), loss=mean)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "2 gigs"}, "is not a size"),
        ({"memory": -5}, "is not a usable size"),
        ({"memory": 1.5}, "is not a size"),
        ({"memory": True}, "is not a size"),
        ({"memory": "0%"}, "is not a usable percentage"),
        ({"seconds": "soon"}, "is not a duration"),
        ({"seconds": float("nan")}, "is not a usable duration"),
        ({}, "the budget is empty"),
    ],
)
def test_a_budget_that_cannot_be_used_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Budget(**options)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_budget_below_the_least_says_what_is_reachable_and_what_binds() -> None:
    prof = made()
    with pytest.raises(shoestring.core.InfeasibleError) as caught:
        shoestring.plan(prof, Budget(memory="1MiB"))
    assert caught.value.exit_code == 3
    assert "the least reachable is" in caught.value.message
    assert "bound by" in caught.value.message
    assert caught.value.hint


def test_a_profile_changes_nothing_about_the_model() -> None:
    model = Net()
    before = copy.deepcopy(vars(model)["_modules"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        profile(model, torch.zeros(4, 8), loss=mean)
    assert str(model._modules) == str(before)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert all(p.grad is None for p in model.parameters())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_what_torch_cannot_run_without_data_is_traced_with_it() -> None:
    def picky(y: torch.Tensor) -> torch.Tensor:
        if isinstance(y, FakeTensor):
            raise RuntimeError("no fake kernel")
        return y

    model, batch = Net(picky), torch.ones(4, 8)
    prof = profile(model, batch, loss=mean)
    assert prof.peak == profile(Net(), batch, loss=mean).peak
    assert not prof.step.fake
    assert "torch cannot run the step without data" in prof.assumptions[0]
    with pytest.raises(InputError, match="no fake kernel"):
        profile(model.to("meta"), batch, loss=mean)


def test_grouped_products_in_single_precision() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    config = transformers.MixtralConfig(
        num_hidden_layers=1, vocab_size=64, num_key_value_heads=2, num_local_experts=4, **sizes
    )
    model = transformers.MixtralForCausalLM(config)
    words = torch.ones(2, 8, dtype=torch.int64)
    batch = {"input_ids": words, "labels": words}
    prof = shoestring.profile(model, batch)
    assert any(op.name == "aten._grouped_mm.default" for op in prof.trace.ops)
    assert prof.step.fake

    def step() -> None:
        plain_step(model, batch, None, StepOptions())

    step()
    peak = measure_step(step, roots=lambda: standing(model, batch, None)).peak
    assert prof.peak == pytest.approx(peak, rel=0.02)
