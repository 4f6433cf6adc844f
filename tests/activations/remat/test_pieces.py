"""Gradients that autograd takes while the backward goes on, as it does without a compiler."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn

from shoestring.activations.remat.backends import backend
from shoestring.activations.remat.capture import pieces
from shoestring.measure.tracing.allocator import measure_step
from shoestring.optim.released import ReleasedSGD
from tests.activations.remat.nets import WithLoss, transformer

Step = Callable[[nn.Module, Callable[[torch.Tensor], torch.Tensor]], Sequence[torch.Tensor]]


def few() -> torch.Tensor:
    """Return a batch of so few tokens that the gradients are most of the step."""
    return torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(3))


class Pair:
    """A network, and a copy of it that is compiled."""

    def __init__(self, network: nn.Module) -> None:
        torch._dynamo.reset()
        self.plain = network
        self.model = copy.deepcopy(network)
        self.backend = backend(activations="100%", cost="flops")
        self.run = torch.compile(self.model, backend=self.backend, fullgraph=True)

    def agree(self, step: Step) -> bool:
        """Take a step with each; return whether all that it returns and leaves is equal."""
        found = []
        for network, run in ((self.model, self.run), (self.plain, self.plain)):
            network.zero_grad()
            torch.manual_seed(0)
            returned = step(network, run)
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            found.append([*returned, *gradients, *(p.detach() for p in network.parameters())])
        mine, theirs = found
        return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Return a Transformer whose backward comes in many pieces."""
    made = Pair(WithLoss(transformer(0.1, depth=1)))
    made.run(few()).backward()
    return made


def parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a network."""
    return list(network.parameters())


def some(network: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Ask for some gradients only, and then for all."""
    loss = run(few())
    wanted = parameters(network)[2:5]
    found = torch.autograd.grad(loss, wanted, retain_graph=True)
    assert all(p.grad is None for p in network.parameters())
    loss.backward(inputs=parameters(network)[4:6], retain_graph=True)
    assert sum(p.grad is not None for p in network.parameters()) == 2
    loss.backward()
    return list(found)


def twice(network: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Run backward twice through one forward, onto what is there."""
    run(few()).backward()
    loss = run(2 * few())
    loss.backward(retain_graph=True)
    loss.backward()
    return []


def together(network: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    """Use parameters in two forwards and outside of the graph; note each gradient, once."""
    seen: list[torch.Tensor] = []

    def note(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        seen.append(parameter.grad.clone())

    hooks = [p.register_post_accumulate_grad_hook(note) for p in network.parameters()]
    hooks += [p.register_hook(lambda gradient: 3 * gradient) for p in network.parameters()]
    for _ in range(2):
        outside = sum(p.square().sum() + p.sin().sum() for p in network.parameters())
        (run(few()) * run(few() + 1) + run(2 * few()) + outside).backward()
    for hook in hooks:
        hook.remove()
    assert len(seen) == 2 * len(parameters(network))
    return seen if network.training else []


def of_the_batch(
    network: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Ask for the gradient of a batch."""
    x = few().requires_grad_()
    run(x).backward()
    assert x.grad is not None
    return [x.grad]


@pytest.mark.parametrize("step", [some, twice, together])
def test_autograd_does_with_them_what_it_does_without_a_compiler(pair: Pair, step: Step) -> None:
    assert len(pair.backend.schedules) == 1
    if step is together:  # the order in which gradients are complete need not be the same
        assert pair.agree(lambda network, run: sorted(step(network, run), key=_number))
    else:
        assert pair.agree(step)


def _number(gradient: torch.Tensor) -> tuple[int, float]:
    return gradient.numel(), float(gradient.double().abs().sum())


def test_the_gradient_of_a_batch_comes_too() -> None:
    made = Pair(WithLoss(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))))
    assert made.agree(of_the_batch)


class Scaled(nn.Module):
    """Its backward reads a parameter after that parameter's gradient is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.rand(1, 16, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = (self.mix(x) * self.scale).square().mean()
        return out


def test_a_parameter_that_is_still_read_is_not_stepped() -> None:
    def step(network: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        optimizer = ReleasedSGD(network.parameters(), lr=0.5)
        for _ in range(2):
            run(few()).backward()
            optimizer.step()
        optimizer.close()
        return []

    assert Pair(Scaled()).agree(step)


class Alias(nn.Module):
    """It returns a parameter by another name beside its result."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.second(self.first(x).tanh()), self.first.weight.t()


def test_what_comes_from_outside_through_an_output_is_added() -> None:
    def step(
        network: nn.Module, run: Callable[..., tuple[torch.Tensor, ...]]
    ) -> list[torch.Tensor]:
        out, weight = run(few())
        (out.square().mean() + weight.sin().sum()).backward()
        return []

    assert Pair(Alias()).agree(step)


class Writing(nn.Module):
    """It writes to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.first(x.mul_(2)).tanh()).square().mean()
        return out


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of torch itself
def test_an_input_with_a_gradient_may_be_written_to() -> None:
    def step(network: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        x = few().requires_grad_()
        computed = x.sin()
        run(computed).backward()
        assert x.grad is not None
        return [x.grad, computed.detach()]

    assert Pair(Writing()).agree(step)


def test_a_second_derivative_is_refused() -> None:
    made = Pair(Scaled())
    eager = torch.autograd.grad(made.plain(few()), parameters(made.plain))
    first = torch.autograd.grad(made.run(few()), parameters(made.model), create_graph=True)
    assert all(map(torch.equal, first, eager))
    for gradient in first:
        with pytest.raises(RuntimeError, match="double backward"):
            gradient.sum().backward(retain_graph=True)


@functools.cache
def peaks() -> dict[str, int]:
    """Return peaks above what is there before the step, and bytes of all gradients."""
    made = Pair(WithLoss(transformer(0.1, depth=3, width=64)))
    model, x = made.model, few()

    def roots() -> list[torch.Tensor]:
        gradients = [p.grad for p in model.parameters() if type(p.grad) is torch.Tensor]
        return [*model.parameters(), *gradients, x]

    def measure(finish: Callable[[], object]) -> int:
        def step() -> None:
            made.run(x).backward()
            finish()

        step()
        step()
        measured = measure_step(step, roots=roots)
        return measured.peak - measured.static

    found = {"kept": measure(model.zero_grad), "predicted": made.backend.schedules[0].peak}
    found["accumulated"] = measure(lambda: None)
    model.zero_grad()
    optimizer = ReleasedSGD(model.parameters(), lr=0.1)
    found["released"] = measure(optimizer.step)
    found["gradients"] = sum(p.nbytes for p in model.parameters())
    return found


def test_gradients_that_stay_are_predicted_to_the_byte() -> None:
    assert peaks()["kept"] == peaks()["predicted"] + 8


@pytest.mark.parametrize("how", ["accumulated", "released"])
def test_gradients_that_do_not_stay_are_not_alive_together(how: str) -> None:
    assert peaks()["kept"] > peaks()["gradients"]
    assert peaks()[how] < 0.55 * peaks()["kept"]


def test_there_are_not_more_pieces_than_are_worth_it() -> None:
    ready = [pieces.Ready(place, place, place, 8) for place in range(1000)]
    groups = pieces.group(ready)
    assert len(groups) == pieces.MOST
    assert [each for several in groups for each in several] == ready
    at_once = [pieces.Ready(place, place, 7, 8) for place in range(9)]
    assert len(pieces.group(at_once)) == 1
