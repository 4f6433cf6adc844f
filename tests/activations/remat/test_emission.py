"""Graphs that follow a schedule give what the plain step gives, to the last bit."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter

import pytest
import torch
from torch import nn

from shoestring.activations.remat.capture.joint import Role
from shoestring.activations.remat.simulate import simulate
from shoestring.measure.tracing.allocator import measure_step
from tests.activations.remat.nets import (
    Captured,
    WithLoss,
    all_but_draws,
    convolutional,
    each_time,
    everything,
    feeding,
    image,
    plain,
    sequence,
    shifting,
    transformer,
)

NETWORKS = {
    "dropout 0.5": (transformer(0.5), sequence()),
    "dropout 0.1": (transformer(0.1), sequence()),
    "no dropout": (transformer(0.0), sequence()),
    "dropout through views": (feeding(), sequence()),
    "buffers that change, through views": (shifting(), sequence()),
    "batch normalisation": (convolutional(), image()),
}


TANGENT = Role.TANGENT
VIEWS = {torch.ops.aten.view.default, torch.ops.aten.t.default, torch.ops.aten.permute.default}
CHOICES = {
    "plain": plain,
    "everything": everything,
    "all but draws": all_but_draws,
    "each time": each_time,
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A network that was captured once, for all that is asked of it.

    Attributes:
        network: the plain one.
        x: its batch.
        captured: the network in some order.
    """

    network: nn.Module
    x: torch.Tensor
    captured: Captured


@pytest.fixture(
    scope="module",
    params=[(name, choice) for name in NETWORKS for choice in CHOICES],
    ids=", ".join,
)
def cell(request: pytest.FixtureRequest) -> Cell:
    """Return each network in each order."""
    name, choice = request.param
    network, x = NETWORKS[name]
    whole = WithLoss(network)
    return Cell(whole, x, Captured(whole, CHOICES[choice]))


