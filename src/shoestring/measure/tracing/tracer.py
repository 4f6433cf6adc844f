"""The one tracer: records every operation and every storage of a training step.

It stands at the dispatcher, below autograd, and works on real and fake tensors alike. What
`shoestring.profile` and `count` say is read from what it recorded.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from shoestring.core.trace import ALWAYS, Block, Kind, Op, Phase, Trace
from shoestring.measure._torch import (
    GROUPED_PRODUCT,
    READ_DEVICE,
    READ_SCALAR,
    DispatchMode,
    HigherOrder,
    Overload,
    current_node,
    device_of,
    fake_grouped_product,
    is_active,
    is_recomputing,
    is_view,
    node_number,
    sequence_number,
    without_modes,
)
from shoestring.measure.formulas import Cost, op_cost
from shoestring.measure.formulas.attention import Causal
from shoestring.measure.formulas.cost import FREE
from shoestring.measure.tracing.operators import Facts, collect, facts
from shoestring.measure.tracing.places import Places
from shoestring.measure.tracing.saved import Saved
from shoestring.measure.tracing.storages import Storages
from shoestring.measure.tracing.traffic import Numbered, bytes_moved
from shoestring.measure.tracing.values import runs_on_values
from shoestring.measure.tracing.workspace import WorkspaceProbe

_SCALARS = {bool: False, int: 1, float: 0.5}
_NO_SEQUENCE = 2**63
_MODEL = ""
"""The path of the model itself."""

Formula: TypeAlias = Callable[..., int]
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class _Touched(NamedTuple):
    """The tensors of an operation, each with its storage's number, and storages by themselves."""

    inputs: list[tuple[int, torch.Tensor]]
    outputs: list[tuple[int, torch.Tensor]]  # what it changes in place included
    reads: tuple[int, ...]
    fresh: tuple[int, ...]
    changed: tuple[int, ...]


