"""Everything of torch's private interface that rematerialisation uses, in one place.

A test calls each name, so that a new release that moves one fails here and nowhere else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

import sympy
import torch
from torch import fx, nn
from torch._dynamo import config as _dynamo_config
from torch._dynamo.backends.common import aot_autograd as _aot_autograd
from torch._dynamo.exc import BackendCompilerFailed as BackendCompilerFailed
from torch._dynamo.exc import FailOnRecompileLimitHit as FailOnRecompileLimitHit
from torch._dynamo.exc import TorchDynamoException as TorchDynamoException
from torch._functorch._aot_autograd.descriptors import (
    GradAOTOutput,
    InputMutationAOTOutput,
    PlainAOTInput,
    SavedForBackwardsAOTOutput,
)
from torch._guards import TracingContext
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental import _config as _shapes_config
from torch.fx.graph import _BoxedCodeGen

Compiled: TypeAlias = Callable[[list[object]], object]
Partition: TypeAlias = Callable[..., tuple[fx.GraphModule, fx.GraphModule]]
Backend: TypeAlias = Callable[..., Callable[..., object]]
Compiler: TypeAlias = Callable[[fx.GraphModule, Sequence[object]], Compiled]
Expression: TypeAlias = sympy.Expr
"""A size that is no fixed number."""


def aot_backend(partition: Partition, *, compile_backward: Compiler | None = None) -> Backend:
    """Return a backend of torch.compile that runs graphs as they are, cut by a function.

    Args:
        partition: called with the joint graph, its inputs and ``num_fwd_outputs=``; returns the
            graphs of forward and backward.
        compile_backward: makes a function of the backward's graph; by default `run_boxed`.
    """
    made = _aot_autograd(
        fw_compiler=_run_forward,
        bw_compiler=compile_backward or run_boxed,
        partition_fn=partition,
    )
    return cast("Backend", made)


def _run_forward(module: fx.GraphModule, inputs: Sequence[object]) -> Compiled:
    context = TracingContext.try_get()
    if context is not None and context.fw_metadata is not None:
        # What is donated to the backward is there once, and retain_graph=True is refused then.
        # Our backward takes nothing over.
        context.fw_metadata.bw_donated_idxs = []
    return run_boxed(module, inputs)


def run_boxed(module: fx.GraphModule, inputs: Sequence[object]) -> Compiled:
    """Return a function of one list that runs a graph node by node and frees inputs on the way.

    Args:
        module: any graph.
        inputs: examples of its inputs; not looked at.
    """
    box_inputs(module)
    forward = module.forward

    def run(arguments: list[object]) -> object:
        return forward(arguments)

    return mark_boxed(run)


def box_inputs(module: fx.GraphModule) -> None:
    """Let a module take its inputs as one list ``args_list``, which it empties at once.

    Args:
        module: changed in place.
    """
    transform = module.graph._codegen._body_transformer
    module.graph.set_codegen(_BoxedCodeGen())
    module.graph._codegen._body_transformer = transform
    module.recompile()


def mark_boxed(run: Compiled) -> Compiled:
    """Tell AOTAutograd that a function takes its arguments as one list.

    Args:
        run: the function.
    """
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


def gradient_of(note: object) -> int | None:
    """Return which input an output of a backward is the gradient of; None where it is no input.

    Args:
        note: what torch says of the output.
    """
    if not isinstance(note, GradAOTOutput):
        return None
    return input_of(note.grad_of)


def input_of(note: object) -> int | None:
    """Return the position of an input among those that a compiled function is called with.

    Args:
        note: what torch says of a placeholder.
    """
    return note.idx if isinstance(note, PlainAOTInput) else None


def running_node() -> torch.autograd.graph.Node | None:
    """Return the node of autograd that is being run, if one is."""
    return torch._C._current_autograd_node()


def will_run(node: torch.autograd.graph.Node) -> bool:
    """Return whether the backward that is running comes to a node.

    Args:
        node: of autograd; no leaf.
    """
    return bool(torch._C._will_engine_execute_node(node))


@contextlib.contextmanager
def as_compiled(*, without_autocast: bool) -> Iterator[None]:
    """In this context operations run as in a compiled backward.

    Args:
        without_autocast: whether they run in the types that they are written with.
    """
    autocast = torch._C._DisableAutocast if without_autocast else contextlib.nullcontext
    with torch.no_grad(), autocast():
        yield


def autocasts() -> bool:
    """Return whether autocast is on."""
    return bool(torch._C._is_any_autocast_enabled())


def refuse_second(message: str, gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return gradients that raise where they are differentiated.

    Args:
        message: what the error says.
        gradients: at least one.
    """
    watched = [gradient.detach().requires_grad_() for gradient in gradients]
    made: object = torch._C._functions.DelayedError(message, len(watched))(*watched)
    # One tensor comes without a tuple, and a tensor is a sequence too.
    return (made,) if isinstance(made, torch.Tensor) else cast("tuple[torch.Tensor, ...]", made)