def steps(network: nn.Module, call: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Run two steps; return losses, gradients, buffers and the random state after each."""
    network.zero_grad()
    found = []
    for step in range(2):
        torch.manual_seed(step)
        loss = call(x)
        loss.backward()
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        buffers = [b.clone() for b in network.buffers()]
        found += [loss.detach(), *gradients, *buffers, torch.get_rng_state()]
    return found


def test_equal_to_the_plain_step_to_the_last_bit(cell: Cell) -> None:
    captured, eager = cell.captured, copy.deepcopy(cell.network)
    captured.network.load_state_dict(eager.state_dict())
    ours = steps(captured.network, captured.run, cell.x)
    theirs = steps(eager, eager, cell.x)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


def test_the_simulated_peak_is_the_allocators(cell: Cell) -> None:
    captured, network = cell.captured, cell.captured.network

    def step() -> None:
        captured.run(cell.x).backward()
        network.zero_grad()

    network.zero_grad()
    step()
    measured = measure_step(step, roots=lambda: [*network.parameters(), *network.buffers(), cell.x])
    graph, order = captured.joint.graph, captured.order
    simulated = simulate(graph, order)
    # While numbers are drawn again, the state that the generator goes back to is put aside.
    node = graph.nodes[order[simulated.at]]
    drawn = simulated.at > order.index(graph.border) and node.kind == "native_dropout"
    state = torch.get_rng_state().nbytes if drawn else 0
    # The caller holds the loss, and backward begins with a gradient of one: a number each.
    assert measured.peak - measured.static == simulated.peak + state + 8


def test_what_crosses_the_border_is_what_was_chosen(cell: Cell) -> None:
    captured = cell.captured
    captured.run(cell.x)
    joint, graph = captured.joint, captured.joint.graph
    names = {node.name: node for node in joint.roles}
    places = captured.backward.graph.find_nodes(op="placeholder")
    saved = [names[place.name] for place in places if joint.roles[names[place.name]] is not TANGENT]
    values = {joint.values[node] for node in saved} - graph.held
    kept = simulate(graph, captured.order).kept
    only_returned = kept & set(graph.nodes[graph.border].reads)
    assert values <= kept <= values | only_returned
    # Views are made again; what is kept is the whole storage beneath them, once.
    assert not any(node.target in VIEWS for node in saved)
    assert len(saved) == len({joint.values[node] for node in saved})


@pytest.mark.parametrize("choice", ["everything", "each time"])
def test_operations_stand_in_the_graphs_as_often_and_in_the_order_that_was_chosen(
    choice: str,
) -> None:
    captured = Captured(transformer(0.0), CHOICES[choice])
    captured.run(sequence())
    graph, operations = captured.joint.graph, captured.joint.operations
    cut = captured.order.index(graph.border)
    for module, indices in (
        (captured.forward, captured.order[:cut]),
        (captured.backward, captured.order[cut + 1 :]),
    ):
        targets = {operations[k].target for k in captured.order if k != graph.border}
        written = [node.target for node in module.graph.nodes if node.target in targets]
        assert written == [operations[index].target for index in indices]


def test_dropout_is_made_again_from_its_mask_or_drawn_again() -> None:
    """Both ways are there for a solver: a quarter of the bytes, or the state of a generator."""
    captured = Captured(transformer(0.5), everything)
    captured.run(sequence())
    kinds = Counter(node.kind for node in captured.joint.graph.nodes)
    assert kinds["native_dropout"] == kinds["dropout_from_mask"] == kinds["random_state"] == 4
    assert "replay" in captured.backward.code


def test_statistics_are_copied_for_what_runs_again() -> None:
    captured = Captured(convolutional(), everything)
    captured.run(image())
    again = Counter(captured.order)
    nodes = captured.joint.graph.nodes
    norms = [k for k, node in enumerate(nodes) if "batch_norm_legit" in node.kind]
    assert [again[k] for k in norms] == [2, 2]
    copies = [k for k, node in enumerate(nodes) if node.kind == "clone"]
    assert [again[k] for k in copies] == [1, 1, 1, 1]


def test_a_small_mask_is_kept_and_no_state() -> None:
    captured = Captured(transformer(0.5, width=8), everything)
    captured.run(sequence()[:1])
    kinds = Counter(node.kind for node in captured.joint.graph.nodes)
    assert kinds["random_state"] == 0
    again = Counter(captured.order)
    nodes = captured.joint.graph.nodes
    assert all(again[k] == 1 for k, node in enumerate(nodes) if node.kind == "native_dropout")


def test_several_forwards_before_a_backward() -> None:
    network, x = transformer(0.5), sequence()
    captured = Captured(network, everything)
    eager = copy.deepcopy(network)
    for model, call in ((captured.network, captured.run), (eager, eager)):
        torch.manual_seed(0)
        first, second = call(x), call(2 * x)
        (first * second).mean().backward()
        assert all(p.grad is not None for p in model.parameters())
    for mine, theirs in zip(captured.network.parameters(), eager.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_tied_weights_and_outputs_in_a_dictionary() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(11, 8)
            self.mix = nn.Linear(8, 8)

        def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
            hidden = torch.tanh(self.mix(self.words(ids)))
            return {"logits": hidden @ self.words.weight.t(), "hidden": hidden}

    network, ids = Tied(), torch.arange(10).view(2, 5)
    captured = Captured(network, everything)
    eager = copy.deepcopy(network)
    for call in (captured.run, eager):
        out = call(ids)
        (out["logits"].sin().sum() + out["hidden"].cos().sum()).backward()
    for mine, theirs in zip(captured.network.parameters(), eager.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_a_second_derivative_is_refused() -> None:
    captured = Captured(transformer(0.0), everything)
    x = sequence().requires_grad_()
    (gradient,) = torch.autograd.grad(captured.run(x).square().mean(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()


def test_a_dropout_from_its_mask_may_follow_any_operation() -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(8, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = torch.tanh(self.mix(x))
            kept = torch.nn.functional.dropout(hidden, 0.5)
            return (kept.exp() * hidden.sin()).mean()

    network, x = Waves(), sequence()
    captured = Captured(network, all_but_draws)
    eager = copy.deepcopy(network)
    for call in (captured.run, eager):
        torch.manual_seed(0)
        call(x).backward()
    assert "dropout_from_mask" in captured.backward.code
    for mine, theirs in zip(captured.network.parameters(), eager.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