class Tracer(DispatchMode):
    """Records one step.

    Use it as a context around the step, and read `trace` last. Which phase an operation belongs
    to is seen by itself: what autograd evaluates is backward, what it computes again for that is
    recompute, what an optimizer's ``step`` does is the optimizer's. Everything else belongs to
    `phase`, which may be set as the step goes on.

    Args:
        probe: notes operations whose kernels may hold memory of their own; None for none.
        assume_scalars: answer ``.item()`` with an assumed value in the optimizer's step.
        faking: whether a mode of fake tensors is active below; small integers keep their values.
        formulas: FLOPs of operators by ``f(*args, out=result, **kwargs)``, in place of our own.
        backward: whether operations of backward and recompute are recorded.
        causal: which pairs of a query and a key count in an attention told to be causal.
    """

    supports_higher_order_operators = True

    def __init__(
        self,
        *,
        probe: WorkspaceProbe | None = None,
        assume_scalars: bool = True,
        faking: bool = False,
        formulas: Mapping[Overload, Formula] | None = None,
        backward: bool = True,
        causal: Causal = "full",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's has no annotations
        self.phase = Phase.FORWARD
        self.paused = False
        self.recomputing = False
        self.places = Places(lambda: is_active(self))
        self.assumed: set[str] = set()
        self._probe = probe
        self._assume = assume_scalars
        self._faking = faking
        self._formulas = dict(formulas or {})
        self._backward = backward
        self._causal: Causal = causal
        self._stepping: list[bool] = []
        self._storages = Storages(lambda: len(self._ops) - 1)
        self._ops: list[Op] = []
        self._made: list[tuple[int, ...]] = []
        self._keys: list[object | None] = []
        self._accumulates: dict[int, int] = {}
        self._by_sequence: dict[int, int] = {}
        self._paths: dict[int, str] = {}
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
        index = self._storages.number(tensor, ALWAYS, kind, module)
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
        index = self._storages.number(parameter.grad, len(self._ops) - 1, Kind.GRADIENT, path)
        live = self._storages[index]
        if live.birth != ALWAYS:
            live.kind, live.module = Kind.GRADIENT, path
        self._accumulated[index] = len(self._ops) - 1

    def random_next(self) -> None:
        """Declare that the next operation draws random numbers, though its trace does not."""
        self._random_pending = True

    @contextlib.contextmanager
    def watching(self, model: nn.Module | None, calls: Iterable[str] = ()) -> Iterator[None]:
        """Attribute operations to modules and to optimizers while the context lasts.

        Args:
            model: whose modules are named by their paths in it; any other by its class.
            calls: paths whose calls are remembered, for `trace`.
        """
        wanted = frozenset((*calls, _MODEL))
        if model is not None:
            self.places.name(model)

        def entered(path: str) -> None:
            if path in wanted and self._where()[0] is Phase.FORWARD:
                self._calls.append((path, len(self._ops), -1))

        def left(path: str) -> None:
            if path in wanted and self._where()[0] is Phase.FORWARD:
                for i in range(len(self._calls) - 1, -1, -1):
                    if self._calls[i][0] == path and self._calls[i][2] < 0:
                        self._calls[i] = (path, self._calls[i][1], len(self._ops))
                        break

        with self.places.following(entered, left), self._steps_followed():
            yield

    @contextlib.contextmanager
    def _steps_followed(self) -> Iterator[None]:
        def begin(optimizer: object, args: object, kwargs: object) -> None:
            if is_active(self):
                self._stepping.append(current_node() is not None)

        def end(optimizer: object, args: object, kwargs: object) -> None:
            if self._stepping and is_active(self):
                self._stepping.pop()

        handles = [
            register_optimizer_step_pre_hook(begin),
            register_optimizer_step_post_hook(end),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stepping.clear()

    def following_saved(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which autograd keeps numbers in place of tensors without data.

        So it is seen when the step itself lets go of them, and what autograd alone keeps from
        then on. In backward it is given other tensors without data that count as the same.
        """
        return Saved(self._storages, self._unnoted) if self._faking else contextlib.nullcontext()

    @contextlib.contextmanager
    def _unnoted(self) -> Iterator[None]:
        paused, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = paused

    def close(self) -> None:
        """Stop to follow storages: what is alive now outlives the step."""
        self._storages.close()

    # --- what torch tells ----------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Overload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and record it."""
        options = kwargs or {}
        if func is READ_DEVICE:
            # Half of all calls: a fake tensor asked for its device. Answered without the detour.
            return device_of(args[0])
        if isinstance(func, HigherOrder):
            result = func(*args, **options)
        else:
            if func.namespace == "prim":
                return func(*args, **options)
            if func is READ_SCALAR and self._assume:
                answer = self._scalar(args[0])
                if answer is not None:
                    return answer
            parts = facts(func).parts
            if parts is not None:  # composite: so it comes in inference mode alone
                with self:
                    return parts(*args, **options)
            result = self._run(func, args, options)
        if not self.paused:
            self._note(func, args, options, result)
        return result

    def _run(
        self,
        func: Overload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> object:
        if self._faking:
            if func is GROUPED_PRODUCT:
                return fake_grouped_product(*args, **kwargs)
            inputs: list[torch.Tensor] = []
            collect((*args, *kwargs.values()), inputs)
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
        live = self._storages.find(tensor)
        counter = live is not None and live.kind is Kind.OPTIMIZER
        if not (self.paused or counter):  # a step counter's value changes no size
            self.assumed.add("the optimizer reads a value from a tensor: it was assumed to be 0.5")
        return _SCALARS[kind]

    def _note(
        self,
        func: Overload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        result: object,
    ) -> None:
        here = len(self._ops)
        phase, module, source, node = self._where()
        if not self._backward and phase in (Phase.BACKWARD, Phase.RECOMPUTE):
            return
        known = facts(func)
        made_by = -1
        if phase is Phase.FORWARD or phase is Phase.RECOMPUTE:
            made_by = sequence_number() - 1  # the node of this operation, if it has one
            self._paths.setdefault(made_by, module)
        touched = self._touch(known, args, kwargs, result, module)
        cost = self._cost(func, args, kwargs, result)
        if known.view and not touched.fresh and not touched.changed and cost == FREE:
            return
        if made_by >= 0:
            self._by_sequence.setdefault(made_by, here)
        moved = bytes_moved(
            known.access, touched.inputs, touched.outputs, touched.changed, self._storages.sizes
        )
        flops, macs, elementwise = cost or FREE
        op = Op(
            name=known.name,
            phase=phase,
            module=module,
            reads=touched.reads,
            writes=touched.changed,
            flops=flops,
            macs=macs,
            elementwise=elementwise,
            bytes_read=moved[0],
            bytes_written=moved[1],
            dtype=_widest(touched.outputs or touched.inputs),
            source=source,
            random=self._random_pending or known.is_random(args, kwargs),
            known=cost is not None,
        )
        self._random_pending = False
        self._ops.append(op)
        self._made.append(touched.fresh)
        if self._probe is not None:
            self._keys.append(self._probe.note(func, args, kwargs))
        for index in touched.fresh:
            self._storages[index].module = module
            self._storages[index].node = node
        if phase is Phase.BACKWARD and len(touched.fresh) == 1 and op.name == "aten.add.Tensor":
            self._accumulates[here] = self._accumulation(touched.inputs, node)

    def _touch(
        self,
        known: Facts,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        result: object,
        module: str,
    ) -> _Touched:
        """Return the tensors of an operation and their storages, numbered where they are new."""
        found: list[torch.Tensor] = []
        collect(args, found)
        if kwargs:
            collect(tuple(kwargs.values()), found)
        returned: list[torch.Tensor] = []
        collect((result,), returned)
        number, here, old = self._storages.number, len(self._ops), len(self._storages)
        inputs = [(number(t), t) for t in found]
        reads = tuple(dict.fromkeys([i for i, _ in inputs]))
        outputs = [(number(t, here, None, module), t) for t in returned]
        fresh = tuple(dict.fromkeys([i for i, _ in outputs if i >= old and i not in reads]))
        changed: tuple[int, ...] = ()
        if known.changes:
            altered = [(number(t), t) for t in known.changed(args, kwargs)]
            changed = tuple(dict.fromkeys([i for i, _ in altered]))
            ids = [id(t) for t in returned]
            outputs += [(i, t) for i, t in altered if id(t) not in ids]
        return _Touched(inputs, outputs, reads, fresh, changed)

    def _cost(
        self,
        func: Overload,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        result: object,
    ) -> Cost | None:
        own = self._formulas.get(func) if self._formulas else None
        if own is None:
            return op_cost(func, args, kwargs, result, causal=self._causal)
        flops = own(*args, out=result, **kwargs)
        return Cost(flops, flops // 2, 0)

    def _accumulation(self, inputs: Numbered, node: int) -> int:
        """Return the gradient that autograd adds to here, or -1.

        Where a value is used twice, autograd adds the second gradient to the first in place if
        nothing else holds that one's storage, and a view's base does; under a dispatch mode it
        makes a new tensor. The first one is recognised by having come from another node.
        """
        if len(inputs) != 2:
            return -1
        (index, first), (_, second) = inputs
        if first.shape != second.shape or first.dtype is not second.dtype or is_view(first):
            return -1
        old = self._storages[index]
        whole = first.numel() * first.element_size() == old.nbytes
        born_here = old.node == node or old.birth == ALWAYS
        return index if whole and not born_here else -1

    def _where(self) -> tuple[Phase, str, int, int]:
        """Return phase, module, differentiated operation and autograd node of what runs now."""
        node = current_node()
        path = self.places.path
        if self._stepping and (node is None or self._stepping[-1]):
            # A closure runs with gradients, or calls the model.
            if not (self.places.inside or torch.is_grad_enabled()):
                return Phase.OPTIMIZER, path, -1, -1
        elif node is not None:
            sequence = node_number(node)
            if self.recomputing or is_recomputing(node):
                return Phase.RECOMPUTE, path, -1, sequence
            source = self._by_sequence.get(sequence, -1)
            return Phase.BACKWARD, self._paths.get(sequence, path), source, sequence
        return self.phase, path, -1, _NO_SEQUENCE if self.phase is Phase.BACKWARD else -1

    # --- the result ----------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Operations recorded so far."""
        return len(self._ops)

    def trace(
        self, *, rows: int, round_up: Callable[[int], int] = lambda n: n, steady: bool = True
    ) -> Trace:
        """Return what was recorded.

        Args:
            rows: rows of the batch.
            round_up: how the allocator rounds sizes.
            steady: whether it is one of many like steps: then what outlives it is replaced by
                its like in the next.
        """
        ops = self._with_workspaces()
        backward = next((i for i, op in enumerate(ops) if op.phase is not Phase.FORWARD), len(ops))
        return Trace(
            ops=tuple(ops),
            storages=self._storages.finished(
                self._deaths(),
                backward=backward,
                last=len(ops) - 1,
                steady=steady,
                round_up=round_up,
            ),
            blocks=self._blocks(ops),
            rows=rows,
            accumulated=dict(self._accumulated),
            calls=tuple(
                (start, stop)
                for path, start, stop in self._calls
                if path == _MODEL and start < stop
            ),
        )

    def _with_workspaces(self) -> list[Op]:
        """Return the operations with what their kernels hold, which outputs may be part of."""
        if self._probe is None:
            return self._ops
        spaces = self._probe.resolve()
        ops = []
        for op, key, made in zip(self._ops, self._keys, self._made, strict=True):
            space = None if key is None else spaces.get(key)
            workspace = 0
            if space is not None:
                workspace = space.transient
                for index, size in zip(made, space.outputs, strict=False):
                    self._storages[index].nbytes = max(self._storages[index].nbytes, size)
            ops.append(dataclasses.replace(op, workspace=workspace) if workspace else op)
        return ops

    def _deaths(self) -> list[int | None]:
        """Return deaths, with autograd's additions made in place as they are in torch."""
        deaths = [live.death for live in self._storages.live]
        for here, old in self._accumulates.items():
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
            if path == _MODEL:
                continue
            spans = [backwards[i] for i in range(start, stop) if i in backwards]
            if forward_alone and start < stop:
                blocks.append(Block(path, (start, stop), (len(ops), len(ops))))
            elif spans:
                first, last = min(s[0] for s in spans), max(s[1] for s in spans) + 1
                blocks.append(Block(path, (start, stop), (first, last)))
        return tuple(blocks)


def _widest(tensors: Numbered) -> str:
    floats = [t for _, t in tensors if t.dtype in _FLOATS]
    if not floats:
        return "float32"
    return str(max(floats, key=lambda t: t.element_size()).dtype).removeprefix("torch.")
