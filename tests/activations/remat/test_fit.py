"""A model that was fitted into a budget stays within it and gives what it gave before."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.remat import fit, pareto, remove, schedule, schedules
from shoestring.activations.remat.outside import outside_bytes
from shoestring.core.errors import InfeasibleError, RefusedError
from shoestring.measure.tracing.allocator import measure_step, standing
from tests.activations.remat.nets import WithLoss, convolutional, image, sequence, transformer


class Words(nn.Module):
    """A language model that returns scores, so that its loss lies outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(300, 32)
        self.body = transformer(0.1)[1:-1]
        self.head = nn.Linear(32, 300)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.body(self.words(ids)))
        return scores


def likelihood(scores: object, ids: object) -> torch.Tensor:
    """Return the loss of `Words`."""
    assert isinstance(scores, torch.Tensor)
    assert isinstance(ids, torch.Tensor)
    return F.cross_entropy(scores[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def ids() -> torch.Tensor:
    """Return a batch for `Words`."""
    return torch.arange(8 * 32).view(8, 32) % 300


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("network", "x", "share"),
    [(transformer(), sequence(), "85%"), (convolutional(), image(), "95%")],
)
def test_the_peak_stays_within_the_budget_and_is_the_predicted_one(
    network: nn.Module, x: torch.Tensor, share: str
) -> None:
    model = WithLoss(copy.deepcopy(network))
    schedule = fit(model, x, activations=share, cost="flops")
    assert schedule.peak <= schedule.budget < schedule.plain.peak

    def step() -> None:
        model(x).backward()
        model.zero_grad()

    step()
    measured = measure_step(step, roots=lambda: [*model.parameters(), *model.buffers(), x])
    assert measured.peak - measured.static == schedule.peak + 8


def test_a_loss_outside_of_the_model_counts() -> None:
    model, x = Words(), ids()
    schedule = fit(model, x, activations="70%", cost="flops", loss=likelihood)

    def step() -> None:
        likelihood(model(x), x).backward()
        model.zero_grad()

    step()
    measured = measure_step(step, roots=lambda: [*model.parameters(), x])
    assert measured.peak - measured.static <= schedule.budget + 8
    assert measured.peak - measured.static == pytest.approx(schedule.peak, rel=0.05)


class Telling(Words):
    """One that returns what its scores are made of, too."""

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.body(self.words(ids))
        return {"hidden": hidden, "scores": self.head(hidden)}


def test_the_backward_between_two_outputs_is_the_models_own() -> None:
    scores = outside_bytes(Words(), ids(), likelihood)
    both = outside_bytes(Telling(), ids(), lambda out, x: likelihood(out["scores"], x))
    assert both == scores


def test_gradients_are_those_of_the_plain_model() -> None:
    plain, x = Words(), ids()
    model = copy.deepcopy(plain)
    fit(model, x, activations="70%", cost="flops", loss=likelihood)
    for each in (plain, model):
        torch.manual_seed(0)
        likelihood(each(x), x).backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_to_fit_runs_nothing_and_changes_nothing_else() -> None:
    model, x = WithLoss(convolutional()), image()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    signature = inspect.signature(model.forward)
    fit(model, x, activations="95%", cost="flops")
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert model.state_dict().keys() == state.keys()
    assert torch.equal(torch.get_rng_state(), random)
    assert type(model) is WithLoss
    assert inspect.signature(model.forward) == signature


def test_evaluation_is_untouched() -> None:
    plain, x = WithLoss(convolutional()), image()
    model = copy.deepcopy(plain)
    fit(model, x, activations="95%", cost="flops")
    for each in (plain, model):
        each.eval()
    assert torch.equal(model(x), plain(x))
    with torch.no_grad():
        assert torch.equal(model.train()(x), plain.train()(x))


def test_a_copy_works_on_its_own() -> None:
    plain, x = Words(), ids()
    model = copy.deepcopy(plain)
    fit(model, x, activations="70%", cost="flops", loss=likelihood)
    copied = copy.deepcopy(model)
    for each in (plain, copied):
        torch.manual_seed(0)
        likelihood(each(x), x).backward()
    for mine, theirs in zip(copied.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_remove_undoes_it() -> None:
    model = WithLoss(transformer())
    with pytest.raises(RefusedError, match="not fitted"):
        remove(model)
    fit(model, sequence(), activations="85%", cost="flops")
    with pytest.raises(RefusedError, match="fitted into a budget already"):
        fit(model, sequence(), activations="85%")
    remove(model)
    assert "forward" not in model.__dict__


@pytest.mark.parametrize("activations", ["100%", 2**40])
def test_a_budget_that_holds_the_plain_step_leaves_the_model(activations: str | int) -> None:
    model = WithLoss(transformer())
    schedule = fit(model, sequence(), activations=activations, cost="flops")
    assert schedule.overhead == 0
    assert "forward" not in model.__dict__


def test_too_small_a_budget_names_the_least_and_what_binds_it() -> None:
    model = WithLoss(transformer())
    with pytest.raises(InfeasibleError, match="bound by") as caught:
        fit(model, sequence(), activations="1%", cost="flops")
    assert "forward" not in model.__dict__
    least = int(caught.value.hint.partition("activations=")[2].split()[0])
    assert fit(model, sequence(), activations=least, cost="flops").peak <= least


def test_the_table_says_what_is_computed_again() -> None:
    schedule = fit(WithLoss(transformer()), sequence(), activations="85%", cost="flops")
    table = schedule.table()
    assert "computed again" in table
    assert f"{schedule.overhead:.1%}" in table


class Branching(nn.Module):
    """What it does depends on its batch's data."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 64) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.sum() * 0
        for layer in self.layers:
            mixed = layer(x).tanh()
            total = total + (mixed.exp().sum() if bool(mixed.sum() > 0) else mixed.sin().mean())
        return total


class Recurrent(nn.Module):
    """A layer that the compiler does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(8, 8), nn.Sequential(nn.Linear(8, 64), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.head(self.layer(x)[0].cos()).exp().mean()
        return mean


@pytest.mark.parametrize("kind", [Branching, Recurrent])
def test_what_cannot_be_captured_is_computed_again_without(kind: type[nn.Module]) -> None:
    plain = kind()
    model, x = copy.deepcopy(plain), sequence()
    made = fit(model, x, activations="80%", cost="flops")
    assert made.path == "eager"
    assert "cannot be captured as one graph" in made.why
    assert made.why in made.table()
    assert made.peak <= made.budget
    assert made.overhead > 0
    assert made.lower_bound <= made.seconds
    assert made.check is not None
    assert kind is Branching or made.check.checked == ("",)
    assert same_step(model, plain, x)
    assert measured(model, x) == pytest.approx(made.peak, abs=1024)
    remove(model)
    assert "forward" not in model.__dict__


class Narrowing(nn.Module):
    """A block of another width each time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = F.gelu(self.linear(x))
        return out


@pytest.mark.parametrize("check", [True, False])
def test_blocks_and_models_of_one_class_are_captured_however_many(*, check: bool) -> None:
    most = torch._dynamo.config.recompile_limit
    x = torch.ones(64, 40)
    for _ in range(2 if check else most + 1):
        network = nn.Sequential(*(Narrowing(40 - k) for k in range(most + 1 if check else 3)))
        made = fit(WithLoss(network), x, activations="80%", cost="flops", check=check)
        assert (made.path, made.why) == ("captured", "")


def test_the_eager_path_says_the_least_that_fits() -> None:
    with pytest.raises(InfeasibleError, match="the least that was found is") as caught:
        fit(Branching(), sequence(), activations="10%", cost="flops")
    assert "give activations=" in caught.value.hint


def test_what_the_compiler_computes_otherwise_is_not_captured() -> None:
    plain, x = WithLoss(transformer(0.1)), sequence()
    model = copy.deepcopy(plain)
    with torch.autocast("cpu", torch.bfloat16):
        made = fit(model, x, activations="85%", cost="flops")
        assert made.path == "eager"
        assert "computed again gives another" in made.why
        assert same_step(model, plain, x)


def test_a_schedule_is_applied_later() -> None:
    plain, x = WithLoss(transformer()), sequence()
    model = copy.deepcopy(plain)
    made = schedule(model, x, activations="85%", cost="flops")
    assert made.path == "captured"
    assert "forward" not in model.__dict__
    made.apply(model)
    with pytest.raises(RefusedError, match="already"):
        made.apply(model)
    assert same_step(model, plain, x)
    assert len(schedules(model)) == 1


def test_a_front_goes_from_the_plain_step_to_the_least() -> None:
    model = WithLoss(transformer())
    front = pareto(model, sequence(), n=5, cost="flops")
    assert "forward" not in model.__dict__
    assert 2 <= len(front.schedules) <= 5
    assert front.schedules[0].overhead == 0
    with pytest.raises(RefusedError, match="of a graph alone"):
        front.schedules[-1].apply(model)


def same_step(mine: nn.Module, theirs: nn.Module, x: torch.Tensor) -> bool:
    """Whether loss, gradients, buffers and random numbers are equal to the last bit."""
    found = []
    for each in (mine, theirs):
        torch.manual_seed(0)
        loss = each(x)
        loss.backward()
        grads = [p.grad for p in each.parameters()]
        found.append([loss.detach(), *grads, *each.buffers(), torch.get_rng_state()])
    return all(map(torch.equal, *found))


def measured(model: nn.Module, x: torch.Tensor) -> int:
    """The peak of a step above parameters, buffers and the batch, by the allocator."""

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        model(x).backward()

    step()
    found = measure_step(step, roots=lambda: standing(model, x))
    return found.peak - found.static


def test_a_forward_that_another_tool_replaced_is_not_lost() -> None:
    model = WithLoss(transformer())
    model.forward = lambda x: 2 * WithLoss.forward(model, x)
    own = model.forward
    with pytest.raises(RefusedError, match="replaced by a function"):
        fit(model, sequence(), activations="85%", cost="flops")
    assert model.forward is own
