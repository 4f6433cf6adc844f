"""Exact block checkpointing: a block's activations are computed again in backward, not kept."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Self, TypeAlias, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from shoestring.activations._recompute import recomputed
from shoestring.activations._torch import drop_forward_hook
from shoestring.core.errors import AssumptionWarning, InputError, NoEffectWarning, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.measure._torch import FakeTensor, has_compiled_calls

_PLAIN: Final = "_shoestring_plain_forward"
_IDLE: Final = "_shoestring_not_called_yet"
_SMALL: Final = 64 * 1024
_DEPTH: Final = 6
_Arguments: TypeAlias = tuple[tuple[object, ...], dict[str, object]]
_OPAQUE: Final = (nn.Module, types.FunctionType, types.MethodType)


@dataclasses.dataclass(frozen=True)
class BlockCheckpointing(Technique):
    """Keep a block's input from forward to backward, and compute its inside again there.

    The gradients are those of the plain step to the last bit: dropout draws the same numbers
    again, and buffers that the forward changes (statistics of batch normalisation, vectors of
    spectral normalisation) are read again as they were and changed once. A key-value cache
    that comes in empty is of no use in training and is not passed to the block.

    Args:
        blocks: dotted paths of the blocks, as `repeated_blocks` of `shoestring.measure.tracing` or
            a profile's trace names them.

    Example:
        >>> block = lambda: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))
        >>> model = nn.Sequential(block(), block())
        >>> technique = BlockCheckpointing(blocks=("0", "1"))
        >>> technique.apply(model)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> technique.remove(model)

    Source:
        Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016.
    """

    blocks: tuple[str, ...]

    name: ClassVar[str] = "block-checkpointing"
    slot: ClassVar[Slot] = Slot.REMAT

    @classmethod
    def with_count(cls, profile: Profile, count: int) -> Self:
        """Checkpoint the first blocks of the forward.

        Of all choices of that many like blocks the first ones are never worse: whatever is
        chosen, as much is alive when the forward ends, but the last blocks are differentiated
        first, while everything else is still kept. If those are the plain ones, their
        activations are gone before a block has to be computed again.

        Args:
            profile: a step with repeated blocks.
            count: blocks to checkpoint, from 1 to all.

        Returns:
            The technique.

        Raises:
            InputError: the step has fewer blocks than that.
        """
        paths = _paths(profile)
        if not 1 <= count <= len(paths):
            raise InputError(
                f"{count} of {len(paths)} blocks cannot be checkpointed.", hint="count from 1."
            )
        return cls(blocks=paths[:count])

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT.

        Args:
            profile: the step it would change.
        """
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why blocks cannot be checkpointed, as a sentence; empty where they can.

        Args:
            profile: the step it would change.
        """
        if profile.step.blocks_checkpointed:
            return "the model computes activations again already."
        known = _paths(profile)
        if not known:
            return "no repeated blocks were found in the step."
        strange = [path for path in self.blocks if path not in known]
        return f"{strange[0]!r} is no repeated block of the step." if strange else ""

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        """Return the first 1, 2, 4, ... blocks of the forward, and all of them.

        Args:
            profile: the step it would change.
        """
        total = len(_paths(profile))
        counts = [2**k for k in range(total.bit_length()) if 2**k < total]
        return [cls.with_count(profile, n) for n in (*counts, total) if n]

    def predict(self, profile: Profile) -> Profile:
        """Return the profile of the step with blocks computed again.

        Args:
            profile: the step before the change.
        """
        traces = tuple(recomputed(trace, self.blocks) for trace in profile.traces)
        step = dataclasses.replace(profile.step, blocks_checkpointed=True)
        return dataclasses.replace(profile, traces=traces, step=step)

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"checkpoint {len(self.blocks)} block{'s' * (len(self.blocks) != 1)}"

    def apply(self, model: nn.Module) -> None:
        """Checkpoint the blocks, each through its own instance.

        A `NoEffectWarning` follows after the first training forward if a block was not called.

        Args:
            model: keeps its class, state_dict keys and signatures; copies of it are changed
                likewise and work on their own.

        Raises:
            RefusedError: a block is not there, has no forward, or is checkpointed already.
        """
        found = self._find(model)
        if not found:
            warnings.warn("no block was named to checkpoint.", NoEffectWarning, stacklevel=2)
            return
        for path, block in found:
            if _is_checkpointed(block):
                raise RefusedError(
                    f"block {path!r} is checkpointed already.", hint="remove the other plan first."
                )
            if type(block).forward is nn.Module.forward:
                raise RefusedError(
                    f"block {path!r} is a container without a forward.",
                    hint="name the modules in it.",
                )
            if getattr(block, "gradient_checkpointing", False):
                raise RefusedError(
                    f"block {path!r} is checkpointed by its own library.",
                    hint="turn its gradient_checkpointing off first.",
                )
        for _, block in found:
            own = block.__dict__.get("forward")
            if own is not None:
                block.__dict__[_PLAIN] = own
            setattr(block, "forward", types.MethodType(_checkpointed(block.forward), block))  # noqa: B010
            block.__dict__[_IDLE] = True
        model.register_forward_hook(_warn_of_idle_blocks)

    def remove(self, model: nn.Module) -> None:
        """Let the blocks keep their activations again.

        Args:
            model: a model that `apply` changed, or a copy of one.

        Raises:
            RefusedError: a block is not there or not checkpointed.
        """
        found = self._find(model)
        for path, block in found:
            if not _is_checkpointed(block):
                raise RefusedError(f"block {path!r} is not checkpointed.", hint="apply it first.")
        for _, block in found:
            own = block.__dict__.pop(_PLAIN, None)
            del block.__dict__["forward"]
            if own is not None:
                block.__dict__["forward"] = own
            block.__dict__.pop(_IDLE, None)
        drop_forward_hook(model, _warn_of_idle_blocks)

    def _find(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """Return the named blocks, a block of several names once."""
        found: dict[int, tuple[str, nn.Module]] = {}
        for path in self.blocks:
            try:
                block = model.get_submodule(path)
            except AttributeError:
                raise RefusedError(
                    f"the model has no block {path!r}.", hint="make the plan for this model."
                ) from None
            found.setdefault(id(block), (path, block))
        return list(found.values())


def _paths(profile: Profile) -> tuple[str, ...]:
    return tuple(dict.fromkeys(block.path for block in profile.trace.blocks))


def _is_checkpointed(block: nn.Module) -> bool:
    own = getattr(block.__dict__.get("forward"), "__func__", None)
    return getattr(own, "_shoestring_checkpointed", False)


def _warn_of_idle_blocks(model: nn.Module, args: object, output: object) -> None:
    """Forward hook that says once which blocks a training forward did not call."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return
    drop_forward_hook(model, _warn_of_idle_blocks)
    # What the compiler has traced runs without noting that it was called.
    compiled = tuple(f"{path}." for path, m in model.named_modules() if has_compiled_calls(m))
    idle = [
        path
        for path, m in model.named_modules()
        if m.__dict__.pop(_IDLE, False) and not f"{path}.".startswith(compiled)
    ]
    if idle:
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        warnings.warn(
            f"checkpointed block {idle[0]!r}{more} was not called by the forward.",
            NoEffectWarning,
            stacklevel=2,
        )


