"""What kernels hold beside inputs and outputs, measured once per operator and shape.

A trace sees the storages that operators return. Inside, a kernel may hold more: oneDNN reorders
a convolution's operands, a product copies strides that BLAS does not know, a recurrent layer
returns a workspace whose size only the kernel knows. So each distinct operator call of a step is
run again, on real tensors of the same sizes, strides and types, and the allocator's account of
that one call is read. Results are kept on disk.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import torch

from shoestring.core.errors import ShoestringError
from shoestring.measure._torch import AllocatorEvent, FakeTensor, record_allocations, schema
from shoestring.measure.cache import cache_folder, read_cache, write_cache
from shoestring.measure.formulas import op_cost
from shoestring.measure.host import cpu_name
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.calls import Call, Maker, describe_call, storages, tensors

Key: TypeAlias = Hashable

SCHEMA: Final = "shoestring/workspaces/1"

_NAMESPACES: Final = {"aten", "mkldnn", "transformers"}
"""Operators that are known to be safe to run on made-up data. A user's own might write a file or
wait for another process."""

_NO_WORKSPACE: Final = (
    # Lists of tensors: kernels walk over the list in place or return it, without more than one
    # tensor's worth of scalars; probing them would cost as much as the whole model.
    "aten::_foreach_",
    "aten::_fused_",
    "aten::_amp_",
    # Copies and fills write their output and nothing else.
    "aten::copy_",
    "aten::clone",
    "aten::_to_copy",
    "aten::fill",
    "aten::zero",
    "aten::empty",
    "aten::new_",
    "aten::full_like",
    "aten::ones_like",
    # Views that the schema does not call views, and operators that change metadata.
    "aten::_unsafe_view",
    "aten::detach",
    "aten::lift",
    "aten::resize",
    "aten::set_",
    "aten::as_strided_",
    # Questions about a tensor, and marks for a profiler.
    "prim::",
    "profiler::",
    # Reads one number.
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::equal",
)

_TOO_LARGE: Final = "too large to run"
_OUT_OF_TIME: Final = "no time left"
_NO_RECORD: Final = "the allocator could not be watched"
_NO_MEMORY: Final = "not enough memory"
_PASSING: Final = {_OUT_OF_TIME, _NO_RECORD, _NO_MEMORY}
"""Reasons that need not hold next time, and so are not kept on disk."""

_CHEAP: Final = 1e8
"""FLOPs and bytes below which a call is run twice."""
_MOST_ROWS: Final = 20_000
_MARKER_BYTES: Final = 12_347
"""Size of the tensors that mark the ends of a call among the allocator's events."""


class _Rule(enum.Enum):
    """Whether calls of an operator are probed."""

    SKIP = enum.auto()
    FOREIGN = enum.auto()
    POINTWISE = enum.auto()
    PROBE = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Workspace:
    """What one operator call takes of the CPU allocator.

    While the call runs, ``live before + transient + sum(outputs)`` is the most that is alive.

    Attributes:
        transient: bytes beside inputs and outputs.
        outputs: bytes of each storage that the call made and returned, in order of the
            outputs; those that share a storage with an input or an earlier output are left out.
        seconds: the time of one call with torch's present number of threads.
    """

    transient: int
    outputs: tuple[int, ...]
    seconds: float


class Skipped(NamedTuple):
    """Calls that were not probed, and count as having no workspace.

    Attributes:
        name: the operator.
        calls: how many distinct ones.
        reason: why.
    """

    name: str
    calls: int
    reason: str


