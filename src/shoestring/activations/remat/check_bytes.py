"""What a check of a block takes, foreseen without running it."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from shoestring.activations.remat.capture._torch import storage_key
from shoestring.activations.remat.check_calls import Call
from shoestring.core.trace import Kind
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.fake import (
    Faker,
    fake_mode,
    model_tensors,
    output_tensors,
    tensors_in,
)
from shoestring.measure.tracing.tracer import Tracer
from shoestring.measure.tracing.workspace import WorkspaceProbe

_STATES: Final = 5
"""States of the generator: after forward and after backward of both runs, and the first one."""


def bytes_of_check(block: nn.Module, call: Call) -> int:
    """Return the most bytes of a check beside the block's own and the copies of a call.

    They are the peak of its forward and backward, with the results of the run before, as both
    runs' results are compared; and the copies of its buffers.

    Args:
        block: not run.
        call: its arguments.

    Raises:
        RefusedError: the block cannot be copied.
    """
    mode = fake_mode()
    faker = Faker(mode)
    twin = faker.deepcopy(block, model_tensors(block))
    assert isinstance(twin, nn.Module)
    shapes = faker.batch(tuple(tensor for _, tensor, _ in call.tensors))
    standing = list(model_tensors(twin))
    with rng_untouched(), mode, torch.enable_grad():
        tracer = Tracer(probe=WorkspaceProbe(), faking=True)
        for tensor in [*tensors_in(shapes), *standing]:
            tracer.register(tensor, Kind.BATCH)
        with tracer:
            results = _run(twin, call, tuple(tensors_in(shapes)))
    trace = tracer.trace(rows=1, steady=False)
    tracer.close()
    known = _bytes([*tensors_in(shapes), *standing])
    copies = 2 * sum(buffer.nbytes for buffer in block.buffers())
    copies += _STATES * torch.get_rng_state().nbytes
    return max(0, trace.peak - known) + _bytes(results) + copies


def _run(twin: nn.Module, call: Call, shapes: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    leaves, passed = [], []
    for (_, _, differentiated), shape in zip(call.tensors, shapes, strict=True):
        if differentiated:
            leaves.append(shape.detach().requires_grad_())
            passed.append(leaves[-1].clone())
        else:
            passed.append(shape.clone())
    args, kwargs = call.filled(passed)
    results = list(output_tensors(twin(*args, **kwargs)))
    ends = [t for t in results if t.requires_grad]
    sources = [*leaves, *(p for p in twin.parameters() if p.requires_grad)]
    if not (ends and sources):
        return results
    given = [torch.empty_like(t) for t in ends]
    found = torch.autograd.grad(ends, sources, given, allow_unused=True)
    return [*results, *(gradient for gradient in found if gradient is not None)]


def _bytes(tensors: list[torch.Tensor]) -> int:
    storages = {storage_key(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
