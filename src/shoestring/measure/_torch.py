"""Everything of torch's private interface that this room uses, in one place.

A test calls each name, so that a new release that moves one fails here and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Self, TypeAlias, TypeVar

import torch
import torch.utils._python_dispatch as _dispatch
from torch._C._dynamo.guards import set_is_in_mode_without_ignore_compile_internals
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


_MODES_LOCK: Final = threading.RLock()
_MODES_ENTERED: Final[list[TorchDispatchMode]] = []
"""Those of all threads."""


class DispatchMode(TorchDispatchMode):
    """A dispatch mode that several threads may be in at the same time.

    Torch keeps in globals whether any mode is on, and at the end of one puts back what they said
    at its beginning. Where the modes of two threads overlap they say so for ever then, and
    under a mode that compiled code does not give way to it is compiled anew at every call.
    """

    def __enter__(self) -> Self:
        """Begin to see operators."""
        enter: Callable[[], object] = super().__enter__
        with _MODES_LOCK:
            enter()
            _MODES_ENTERED.append(self)
            self._tell()
        return self

    def __exit__(self, *raised: object) -> None:
        """See no more of them."""
        leave: Callable[..., object] = super().__exit__
        with _MODES_LOCK:
            leave(*raised)
            _MODES_ENTERED.remove(self)
            self._tell()

    def _tell(self) -> None:
        """Set the globals, and this thread's own one, to what is so."""
        own = _get_current_dispatch_mode_stack()
        every = [*own, *_MODES_ENTERED]
        _dispatch._is_in_torch_dispatch_mode = bool(every)
        _dispatch._is_in_non_infra_torch_dispatch_mode = any(not m.is_infra_mode() for m in every)
        _dispatch._is_in_any_mode_without_ignore_compile_internals = _keeps_compiled_off(every)
        set_is_in_mode_without_ignore_compile_internals(_keeps_compiled_off(own))


def _keeps_compiled_off(modes: Sequence[TorchDispatchMode]) -> bool:
    return any(not mode.ignore_compile_internals() for mode in modes)


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


_HERE = threading.local()
"""What is going on in this thread."""


@contextlib.contextmanager
def recomputing() -> Iterator[None]:
    """In this context the calling thread repeats what a forward computed."""
    before = getattr(_HERE, "recomputing", False)
    _HERE.recomputing = True
    try:
        yield
    finally:
        _HERE.recomputing = before


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
    if getattr(_HERE, "recomputing", False):
        return True
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
