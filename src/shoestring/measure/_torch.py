"""Everything of torch's private interface that this room uses, in one place.

A test calls each name, so that a new release that moves one fails here and nowhere else.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException as DataDependentOutput
from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicOutputShape
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    _get_current_dispatch_mode_stack,
)

from shoestring.core.errors import InputError

_Tensor = TypeVar("_Tensor", bound=torch.Tensor)

Overload: TypeAlias = torch._ops.OpOverload
"""An operator as a dispatch mode receives it."""
Packet: TypeAlias = torch._ops.OpOverloadPacket
"""All overloads of an operator, as in ``torch.ops.aten.mm``."""
HigherOrder: TypeAlias = torch._ops.HigherOrderOperator
"""An operator that is given functions; it has neither schema nor overloads."""

OLDEST: Final = (2, 13)
"""The oldest torch release whose private interface is known to be as used here."""

DATA_DEPENDENT = (DataDependentOutput, DynamicOutputShape)
"""Raised by a fake step whose course depends on data."""


def current_node() -> torch.autograd.graph.Node | None:
    """Return the autograd node that is being evaluated in backward, or None."""
    return torch._C._current_autograd_node()


def node_number(node: torch.autograd.graph.Node) -> int:
    """Return the number an autograd node got.

    Args:
        node: of a graph.
    """
    return int(node._sequence_nr())


def storage_address(tensor: torch.Tensor) -> int:
    """Return what tells a tensor's storage from all others alive, fake ones included.

    Args:
        tensor: dense.
    """
    return int(tensor.untyped_storage()._cdata)


def tensor_without_storage(
    cls: type[_Tensor], shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> _Tensor:
    """Return a tensor of a subclass that has a shape, a dtype and a device but no memory.

    Args:
        cls: the subclass; it must define ``__torch_dispatch__``.
        shape: sizes.
        dtype: element type.
        device: where it says it is.
    """
    made = torch.Tensor._make_wrapper_subclass(cls, torch.Size(shape), dtype=dtype, device=device)
    assert isinstance(made, cls)
    return made


def compiled_inside(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the module inside what torch.compile returned; None for any other module.

    Args:
        module: any.
    """
    return module._modules.get("_orig_mod")


def has_compiled_calls(module: torch.nn.Module) -> bool:
    """Return whether a module's own ``compile()`` was called.

    Args:
        module: any.
    """
    return module._compiled_call_impl is not None


def is_view(tensor: torch.Tensor) -> bool:
    """Return whether autograd knows a tensor as a view of another.

    Args:
        tensor: any.
    """
    return bool(tensor._is_view())


def schema(func: torch._ops.OpOverload) -> torch._C.FunctionSchema:
    """Return the schema of an operator.

    Args:
        func: as a dispatch mode receives it.
    """
    return func._schema


READ_DEVICE = torch.ops.prim.device.default
"""The operator behind ``tensor.device`` of a tensor that has a device of its own making."""


def device_of(tensor: object) -> object:
    """Return a tensor's device, of a fake one the device it stands for.

    Args:
        tensor: what `READ_DEVICE` was called with.
    """
    if isinstance(tensor, FakeTensor):
        return tensor.fake_device
    return READ_DEVICE(tensor)


READ_SCALAR = torch.ops.aten._local_scalar_dense.default
"""The operator behind ``tensor.item()``."""