def counted_alone(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function that does what another does, and whose captures are counted by themselves.

    torch captures a function so and so often, and after that no more. It counts by code, which all
    models of a class share, and all modules of torch.nn: so a few fits would use up the count.

    Args:
        function: to be captured.
    """

    def call(*args: object, **kwargs: object) -> object:
        return function(*args, **kwargs)

    if not isinstance(function, types.FunctionType):
        call.__code__ = call.__code__.replace()
        return call
    # As it is, and not called by another: sizes are then known by the names of its arguments.
    code, names = function.__code__.replace(), function.__globals__
    twin = types.FunctionType(
        code, names, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


@contextlib.contextmanager
def capturing_whole() -> Iterator[None]:
    """In this context DistributedDataParallel's buckets split no graph, and equal sizes may part.

    Else a batch whose sizes happen to be equal takes a graph that serves no other batches.
    """
    patch = getattr(_shapes_config, "patch")  # noqa: B009  # made when torch is imported
    with _dynamo_config.patch(optimize_ddp=False), patch(use_duck_shape=False):
        yield


def source_of(node: fx.Node) -> str:
    """Return where a placeholder of a captured forward comes from, as in ``L['x']``.

    Args:
        node: a placeholder.
    """
    given = node.meta.get("grapharg")
    return node.name if given is None or given.source is None else str(given.source.name)


def hint_of(size: torch.SymInt) -> int | None:
    """Return what a size was when it was captured; None where it depends on data.

    Args:
        size: that is no fixed number.
    """
    hint = size.node.hint
    return None if hint is None else int(hint)


def expression_of(size: torch.SymInt) -> Expression:
    """Return a size in terms of symbols.

    Args:
        size: that is no fixed number.
    """
    expression: Expression = size.node.expr
    return expression


def symbol_of(size: torch.SymInt) -> Expression | None:
    """Return the symbol that a size is; None where it is an expression.

    Args:
        size: that is no fixed number.
    """
    expression = size.node.expr
    return expression if expression.is_Symbol else None


def evaluate(expression: Expression, values: Mapping[Expression, int]) -> int | None:
    """Return an expression's value; None where a symbol has none.

    Args:
        expression: as `expression_of` returns it.
        values: symbol -> value.
    """
    found = expression.xreplace({symbol: sympy.Integer(n) for symbol, n in values.items()})
    return None if found.free_symbols else int(found)


def is_sharded(model: nn.Module) -> bool:
    """Return whether FSDP shards a model or a part of it, in either of its forms.

    Args:
        model: any.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(m, (FSDPModule, FullyShardedDataParallel)) for m in model.modules())


def node_class(function: type[torch.autograd.Function]) -> type:
    """Return the class of the nodes of autograd that a function makes.

    Args:
        function: any of Python's.
    """
    made: type = function._backward_cls
    return made
