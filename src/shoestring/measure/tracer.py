"""The one tracer: records every operation and every storage of a training step.

It stands at the dispatcher, below autograd, and works on real and fake tensors alike.
Storages are held by weak references, so that they die in the trace when they die in torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from shoestring.core.trace import ALWAYS, Block, Kind, Op, Phase, Storage, Trace
from shoestring.measure._torch import (
    GROUPED_PRODUCT,
    READ_DEVICE,
    READ_SCALAR,
    current_node,
    device_of,
    fake_grouped_product,
    is_view,
    node_number,
    schema,
    sequence_number,
    storage_address,
    without_modes,
)
from shoestring.measure.flops import op_flops
from shoestring.measure.values import runs_on_values
from shoestring.measure.workspace import WorkspaceProbe

_SCALARS = {bool: False, int: 1, float: 0.5}
_NO_SEQUENCE = 2**63
_GATHERS = {"aten.embedding.default", "aten.index.Tensor", "aten.index_select.default"}
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


@dataclasses.dataclass(slots=True)
class _Live:
    """A storage while the step runs."""

    nbytes: int
    kind: Kind | None
    birth: int
    module: str
    shape: tuple[int, ...]
    itemsize: int
    death: int | None = None
    reference: weakref.ref[object] | None = None
    node: int = -1


@dataclasses.dataclass(slots=True)
class _Record:
    """An operation while the step runs."""

    op: Op
    outputs: tuple[int, ...]
    key: object | None
    accumulates: int = -1


class Tracer(TorchDispatchMode):
    """Records one step.

    Use it as a context around the step; set `phase` as the step goes on; read `trace` last.

    Args:
        probe: notes operations whose kernels may hold memory of their own; None for none.
        assume_scalars: answer ``.item()`` with an assumed value in the optimizer's step.
        faking: whether a mode of fake tensors is active below; small integers keep their values.
    """

    def __init__(
        self,
        *,
        probe: WorkspaceProbe | None = None,
        assume_scalars: bool = True,
        faking: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no annotations
        self.phase = Phase.FORWARD
        self.paused = False
        self.assumed: set[str] = set()
        self._probe = probe
        self._assume = assume_scalars
        self._faking = faking
        self._storages: list[_Live] = []
        self._by_address: dict[int, int] = {}
        self._records: list[_Record] = []
        self._by_sequence: dict[int, int] = {}
        self._stack: list[str] = []
        self._calls: list[tuple[str, int, int]] = []
        self._accumulated: dict[int, int] = {}
        self._random_pending = False

    # --- what the step tells -------------------------------------------------------------

    def register(self, tensor: torch.Tensor, kind: Kind, module: str = "") -> None:
        """Declare a tensor that is there before the step begins.

        Args:
            tensor: its storage counts once, whoever registers it.
            kind: what it holds.
            module: path of the parameter or buffer.
        """
        index = self._index(tensor, ALWAYS, kind, module)
        if self._storages[index].kind is None:
            self._storages[index].kind = kind
            self._storages[index].birth = ALWAYS

    def gradient(self, parameter: torch.Tensor, path: str) -> None:
        """Declare that a parameter's gradient has just been accumulated.

        Args:
            parameter: its ``grad`` is looked at.
            path: the parameter's path.
        """
        if parameter.grad is None or parameter.grad.layout is not torch.strided:
            return
        index = self._index(parameter.grad, len(self._records) - 1, Kind.GRADIENT, path)
        live = self._storages[index]
        if live.birth != ALWAYS:
            live.kind, live.module = Kind.GRADIENT, path
        self._accumulated[index] = len(self._records) - 1

    def random_next(self) -> None:
        """Declare that the next operation draws random numbers, though its trace does not."""
        self._random_pending = True

    @contextlib.contextmanager
    def watching(self, model: nn.Module, calls: Iterable[str]) -> Iterator[None]:
        """Attribute operations to the modules of a model while the context lasts.

        Args:
            model: hooks are set on its modules and removed at the end.
            calls: paths whose calls are remembered, for `trace`.
        """
        wanted = set(calls)
        handles = []
        for path, module in model.named_modules():
            enter, leave = self._hooks(path, path in wanted)
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, path: str, wanted: bool) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(module: nn.Module, args: object) -> None:
            self._stack.append(path)
            if wanted and self.phase is Phase.FORWARD:
                self._calls.append((path, len(self._records), -1))

        def leave(module: nn.Module, args: object, output: object) -> None:
            if self._stack:
                self._stack.pop()
            if wanted and self.phase is Phase.FORWARD:
                for i in range(len(self._calls) - 1, -1, -1):
                    if self._calls[i][0] == path and self._calls[i][2] < 0:
                        self._calls[i] = (path, self._calls[i][1], len(self._records))
                        break

        return enter, leave

    # --- what torch tells ----------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and record it."""
        options = kwargs or {}
        if func is READ_DEVICE:
            # Half of all calls: a fake tensor asked for its device. Answered without the detour.
            return device_of(args[0])
        if func.namespace == "prim":
            return func(*args, **options)
        if func is READ_SCALAR and self._assume:
            answer = self._scalar(args[0])
            if answer is not None:
                return answer
        result = self._run(func, args, options)
        if not self.paused:
            self._note(func, args, options, result)
        return result

    def _run(
        self,
        func: torch._ops.OpOverload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> object:
        if self._faking:
            if func is GROUPED_PRODUCT:
                return fake_grouped_product(*args, **kwargs)
            inputs: list[torch.Tensor] = []
            _collect((*args, *kwargs.values()), inputs)
            if runs_on_values(func, args, kwargs, inputs):
                with without_modes():
                    result = func(*args, **kwargs)
                if not isinstance(result, torch.Tensor) or not result.is_floating_point():
                    return result
        return func(*args, **kwargs)

    def _scalar(self, tensor: object) -> bool | int | float | None:
        if not (self.paused or self.phase is Phase.OPTIMIZER):
            return None
        assert isinstance(tensor, torch.Tensor)
        kind = bool if tensor.dtype is torch.bool else float if tensor.is_floating_point() else int
        index = self._by_address.get(storage_address(tensor), -1)
        counter = index >= 0 and self._storages[index].kind is Kind.OPTIMIZER
        if not (self.paused or counter):  # a step counter's value changes no size
            self.assumed.add("the optimizer reads a value from a tensor: it was assumed to be 0.5")
        return _SCALARS[kind]

    def _note(
        self,
        func: torch._ops.OpOverload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        result: object,
    ) -> None:
        here = len(self._records)
        inputs: list[torch.Tensor] = []
        _collect(args, inputs)
        if kwargs:
            _collect(tuple(kwargs.values()), inputs)
        outputs: list[torch.Tensor] = []
        _collect((result,), outputs)
        known = len(self._storages)
        reads = tuple(dict.fromkeys(self._index(t, ALWAYS, None, "") for t in inputs))
        made = tuple(dict.fromkeys(self._index(t, here, None, self._path()) for t in outputs))
        fresh = tuple(i for i in made if i >= known and i not in reads)
        writes = _written(func, args, kwargs)
        written = tuple(dict.fromkeys(self._index(t, ALWAYS, None, "") for t in writes))
        flops = op_flops(func, args, kwargs, result)
        if not fresh and not written and not flops and _is_view(func):
            return
        self._append(func, args, kwargs, inputs, outputs, reads, written, fresh, flops)

    def _append(
        self,
        func: torch._ops.OpOverload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        inputs: list[torch.Tensor],
        outputs: list[torch.Tensor],
        reads: tuple[int, ...],
        written: tuple[int, ...],
        fresh: tuple[int, ...],
        flops: int,
    ) -> None:
        here = len(self._records)
        name = str(func)
        phase, module, source, node = self._where(here)
        key = None if self._probe is None else self._probe.note(func, args, kwargs)
        out_bytes = sum(t.numel() * t.element_size() for t in outputs)
        in_bytes = sum(t.numel() * t.element_size() for t in inputs)
        if name in _GATHERS:
            in_bytes = out_bytes
        random = torch.Tag.nondeterministic_seeded in func.tags and _draws(func, args, kwargs)
        op = Op(
            name=name,
            phase=phase,
            module=module,
            reads=reads,
            writes=written,
            flops=flops,
            traffic=in_bytes + out_bytes,
            dtype=_widest(outputs or inputs),
            source=source,
            random=random or self._random_pending,
        )
        self._random_pending = False
        record = _Record(op, fresh, key)
        for index in fresh:
            self._storages[index].module = module
            self._storages[index].node = node
        if name == "aten.add.Tensor" and phase is Phase.BACKWARD and len(fresh) == 1:
            record.accumulates = self._accumulation(inputs, node)
        self._records.append(record)

    def _accumulation(self, inputs: list[torch.Tensor], node: int) -> int:
        """Return the gradient that autograd adds to here, or -1.

        Where a value is used twice, autograd adds the second gradient to the first in place if
        nothing else holds that one's storage, and a view's base does; under a dispatch mode it
        makes a new tensor. The first one is recognised by having come from another node.
        """
        if len(inputs) != 2 or inputs[0].shape != inputs[1].shape or is_view(inputs[0]):
            return -1
        index = self._index(inputs[0], ALWAYS, None, "")
        old = self._storages[index]
        whole = inputs[0].numel() * inputs[0].element_size() == old.nbytes
        born_here = old.node == node or old.birth == ALWAYS
        return index if whole and not born_here and inputs[0].dtype is inputs[1].dtype else -1

    def _where(self, here: int) -> tuple[Phase, str, int, int]:
        if self.phase is not Phase.BACKWARD:
            if self.phase is Phase.FORWARD:
                self._by_sequence.setdefault(sequence_number() - 1, here)
            return self.phase, self._path(), -1, -1
        node = current_node()
        sequence = _NO_SEQUENCE if node is None else node_number(node)
        source = self._by_sequence.get(sequence, -1)
        if torch.is_grad_enabled() and node is not None:
            return Phase.RECOMPUTE, self._path(), -1, sequence
        module = self._records[source].op.module if source >= 0 else self._path()
        return Phase.BACKWARD, module, source, sequence

    def _path(self) -> str:
        return self._stack[-1] if self._stack else ""

    def _index(self, tensor: torch.Tensor, birth: int, kind: Kind | None, module: str) -> int:
        storage = tensor.untyped_storage()
        address = storage_address(tensor)
        index = self._by_address.get(address)
        if index is not None:
            return index
        index = len(self._storages)
        shape = tuple(tensor.shape)
        live = _Live(storage.nbytes(), kind, birth, module, shape, tensor.element_size())
        live.reference = weakref.ref(storage, self._burial(address, index))
        self._storages.append(live)
        self._by_address[address] = index
        return index

    def _burial(self, address: int, index: int) -> Callable[[object], None]:
        def bury(_: object) -> None:
            self._storages[index].death = len(self._records) - 1
            if self._by_address.get(address) == index:
                del self._by_address[address]

        return bury

    # --- the result ----------------------------------------------------------------------

    def trace(self, *, rows: int, round_up: Callable[[int], int] = lambda n: n) -> Trace:
        """Return what was recorded.

        Args:
            rows: rows of the batch.
            round_up: how the allocator rounds sizes.
        """
        spaces = self._probe.resolve() if self._probe is not None else {}
        ops: list[Op] = []
        for record in self._records:
            space = spaces.get(record.key) if record.key is not None else None
            op = record.op
            if space is not None:
                op = dataclasses.replace(op, workspace=space.transient)
                for index, size in zip(record.outputs, space.outputs, strict=False):
                    self._storages[index].nbytes = max(self._storages[index].nbytes, size)
            ops.append(op)
        deaths = self._deaths()
        backward = next((i for i, op in enumerate(ops) if op.phase is not Phase.FORWARD), len(ops))
        last = len(ops) - 1
        storages = []
        for index, live in enumerate(self._storages):
            death, birth = deaths[index], live.birth
            kind = live.kind or _activation(birth, death, backward)
            if death is None and birth != ALWAYS:
                # A gradient dies as the next step begins; anything else that outlives its
                # step is replaced by its like in the next, so it is always there.
                birth, death = (birth, last) if kind is Kind.GRADIENT else (ALWAYS, None)
            storages.append(
                Storage(
                    nbytes=round_up(live.nbytes),
                    kind=kind,
                    birth=birth,
                    death=death,
                    module=live.module,
                    shape=live.shape,
                    itemsize=live.itemsize,
                )
            )
        return Trace(
            ops=tuple(ops),
            storages=tuple(storages),
            blocks=self._blocks(ops),
            rows=rows,
            accumulated=dict(self._accumulated),
        )

    def _deaths(self) -> list[int | None]:
        """Return deaths, with autograd's additions made in place as they are in torch."""
        deaths = [live.death for live in self._storages]
        for here, record in enumerate(self._records):
            old = record.accumulates
            if old >= 0 and deaths[old] == here:
                deaths[old] = here - 1
        return deaths

    def _blocks(self, ops: list[Op]) -> tuple[Block, ...]:
        backwards: dict[int, tuple[int, int]] = {}
        for index, op in enumerate(ops):
            if op.source >= 0:
                first, _ = backwards.get(op.source, (index, index))
                backwards[op.source] = (first, index)
        blocks = []
        forward_alone = all(op.phase is Phase.FORWARD for op in ops)
        for path, start, stop in self._calls:
            spans = [backwards[i] for i in range(start, stop) if i in backwards]
            if forward_alone and start < stop:
                blocks.append(Block(path, (start, stop), (len(ops), len(ops))))
            elif spans:
                first, last = min(s[0] for s in spans), max(s[1] for s in spans) + 1
                blocks.append(Block(path, (start, stop), (first, last)))
        return tuple(blocks)


def _activation(birth: int, death: int | None, backward: int) -> Kind:
    if birth == ALWAYS:
        return Kind.BUFFER
    kept = birth < backward and (death is None or death >= backward)
    return Kind.ACTIVATION if kept else Kind.TEMPORARY


def _collect(values: Iterable[object], found: list[torch.Tensor]) -> None:
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.layout is torch.strided:
                found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, found)