class WorkspaceProbe:
    """Collects the operator calls of a step, and measures each distinct one once.

    Args:
        cache_path: file of earlier measurements; by default in the user's cache folder.
        limit_bytes: larger calls (inputs and outputs) are skipped.
        limit_flops: contractions with more operations are skipped.
        limit_seconds: calls that are left when so much time has gone are skipped.

    Example:
        >>> probe = WorkspaceProbe(None)
        >>> x = torch.ones(8, 8)
        >>> key = probe.note(torch.ops.aten.mm.default, (x, x), {})
        >>> probe.resolve()[key].outputs
        (256,)
    """

    def __init__(
        self,
        cache_path: Path | None = None,
        *,
        limit_bytes: int = 512 * 2**20,
        limit_flops: int = 50_000_000_000,
        limit_seconds: float = 30.0,
    ) -> None:
        self._path = cache_path or cache_folder() / "workspaces.json"
        self._limits = (limit_bytes, limit_flops)
        self._limit_seconds = limit_seconds
        self._rules: dict[torch._ops.OpOverload, _Rule] = {}
        self._calls: dict[Call, torch._ops.OpOverload] = {}
        self._known: dict[Key, Workspace] = {}
        self._reasons: dict[Call, str] = {}
        self._foreign: Counter[str] = Counter()

    @property
    def skipped(self) -> list[Skipped]:
        """The calls that were not probed, most frequent first."""
        counts = Counter((call.name, reason) for call, reason in self._reasons.items())
        rows = [Skipped(name, n, reason) for (name, reason), n in counts.items()]
        rows += [Skipped(name, n, "not an operator of torch") for name, n in self._foreign.items()]
        return sorted(rows, key=lambda row: -row.calls)

    def note(
        self, func: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> Key | None:
        """Remember one operator call; only sizes, strides and types are kept.

        Args:
            func: the operator, as a dispatch mode receives it.
            args: its positional arguments, on the CPU, real or fake.
            kwargs: its keyword arguments.

        Returns:
            The key of the call in what `resolve` returns, or None where there is nothing to
            probe.
        """
        rule = self._rules.get(func)
        if rule is None:
            rule = self._rules[func] = _rule(func)
        if rule is _Rule.SKIP:
            return None
        if rule is _Rule.FOREIGN:
            self._foreign[func.name()] += 1
            return None
        if rule is _Rule.POINTWISE and _one_float_type(args):
            return None
        try:
            call = describe_call(func.name(), args, kwargs)
        except RuntimeError:  # a sparse tensor has no strides
            self._foreign[func.name()] += 1
            return None
        self._calls.setdefault(call, func)
        return call

    def resolve(self) -> dict[Key, Workspace]:
        """Measure the calls that no earlier measurement covers. Call it outside all modes.

        Leaves the process's random numbers as they were.

        Returns:
            Key -> workspace, without the calls in `skipped`.
        """
        assert not isinstance(torch.empty(0), FakeTensor), "a fake mode is on: nothing to measure"
        todo = [c for c in self._calls if c not in self._known and c not in self._reasons]
        if todo:
            environment = _environment(self._limits)
            stored = read_cache(self._path, SCHEMA).get(environment)
            rows = stored if isinstance(stored, dict) else {}
            names = {call: _digest(call) for call in todo}
            missing = [call for call in todo if not self._recall(call, rows.get(names[call]))]
            if missing:
                self._measure(missing)
                self._store(environment, {call: names[call] for call in missing})
        return dict(self._known)

    def _recall(self, call: Call, row: object) -> bool:
        """Take a row of the cache; False where it is none."""
        if isinstance(row, str):
            self._reasons[call] = row
            return True
        workspace = _from_row(row)
        if workspace is not None:
            self._known[call] = workspace
        return workspace is not None

    def _store(self, environment: str, names: dict[Call, str]) -> None:
        fresh: dict[str, object] = {}
        for call, name in names.items():
            if call in self._known:
                found = self._known[call]
                fresh[name] = [found.transient, found.seconds, list(found.outputs)]
            elif call in self._reasons and self._reasons[call] not in _PASSING:
                fresh[name] = self._reasons[call]
        if not fresh:
            return
        document = read_cache(self._path, SCHEMA)  # again: another process may have added to it
        old = document.get(environment)
        merged = {**(old if isinstance(old, dict) else {}), **fresh}
        document[environment] = dict(list(merged.items())[-_MOST_ROWS:])
        write_cache(self._path, SCHEMA, document)

    def _measure(self, calls: list[Call]) -> None:
        """Run the calls, cheap ones first, inside one recording of the allocator."""
        with rng_untouched(), torch.autocast("cpu", enabled=False):
            costs = {call: cost for call in calls if (cost := self._cost(call)) is not None}
            ranked = sorted(costs, key=costs.__getitem__)
            runs: list[_Run] = []
            markers: list[torch.Tensor] = []  # alive to the end: an address means one marker
            try:
                with record_allocations() as events:
                    start = time.perf_counter()
                    for call in ranked:
                        if time.perf_counter() - start > self._limit_seconds:
                            self._reasons[call] = _OUT_OF_TIME
                        else:
                            runs += self._run(call, markers, twice=costs[call] < _CHEAP)
            except ShoestringError:
                self._reasons.update(dict.fromkeys(ranked, _NO_RECORD))
                return
        stream = iter(events)
        for run in runs:
            self._known[run.call] = _account(run, stream)

    def _cost(self, call: Call) -> float | None:
        """Return FLOPs plus bytes of a call, or None with a reason where it is too large."""
        maker = Maker("meta")
        try:
            args, kwargs = _given(call, maker)
            with torch.set_grad_enabled(call.grad):
                out = self._calls[call](*args, **kwargs)
            given = {id(tensor) for tensor in tensors([args, kwargs])}
            size = maker.nbytes + sum(t.nbytes for t in tensors(out) if id(t) not in given)
            cost = op_cost(self._calls[call], args, kwargs, out)
            flops = 0 if cost is None else cost.flops
        except Exception as error:  # noqa: BLE001 - an operator may raise anything
            self._reasons[call] = _first_line(error)
            return None
        if size > self._limits[0] or flops > self._limits[1]:
            self._reasons[call] = _TOO_LARGE
            return None
        return float(flops + size)

    def _run(self, call: Call, markers: list[torch.Tensor], *, twice: bool) -> list[_Run]:
        """Run a call; the second time it does not pay for what lasts, such as thread pools."""
        try:
            args, kwargs = _given(call, Maker("cpu"))
            run = _run_once(call, self._calls[call], args, kwargs, markers)
            if twice:
                run = _run_once(call, self._calls[call], args, kwargs, markers)
            return [run]
        except Exception as error:  # noqa: BLE001 - an operator may raise anything
            short = isinstance(error, MemoryError) or "allocate memory" in str(error)
            self._reasons[call] = _NO_MEMORY if short else _first_line(error)
            return []


# --- which operators -------------------------------------------------------------------------


def _rule(func: torch._ops.OpOverload) -> _Rule:
    name = func.name()
    if name.startswith(_NO_WORKSPACE):
        return _Rule.SKIP
    if name.partition("::")[0] not in _NAMESPACES:
        return _Rule.FOREIGN
    signature = schema(func)
    aliases = [value.alias_info for value in signature.returns]
    if aliases and all(alias is not None and not alias.is_write for alias in aliases):
        return _Rule.SKIP  # views
    if not any("Tensor" in str(argument.type) for argument in signature.arguments):
        return _Rule.SKIP  # factories
    return _Rule.POINTWISE if torch.Tag.pointwise in func.tags else _Rule.PROBE


def _one_float_type(args: Sequence[object]) -> bool:
    """Whether all tensors have one floating type: then an iterator makes its output, no more.

    Where types differ, and where integers are promoted, it copies operands to a common type.
    """
    found: torch.dtype | None = None
    for value in args:
        if isinstance(value, torch.Tensor):
            dtype = value.dtype
            if found is None and dtype.is_floating_point:
                found = dtype
            elif dtype is not found:
                return False
    return found is not None


# --- running one call ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """One call that was run under the allocator's record."""

    call: Call
    begin: int
    end: int
    outputs: dict[int, int]
    seconds: float


def _given(call: Call, maker: Maker) -> tuple[list[object], dict[str, object]]:
    args, kwargs = call.given(maker)
    prepare = _PREPARE.get(call.name)
    return args if prepare is None else prepare(args), kwargs


def _run_once(
    call: Call,
    func: torch._ops.OpOverload,
    args: list[object],
    kwargs: dict[str, object],
    markers: list[torch.Tensor],
) -> _Run:
    own = storages([args, kwargs])
    with torch.set_grad_enabled(call.grad):
        markers.append(torch.empty(_MARKER_BYTES, dtype=torch.uint8, device="cpu"))
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        markers.append(torch.empty(_MARKER_BYTES, dtype=torch.uint8, device="cpu"))
    fresh = {at: size for at, size in storages(out).items() if at not in own}
    return _Run(call, markers[-2].data_ptr(), markers[-1].data_ptr(), fresh, seconds)


def _account(run: _Run, events: Iterator[AllocatorEvent]) -> Workspace:
    """Read one run from the allocator's events, which are in order of time like the runs.

    transient = max_t (sum of blocks alive) - blocks returned, over blocks made in the run.
    """
    for event in events:
        if event.address == run.begin and event.nbytes == _MARKER_BYTES:
            break
    blocks: dict[int, int] = {}
    live = peak = 0
    for event in events:
        if event.address == run.end and event.nbytes == _MARKER_BYTES:
            break
        if event.nbytes >= 0:
            blocks[event.address] = event.nbytes
            live += event.nbytes
            peak = max(peak, live)
        else:  # a block from before the run, freed in it, does not count
            live -= blocks.pop(event.address, 0)
    returned = sum(blocks.get(address, 0) for address in run.outputs)
    return Workspace(max(0, peak - returned), tuple(run.outputs.values()), run.seconds)


def _forward_of_rnn(args: list[object]) -> list[object]:
    """Replace what the backward of a recurrent layer takes from its forward by the real thing.

    Its workspace has no bytes in a fake trace, and the kernel would read beyond them.
    """
    reverse, mode, hidden, layers, biases, train, both, sizes, first = args[13:22]
    forward = torch.ops.aten.mkldnn_rnn_layer.default
    options = (reverse, sizes, mode, hidden, layers, biases, both, first, train)
    with torch.enable_grad():  # without, the kernel returns no workspace
        output, hy, cy, space = forward(*args[:7], *options)
    return [*args[:7], output, hy, cy, *args[10:22], space]


_PREPARE: Final[dict[str, Callable[[list[object]], list[object]]]] = {
    "aten::mkldnn_rnn_layer_backward": _forward_of_rnn
}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


# --- the cache -------------------------------------------------------------------------------


def _environment(limits: tuple[int, int]) -> str:
    """Return all that kernels and rows depend on beside the call."""
    parts = (
        f"torch {torch.__version__}",
        cpu_name(),
        torch.backends.cpu.get_cpu_capability(),
        f"{torch.get_num_threads()} threads",
        f"mkldnn {torch.backends.mkldnn.enabled}",
        f"deterministic {torch.are_deterministic_algorithms_enabled()}",
        f"limits {limits[0]} {limits[1]}",
    )
    return ", ".join(parts)


def _digest(call: Call) -> str:
    text = repr((call.args, call.kwargs, call.grad)).encode()
    return f"{call.name} {hashlib.blake2b(text, digest_size=12).hexdigest()}"


def _from_row(row: object) -> Workspace | None:
    """Return a row of the cache file, or None where it is not one."""
    if not (isinstance(row, list) and len(row) == 3 and isinstance(row[2], list)):
        return None
    transient, seconds, outputs = row
    sizes = [transient, *outputs]
    if not all(type(size) is int and 0 <= size < 2**60 for size in sizes):
        return None
    if not (type(seconds) is float and 0 <= seconds < 1e6):
        return None
    return Workspace(transient, tuple(outputs), seconds)
