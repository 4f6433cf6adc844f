"""A fitted model is called, copied, saved and differentiated as any other."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers.utils import ModelOutput

from shoestring.activations.remat.fitting import fit, remove, schedules
from shoestring.core.errors import RefusedError
from tests.activations.remat.nets import WithLoss, sequence, transformer


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@dataclasses.dataclass
class Scores(ModelOutput):
    """What a model of transformers returns."""

    loss: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    states: tuple[torch.Tensor, ...] | None = None


@dataclasses.dataclass
class Plain:
    """A plain dataclass."""

    loss: torch.Tensor
    hidden: torch.Tensor


def as_scores(loss: torch.Tensor, hidden: torch.Tensor) -> object:
    """Return what transformers would."""
    return Scores(loss=loss, hidden=hidden, states=(hidden,))


def as_dict(loss: torch.Tensor, hidden: torch.Tensor) -> object:
    """Return a dict."""
    return {"loss": loss, "hidden": hidden}


def as_tuple(loss: torch.Tensor, hidden: torch.Tensor) -> object:
    """Return a tuple in a tuple."""
    return loss, (hidden, None)


class Returning(nn.Module):
    """It returns its loss and more, in some form."""

    def __init__(self, form: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        self.network = transformer(0.1, depth=1)
        self.form = form

    def forward(self, x: torch.Tensor) -> object:
        hidden = self.network(x)
        return self.form(hidden.square().mean(), hidden.tanh())


def of(output: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Return loss and hidden of any of the forms."""
    if isinstance(output, tuple):
        return output[0], output[1][0]
    if isinstance(output, dict):
        return output["loss"], output["hidden"]
    assert isinstance(output, Plain)
    return output.loss, output.hidden


def loss_of(output: object, batch: object) -> torch.Tensor:
    """Return a loss that needs more of the output than its loss."""
    loss, hidden = of(output)
    return loss + hidden.sin().mean()


@pytest.mark.parametrize("form", [as_scores, as_dict, as_tuple, Plain])
def test_outputs_of_any_form(form: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
    plain, x = Returning(form), sequence()
    model = copy.deepcopy(plain)
    schedule = fit(model, x, activations="90%", cost="flops", loss=loss_of)
    assert schedule.overhead > 0
    outputs = []
    for each in (model, plain):
        torch.manual_seed(0)
        outputs.append(each(x))
        loss_of(outputs[-1], x).backward()
    assert type(outputs[0]) is type(outputs[1])
    assert all(map(torch.equal, of(outputs[0]), of(outputs[1])))
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_autocast_gives_what_torch_s_own_partition_gives() -> None:
    theirs = WithLoss(transformer(0.1))
    mine, x = copy.deepcopy(theirs), sequence()
    with torch.autocast("cpu", torch.bfloat16):
        schedule = fit(mine, x, activations="85%", cost="flops", check=False)
    assert schedule.path == "captured"
    assert schedule.overhead > 0
    compiled = torch.compile(theirs, backend="aot_eager_default_partitioner", fullgraph=True)
    losses = []
    for run in (mine, compiled):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(run(x))
        losses[-1].backward()
    assert len(schedules(mine)) == 1
    assert torch.equal(*losses)
    for ours, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours.grad, other.grad)


def test_a_backward_alone_under_autocast_is_the_plain_one() -> None:
    parts = (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Tanh()) for _ in range(4))
    plain, x = WithLoss(nn.Sequential(*parts)), sequence()
    model = copy.deepcopy(plain)
    fit(model, x, activations="90%", cost="flops")
    for each in (model, plain):
        loss = each(x)
        with torch.autocast("cpu", torch.bfloat16):
            loss.backward()
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_states_are_saved_and_loaded_and_copies_are_their_own() -> None:
    plain, x = WithLoss(transformer(0.1, depth=1)), sequence()
    model = copy.deepcopy(plain)
    fit(model, x, activations="85%", cost="flops")
    other = WithLoss(transformer(0.1, depth=1))
    model.load_state_dict(other.state_dict())
    plain.load_state_dict(model.state_dict())
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    remove(copied)
    found = []
    for each in (plain, model):
        torch.manual_seed(0)
        each(x).backward()
        found.append([p.grad for p in each.parameters()])
    assert all(map(torch.equal, *found))
    assert len(schedules(model)) == 1
    with pytest.raises(RefusedError, match="not fitted"):
        schedules(copied)


def test_a_second_derivative_is_refused() -> None:
    model, x = WithLoss(transformer(0.0, depth=1)), sequence()
    fit(model, x, activations="85%", cost="flops")
    first = torch.autograd.grad(model(x), list(model.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        sum(gradient.square().sum() for gradient in first).backward()
