"""What a step takes outside of the model: the loss, between the model's forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from shoestring.activations.remat.capture._torch import storage_key
from shoestring.core.trace import Kind
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.fake import (
    Batch,
    Faker,
    fake_mode,
    model_tensors,
    output_tensors,
    tensors_in,
)
from shoestring.measure.tracing.step import Loss, call_model, scalar_loss
from shoestring.measure.tracing.tracer import Tracer
from shoestring.measure.tracing.workspace import WorkspaceProbe


def outside_bytes(model: nn.Module, batch: Batch, loss: Loss | None = None) -> int:
    """Return the most bytes of the loss and its backward, beside outputs and their gradients.

    They are traced on outputs without data, which are released when the loss is there.

    Args:
        model: returns the outputs; not changed.
        batch: one batch.
        loss: ``f(output, batch) -> scalar``; None takes the output's own loss, else the mean.
    """
    mode = fake_mode()
    faker = Faker(mode)
    twin = faker.deepcopy(model, model_tensors(model))
    assert isinstance(twin, nn.Module)
    shapes = faker.batch(batch)
    with rng_untouched(), mode, torch.enable_grad():
        tracer = Tracer(probe=WorkspaceProbe(), faking=True)
        for tensor in tensors_in(shapes):
            tracer.register(tensor, Kind.BATCH)
        output = call_model(twin, shapes)
        given = [t for t in output_tensors(output) if t.requires_grad]
        known = _bytes([*given, *tensors_in(shapes)])
        edges = []
        while given:  # nothing here may keep an output
            tracer.register(given[-1], Kind.BATCH)
            edges.append(get_gradient_edge(given.pop()))
        edges = _last(edges)
        with tracer:
            value = scalar_loss(output, shapes, loss)[0]
            del output
            found = torch.autograd.grad(value, edges, allow_unused=True)
        known += _bytes([gradient for gradient in found if gradient is not None])
    trace = tracer.trace(rows=1, steady=False)
    tracer.close()
    return max(0, trace.peak - known)


def _last(edges: Sequence[GradientEdge]) -> list[GradientEdge]:
    """Return the edges that lie behind no other: beyond those the model's own backward begins."""
    behind: set[Node] = set()
    waiting = [node for edge in edges for node, _ in edge.node.next_functions]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in behind:
            behind.add(node)
            waiting += [following for following, _ in node.next_functions]
    return [edge for edge in edges if edge.node not in behind]


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    storages = {storage_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