def components(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the dense tensors that a sparse one holds; none of a layout that hides them.

    Args:
        tensor: of any layout but the dense one.
    """
    if tensor.layout is torch.sparse_coo:
        return tensor._values(), tensor._indices()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.values(), tensor.crow_indices(), tensor.col_indices()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.values(), tensor.ccol_indices(), tensor.row_indices()
    return ()


def is_active(mode: TorchDispatchMode) -> bool:
    """Return whether a dispatch mode is at work in the calling thread.

    Args:
        mode: any.
    """
    return any(other is mode for other in _get_current_dispatch_mode_stack())


def decomposition(func: torch._ops.OpOverload) -> Callable[..., object] | None:
    """Return what runs a composite operator by its parts; None for any other operator.

    Args:
        func: as a dispatch mode receives it.
    """
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    composite = has(func.name(), "CompositeImplicitAutograd")
    own = has(func.name(), "CPU") or has(func.name(), "CUDA")  # as silu_backward has
    return func.decompose if composite and not own else None


def without_modes() -> contextlib.AbstractContextManager[object]:
    """Return a context in which no dispatch mode is active, that of fake tensors included."""
    found: contextlib.AbstractContextManager[object] = _disable_current_modes()
    return found


GROUPED_PRODUCT = torch.ops.aten._grouped_mm.default
"""The operator of mixtures of experts. Its fake form knows bfloat16 alone, its kernels more."""


def fake_grouped_product(*args: object, **kwargs: object) -> torch.Tensor:
    """Return the fake result of `GROUPED_PRODUCT` on floats of any width.

    Args:
        args: of the operator; fake tensors.
        kwargs: of the operator.
    """
    first = args[0]
    assert isinstance(first, torch.Tensor)
    narrow = [
        t.bfloat16() if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in args
    ]
    options = {k: v for k, v in kwargs.items() if not isinstance(v, torch.dtype)}
    result: torch.Tensor = GROUPED_PRODUCT(*narrow, **options)
    return torch.empty_strided(result.shape, result.stride(), dtype=first.dtype, device="cpu")


def sequence_number() -> int:
    """Return the number that the next autograd node will get."""
    return int(torch._C._autograd._get_sequence_nr())


def check_version() -> None:
    """Raise InputError where torch is older than the private interface used here.

    Raises:
        InputError: torch is too old.
    """
    oldest = ".".join(map(str, OLDEST))
    if torch.torch_version.TorchVersion(torch.__version__) < oldest:
        raise InputError(
            f"torch {torch.__version__} is too old.", hint=f"install torch {oldest} or newer."
        )


class AllocatorEvent(NamedTuple):
    """One event of the CPU allocator.

    Attributes:
        start_ns: when it happened, in nanoseconds.
        address: of the block.
        nbytes: size of the block; negative where the block is freed.
    """

    start_ns: int
    address: int
    nbytes: int


@contextlib.contextmanager
def record_allocations() -> Iterator[list[AllocatorEvent]]:
    """Record what the CPU allocator does inside the ``with`` block on this thread.

    The events come from Kineto, so blocks that kernels take for themselves are seen as well.
    A block that was allocated before any profiler was on is freed without an event; one that
    was allocated under an earlier profiler is freed with one.

    Yields:
        A list that is filled, in order of time, when the block is left.

    Raises:
        InputError: torch is too old, or another profiler is on.

    Example:
        >>> with record_allocations() as events:
        ...     x = torch.empty(256)
        >>> [event.nbytes for event in events]
        [1024]
    """
    check_version()
    if torch._C._autograd._profiler_enabled():
        raise InputError("a profiler is on already.", hint="measure outside torch.profiler.")
    events: list[AllocatorEvent] = []
    profiler = torch.autograd.profiler.profile(profile_memory=True)
    with _without_notices():
        profiler.__enter__()
    try:
        yield events
    finally:
        with _without_notices():
            profiler.__exit__(None, None, None)
    results = profiler.kineto_results
    if results is None:
        raise InputError("torch was built without Kineto.", hint="install a standard wheel.")
    allocation = torch._C._profiler._EventType.Allocation
    # The tree is walked in order of time so that events of the same nanosecond keep theirs.
    pending = list(reversed(results.experimental_event_tree()))
    while pending:
        node = pending.pop()
        pending.extend(reversed(node.children))
        field = node.extra_fields
        if (
            node.tag == allocation
            and isinstance(field, torch._C._profiler._ExtraFields_Allocation)
            and field.device.type == "cpu"
        ):
            events.append(AllocatorEvent(node.start_time_ns, field.ptr, field.alloc_size))
    events.sort(key=lambda event: event.start_ns)


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Keep Kineto's own start and stop notices off the terminal; everything else is shown.

    Its log level is read from the environment while torch is imported, too early to be set.
    """
    try:
        sys.stderr.flush()
        terminal = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no terminal to keep clean
        yield
        return
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            lines = [line for line in caught if not line.startswith(b"USDT:")]
            if lines:
                sys.stderr.write(b"".join(lines).decode(errors="replace"))


_CHECKPOINTS: Final = f"{os.sep}utils{os.sep}checkpoint.py"
_RECOMPUTES: Final = frozenset(
    {"_checkpoint_hook.__init__.<locals>.unpack_hook", "CheckpointFunction.backward"}
)
_ENGINE: Final = "_engine_run_backward"
_CREATE_GRAPH: Final = 2  # place among the engine's arguments after the outputs


def is_recomputing(node: torch.autograd.graph.Node) -> bool:
    """Return whether the operation that is running within a backward repeats a forward.

    The Python stack between here and the engine says who runs it: the unpacking of a tensor
    that a checkpoint did not save, or the backward of a re-entrant checkpoint, which does
    nothing else (what it differentiates runs under an engine of its own). That holds whether
    or not gradients are enabled: a forward may turn them off, and ``create_graph`` turns them
    on. Other libraries' checkpoints are known by having turned them on themselves.

    Args:
        node: the node that is being evaluated.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_qualname in _RECOMPUTES and code.co_filename.endswith(_CHECKPOINTS):
            return True
        if code.co_name == _ENGINE:
            return torch.is_grad_enabled() and not frame.f_locals["args"][_CREATE_GRAPH]
        frame = frame.f_back
    # A device's own thread, whose stack does not show the call of the engine.
    return torch.is_grad_enabled() and isinstance(node, torch.autograd.function.BackwardCFunction)


# --- compiled code; torch's compiler is imported where it is used, which takes a second ----------

Compiled = Callable[[list[object]], object]
"""What runs a graph: takes the inputs in a list, which it empties."""

GraphCompiler = Callable[[torch.fx.GraphModule, Sequence[object]], Compiled]

_LIMITS: Final = {"recompile_limit": 2**20, "accumulated_recompile_limit": 2**20}
_EAGER_FORMS: Final = (
    torch._C.DispatchKey.CompositeExplicitAutograd,
    torch._C.DispatchKey.BackendSelect,
)
_DRAWS_AGAIN: Final = frozenset({"run_with_rng_state", "graphsafe_run_with_rng_state"})


def active_modes() -> list[TorchDispatchMode]:
    """Return the dispatch modes at work in the calling thread, the outermost first."""
    return list(_get_current_dispatch_mode_stack())


def is_compiling_off() -> bool:
    """Return whether compiled code was told to run eager, by ``torch.compiler.set_stance``."""
    import torch._dynamo.eval_frame as frames

    return frames._stance.stance == "force_eager"


def new_region() -> int:
    """Return a new place for compiled code, apart from that which torch.compile makes."""
    import torch._dynamo.eval_frame as frames

    return next(frames._next_isolate_recompiles_id)


def enter_region(region: int) -> None:
    """Let the compiled call that has just begun use and keep its code in a region.

    The end of the call undoes it.

    Args:
        region: from `new_region`.
    """
    torch._C._dynamo.eval_frame.set_eval_frame_isolate_recompiles_id(region)


def regions_of(code: types.CodeType) -> list[int]:
    """Return the region of each piece of code that was compiled from one; -1 for torch's own.

    Args:
        code: of the function that was compiled.
    """
    entries = torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code)
    return [entry.isolate_recompiles_id for entry in entries]


def limits_lifted() -> contextlib.AbstractContextManager[object]:
    """Return a context in which this thread may compile the same code any number of times."""
    import torch._dynamo as compiler

    found: contextlib.AbstractContextManager[object] = compiler.config.patch(_LIMITS)
    return found


@contextlib.contextmanager
def shapes_forgotten() -> Iterator[None]:
    """Let the compiler keep nothing of what it learns inside the block of changing sizes."""
    import torch._dynamo.pgo as learnt

    before = copy.deepcopy(dict(learnt.get_code_state()))
    try:
        yield
    finally:
        state = learnt.get_code_state()
        state.clear()
        state.update(before)


def compile_by_graphs(
    module: torch.fx.GraphModule,
    inputs: Sequence[object],
    *,
    forward: GraphCompiler,
    backward: GraphCompiler,
    inference: GraphCompiler,
    parted: Callable[[torch.fx.GraphModule, torch.fx.GraphModule], None],
    keeps: Callable[[object], bool],
) -> Callable[..., object]:
    """Compile what torch.compile captured as inductor does, up to the graphs of operators.

    Args:
        module: what was captured.
        inputs: its inputs, fake.
        forward: makes what runs the graph of a forward.
        backward: makes what runs the graph of a backward.
        inference: makes what runs a graph that has no backward.
        parted: told the graphs of a forward and of its backward when they have been made.
        keeps: whether an operator stays whole that inductor would take apart.

    Returns:
        What runs the module.
    """
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch import config
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    def partition(
        joint: torch.fx.GraphModule,
        joint_inputs: object,
        *,
        num_fwd_outputs: int,
        static_lifetime_input_indices: list[int] | None = None,
    ) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
        parts = min_cut_rematerialization_partition(
            joint,
            joint_inputs,
            compiler="inductor",
            num_fwd_outputs=num_fwd_outputs,
            static_lifetime_input_indices=static_lifetime_input_indices,
        )
        parted(*parts)
        return parts

    table = {op: form for op, form in select_decomp_table().items() if not keeps(op)}
    with config.patch(unlift_effect_tokens=True):
        return aot_autograd(
            fw_compiler=forward,
            bw_compiler=backward,
            inference_compiler=inference,
            decompositions=table,
            partition_fn=partition,
            keep_inference_input_mutations=True,
        )(module, inputs)


def draws_again(target: object) -> bool:
    """Return whether an operator draws the random numbers of another once more.

    Args:
        target: of a graph's node.
    """
    return isinstance(target, torch._ops.HigherOrderOperator) and target.name() in _DRAWS_AGAIN


def eager_form(operator: torch._ops.HigherOrderOperator) -> Callable[..., object] | None:
    """Return what runs an operator on functions by the operators in them; None if nothing does.

    Args:
        operator: such as ``cond``.
    """
    return next((operator.py_kernels[k] for k in _EAGER_FORMS if k in operator.py_kernels), None)


def number_hook(handle: torch.utils.hooks.RemovableHandle) -> None:
    """Give a hook the first free number below 0.

    Compiled code is compiled anew where the numbers of the hooks that all modules share differ,
    and torch gives every hook a number of its own.

    Args:
        handle: of a hook just registered.
    """
    references = (handle.hooks_dict_ref, *handle.extra_dict_ref)
    tables = [table for reference in references if (table := reference()) is not None]
    number = -1
    while any(number in table for table in tables):
        number -= 1
    for table in tables:
        if handle.id in table:
            table[number] = table.pop(handle.id)
    handle.id = number


def never_compile(function: Callable[..., object]) -> None:
    """Keep the compiler off a function that is called from code it compiles, and off its callees.

    Where the compiler follows a call of it within a larger piece of code it still does.

    Args:
        function: written in Python; its code is meant, which its other closures share.
    """
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