_WRITTEN: dict[torch._ops.OpOverload, tuple[tuple[int, str], ...]] = {}
_VIEWS: dict[torch._ops.OpOverload, bool] = {}


def _written(
    func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> list[torch.Tensor]:
    places = _WRITTEN.get(func)
    if places is None:
        arguments = schema(func).arguments
        places = tuple(
            (i, a.name)
            for i, a in enumerate(arguments)
            if a.alias_info is not None and a.alias_info.is_write
        )
        _WRITTEN[func] = places
    found: list[torch.Tensor] = []
    for position, name in places:
        value = args[position] if position < len(args) else kwargs.get(name)
        _collect((value,), found)
    return found


def _is_view(func: torch._ops.OpOverload) -> bool:
    known = _VIEWS.get(func)
    if known is None:
        known = any(r.alias_info is not None for r in schema(func).returns)
        _VIEWS[func] = known
    return known


def _draws(
    func: torch._ops.OpOverload, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> bool:
    """Whether an operation tagged as random draws numbers: attention only with dropout."""
    if "attention" not in str(func):
        return True
    for position, argument in enumerate(schema(func).arguments):
        if argument.name == "dropout_p":
            value = args[position] if position < len(args) else kwargs.get("dropout_p", 0.0)
            return bool(value)
    return False


def _widest(tensors: list[torch.Tensor]) -> str:
    floats = [t for t in tensors if t.dtype in _FLOATS]
    if not floats:
        return "float32"
    return str(max(floats, key=lambda t: t.element_size()).dtype).removeprefix("torch.")
