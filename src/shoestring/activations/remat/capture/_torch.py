"""Everything of torch's private interface that rematerialisation uses, in one place.

A test calls each name, so that a new release that moves one fails here and nowhere else.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd as _aot_autograd
from torch._dynamo.exc import BackendCompilerFailed as BackendCompilerFailed
from torch._dynamo.exc import TorchDynamoException as TorchDynamoException
from torch._functorch._aot_autograd.descriptors import (
    InputMutationAOTOutput,
    SavedForBackwardsAOTOutput,
)
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.graph import _BoxedCodeGen

Compiled: TypeAlias = Callable[[list[object]], object]
Partition: TypeAlias = Callable[..., tuple[fx.GraphModule, fx.GraphModule]]
Backend: TypeAlias = Callable[..., Callable[..., object]]


def aot_backend(partition: Partition) -> Backend:
    """Return a backend of torch.compile that runs graphs as they are, cut by a function.

    Args:
        partition: called with the joint graph, its inputs and ``num_fwd_outputs=``; returns the
            graphs of forward and backward.
    """
    made = _aot_autograd(fw_compiler=run_boxed, bw_compiler=run_boxed, partition_fn=partition)
    return cast("Backend", made)


def run_boxed(module: fx.GraphModule, inputs: Sequence[object]) -> Compiled:
    """Return a function of one list that runs a graph node by node and frees inputs on the way.

    Args:
        module: any graph.
        inputs: examples of its inputs; not looked at.
    """
    module.graph.set_codegen(_BoxedCodeGen())
    module.recompile()
    forward = module.forward

    def run(arguments: list[object]) -> object:
        return forward(arguments)

    setattr(run, "_boxed_call", True)  # noqa: B010
    return run


@dataclasses.dataclass(frozen=True)
class JointOutputs:
    """What a joint graph returns.

    Attributes:
        forward: nodes that the forward returns, first those of changed inputs.
        forward_notes: what torch says of each.
        backward: nodes of the gradients of the inputs; None where there is none.
        backward_notes: what torch says of each.
        changed: the placeholders that the forward writes to.
    """

    forward: tuple[fx.node.Argument, ...]
    forward_notes: tuple[object, ...]
    backward: tuple[fx.node.Argument, ...]
    backward_notes: tuple[object, ...]
    changed: tuple[fx.Node, ...]


def joint_outputs(graph: fx.Graph, forward: int) -> JointOutputs:
    """Return the outputs of a joint graph.

    Args:
        graph: a joint graph of AOTAutograd.
        forward: how many of its outputs are the forward's.
    """
    output = graph.output_node()
    values = tuple(cast("Sequence[fx.node.Argument]", output.args[0]))
    notes = tuple(output.meta["desc"])
    changes = {note.mutated_input for note in notes if isinstance(note, InputMutationAOTOutput)}
    inputs = graph.find_nodes(op="placeholder")
    return JointOutputs(
        forward=values[:forward],
        forward_notes=notes[:forward],
        backward=values[forward:],
        backward_notes=notes[forward:],
        changed=tuple(node for node in inputs if node.meta.get("desc") in changes),
    )


def note_saved(count: int) -> tuple[object, ...]:
    """Return what torch wants said of outputs of the forward that the backward takes.

    Args:
        count: how many there are.
    """
    return tuple(SavedForBackwardsAOTOutput(index) for index in range(count))


def changes_arguments(operator: OpOverload) -> bool:
    """Return whether an operator writes to any of its arguments.

    Args:
        operator: any.
    """
    return operator._schema.is_mutable


def find_argument(node: fx.Node, name: str, default: object = None) -> object:
    """Return an argument of a call, however it was passed.

    Args:
        node: a call of an operator of torch.
        name: of the argument.
        default: where the operator has no such argument.
    """
    assert isinstance(node.target, OpOverload)
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name == name:
            if position < len(node.args):
                return node.args[position]
            return node.kwargs.get(name, argument.default_value)
    return default


def with_real_tensors() -> contextlib.AbstractContextManager[object]:
    """Return a context in which tensors are real although a graph is being compiled."""
    context: contextlib.AbstractContextManager[object] = unset_fake_temporarily()
    return context


def storage_key(tensor: torch.Tensor) -> int:
    """Return a number that all tensors of one storage share, as long as one of them lives.

    Args:
        tensor: any tensor with a storage.
    """
    return int(tensor.untyped_storage()._cdata)