# --- one call of a block -----------------------------------------------------------------


def _checkpointed(plain: Callable[..., object]) -> Callable[..., object]:
    """Return a function with the signature of a block's forward that checkpoints it."""
    function = getattr(plain, "__func__", plain)

    def forward(self: nn.Module, *args: object, **kwargs: object) -> object:
        return _run(self, args, kwargs)

    if function is plain:  # not a method: the first parameter is to be left out again
        functools.update_wrapper(forward, plain, updated=())
        forward.__dict__.pop("__wrapped__", None)
        signature = inspect.signature(plain)
        first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        parameters = [first, *signature.parameters.values()]
        setattr(forward, "__signature__", signature.replace(parameters=parameters))  # noqa: B010
        return _marked(forward)
    return _marked(functools.wraps(function, updated=())(forward))


def _marked(forward: Callable[..., object]) -> Callable[..., object]:
    setattr(forward, "_shoestring_checkpointed", True)  # noqa: B010  # a function's attribute
    return forward


def _plain_forward(block: nn.Module) -> Callable[..., object]:
    own: Callable[..., object] | None = block.__dict__.get(_PLAIN)
    # A partial, since the compiler cannot follow a method that is made on the way.
    return functools.partial(type(block).forward, block) if own is None else own


def _run(block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    plain = _plain_forward(block)
    if not torch.is_grad_enabled():
        return plain(*args, **kwargs)
    if torch.compiler.is_compiling():
        # The compiler sees to buffers itself: it applies their changes once, at the end.
        return checkpoint(functools.partial(plain, **kwargs), *args, use_reentrant=False)
    block.__dict__.pop(_IDLE, None)
    args, kwargs = _without_empty_caches(args, kwargs)
    tensors: list[torch.Tensor] = []
    shape = _emptied((args, kwargs), tensors)
    if not any(t.requires_grad for t in (*tensors, *block.parameters())):
        return plain(*args, **kwargs)
    call = _Call(block, (args, kwargs))

    def run(*tensors: torch.Tensor) -> object:
        again, options = cast(_Arguments, _filled(shape, tensors))
        return plain(*again, **options)

    # Tensors go in by position, whichever way they came: only those are kept through saved
    # tensor hooks, and only their devices' random states are restored.
    del args, kwargs
    output = checkpoint(
        run,
        *tensors,
        use_reentrant=False,
        preserve_rng_state=True,
        context_fn=lambda: (contextlib.nullcontext(), call),
    )
    call.finish()
    return output


class _Call:
    """What one forward of a block started from, so that it can be run again exactly."""

    def __init__(self, block: nn.Module, inputs: _Arguments) -> None:
        self._block = block
        self._inputs: _Arguments | None = inputs
        self._listing = _listing(inputs)
        self._before = {
            module: {name: _Kept(buffer) for name, buffer in module._buffers.items()}
            for module in block.modules()
            if module._buffers
        }
        self._others: list[tuple[torch.Tensor, int]] = [(p, p._version) for p in block.parameters()]
        self._now: list[dict[nn.Module, dict[str, torch.Tensor | None]]] = []

    def finish(self) -> None:
        """See what the first forward changed.

        Raises:
            RefusedError: it changed one of its inputs.
        """
        inputs, self._inputs = self._inputs, None
        if _listing(inputs) != self._listing:
            raise RefusedError(
                f"a block of class {type(self._block).__name__} changes what it is passed, so it "
                "cannot be computed again.",
                hint="set model.config.use_cache = False if it fills a cache, make in-place "
                "operations on its input out of place, or leave the block out.",
            )
        for module, buffers in self._before.items():
            for name, kept in buffers.items():
                kept.settle(module._buffers.get(name))

    def __enter__(self) -> None:
        """Let the block find its buffers as they were; entered once a backward."""
        if any(p._version != version for p, version in self._others):
            raise RuntimeError(
                "a parameter of a checkpointed block was modified in place between forward and "
                "backward, so the block cannot be computed again"
            )
        self._now.append({module: dict(module._buffers) for module in self._before})
        for module, buffers in self._before.items():
            _put(module, {name: kept.value() for name, kept in buffers.items()})

    def __exit__(self, *error: object) -> None:
        """Put the buffers back as they are now."""
        for module, current in self._now.pop().items():
            _put(module, current)


class _Kept:
    """A buffer as it was before a forward, copied where the forward may change it.

    Versions alone do not tell: the kernels of batch normalisation change statistics without
    counting it. So small buffers are always kept, and large ones are compared.
    """

    def __init__(self, buffer: torch.Tensor | None) -> None:
        self._live = buffer
        self._copy: torch.Tensor | None = None
        self._version = 0
        if buffer is not None:
            self._version = buffer._version
            with torch.no_grad():
                self._copy = buffer.detach().clone()

    def settle(self, current: torch.Tensor | None) -> None:
        """Drop the copy of a large buffer that the forward left as it was.

        Args:
            current: the buffer after the forward.
        """
        live, kept = self._live, self._copy
        if live is None or kept is None or kept.nbytes <= _SMALL:
            return
        same = current is live and live._version == self._version
        if same and (_has_no_data(live) or torch.equal(live, kept)):
            self._copy = None

    def value(self) -> torch.Tensor | None:
        """Return the buffer as it was; a fresh copy, since the forward changes it again."""
        if self._copy is not None:
            with torch.no_grad():
                return self._copy.clone()
        if self._live is not None and self._live._version != self._version:
            raise RuntimeError(
                "a buffer of a checkpointed block was modified in place between forward and "
                "backward, so the block cannot be computed again"
            )
        return self._live


def _has_no_data(tensor: torch.Tensor) -> bool:
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def _put(module: nn.Module, buffers: Mapping[str, torch.Tensor | None]) -> None:
    module._buffers.clear()
    module._buffers.update(buffers)


# --- what a block is passed --------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Stands for a tensor of a call."""

    index: int


def _emptied(value: object, tensors: list[torch.Tensor]) -> object:
    """Return plain containers with places in place of tensors, which are appended to a list."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return _Place(len(tensors) - 1)
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        parts = [_emptied(part, tensors) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict) and type(value) is dict:
        return {key: _emptied(part, tensors) for key, part in value.items()}
    return value


def _filled(shape: object, tensors: Sequence[torch.Tensor]) -> object:
    """Return the containers with tensors in their places.

    This is no function within a function: one that calls itself is a reference cycle, and
    what it sees would live until the garbage collector runs.
    """
    if isinstance(shape, _Place):
        return tensors[shape.index]
    if isinstance(shape, (tuple, list)) and type(shape) in (tuple, list):
        parts = [_filled(part, tensors) for part in shape]
        return parts if isinstance(shape, list) else tuple(parts)
    if isinstance(shape, dict) and type(shape) is dict:
        return {key: _filled(part, tensors) for key, part in shape.items()}
    return shape


def _without_empty_caches(args: tuple[object, ...], kwargs: dict[str, object]) -> _Arguments:
    """Leave out key-value caches that hold nothing yet; a recomputation would fill them twice."""

    def empty(value: object) -> bool:
        cache = hasattr(value, "get_seq_length") and hasattr(value, "update")
        # Keys and values have a row for each sample; counters have no such dimensions.
        return cache and not any(
            isinstance(t, torch.Tensor) and t.dim() >= 2 for t in _contents(value, _DEPTH)
        )

    if not any(empty(value) for value in (*args, *kwargs.values())):
        return args, kwargs
    warnings.warn(
        "checkpointed blocks do not fill the key-value cache in training.",
        AssumptionWarning,
        stacklevel=2,
    )
    args = tuple(None if empty(value) else value for value in args)
    kwargs = {key: None if empty(value) else value for key, value in kwargs.items()}
    if kwargs.get("use_cache"):
        kwargs["use_cache"] = False
    return args, kwargs


def _listing(value: object) -> list[object]:
    """List what a value holds such that any change of it changes the list."""
    return [
        (id(part), 0 if part.is_inference() else part._version)
        if isinstance(part, torch.Tensor)
        else part
        for part in _contents(value, _DEPTH)
    ]


def _contents(value: object, depth: int) -> Iterator[object]:
    """Yield the tensors and numbers in a value, and how many things each part of it holds."""
    if isinstance(value, (torch.Tensor, bool, int, float)):
        yield value
    elif value is None or depth == 0 or isinstance(value, (str, bytes, type, *_OPAQUE)):
        return
    else:
        if isinstance(value, Mapping):
            parts = list(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            parts = list(value)
        else:
            parts = list(getattr(value, "__dict__", {}).values())
        yield len(parts)
        for part in parts:
            yield from _contents(part, depth - 1)
