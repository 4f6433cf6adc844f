"""Names of published packages that count: FlopCo, with its attributes and our numbers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.core.trace import Op, Work, total
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.fake import tensors_in
from shoestring.measure.tracing.tracer import Tracer

_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class FlopCo:
    """FLOPs, MACs, parameters and shapes of a model's layers in one forward, as FlopCo has them.

    The model runs once, in eval mode and without gradients. Its training flags, hooks, buffers
    and gradients are then as before, and so are the global random numbers.

    As in FlopCo, figures are of one image: of a batch of several each is divided by its rows;
    ``flops`` are 2 for a multiply-add, and 1 for every other scalar operation of the layer, as
    the addition of a bias.

    Where FlopCo is wrong, ours differ:

    - by default FlopCo counts ``nn.Conv2d`` and ``nn.Linear`` alone, and whatever is computed
      elsewhere (attention, ``einsum``, recurrent and transposed layers) is nothing. Here, without
      ``instances``, every module that computes something or has parameters is a layer, the model
      itself among them, so that the totals are the model's.
    - a convolution with groups: FlopCo takes one input channel a group, whatever their number.
    - a linear layer on more than two dimensions: FlopCo forgets all but the last. The addition
      of its bias is one operation for each output there too; FlopCo takes one for each input.
    - a softmax is 5 operations an element here (the largest is found and subtracted first), and
      3 there.
    - a layer of another kind has -1 FLOPs there, which its totals add.
    - a parameter of several layers counts once in ``total_params``.
    - FlopCo removes the user's own hooks from the model.

    Args:
        model: on ``device`` already.
        img_size: shape of the input, the batch first; its values are uniform in [0, 1).
        custom_tensor: the input itself, in place of one of ``img_size``: a tensor; a list or
            tuple for arguments by position; a dict for keywords.
        device: of the input that is made.
        instances: types of the modules that are layers, those made of them included; what is
            computed outside of these is in no figure.

    Attributes:
        total_flops: of all layers.
        total_macs: of all layers.
        total_params: of all layers.
        flops: layer's path -> FLOPs of each of its calls; without those of layers inside it.
        macs: layer's path -> multiply-adds of each of its calls.
        params: layer's path -> parameters, without those of layers inside it.
        relative_flops: layer's path -> its share of ``total_flops``.
        relative_macs: likewise.
        relative_params: likewise.
        input_shapes: layer's path -> shape of the first input of each call.
        output_shapes: layer's path -> shape of the first output of each call.
        ltypes: layer's path -> ``type``; of convolutions ``kernel_size`` and ``groups`` too.

    Raises:
        InputError: ``custom_tensor`` is of another type.

    Example:
        >>> stats = FlopCo(nn.Conv2d(3, 8, 3, padding=1), img_size=(1, 3, 4, 4))
        >>> stats.total_macs, stats.total_flops
        (3456, 7040)

    Source:
        FlopCo (https://github.com/juliagusak/flopco-pytorch), 0.1.4.
    """

    def __init__(
        self,
        model: nn.Module,
        img_size: Sequence[int] = (1, 3, 224, 224),
        custom_tensor: torch.Tensor | Sequence[object] | Mapping[str, object] | None = None,
        device: str | torch.device = "cpu",
        instances: Sequence[type[nn.Module]] | None = None,
    ) -> None:
        self.device = device
        self.img_size = tuple(img_size)
        self.custom_tensor = custom_tensor
        self.instances = None if instances is None else list(instances)
        args, kwargs = _arguments(custom_tensor, self.img_size, device)
        wanted = (nn.Module,) if instances is None else tuple(instances)
        layers = {name: m for name, m in model.named_modules() if isinstance(m, wanted)}
        calls, ops = _run(model, layers, args, kwargs)
        own = {name: [_own(call, ops) for call in found] for name, found in calls.items()}
        params = _params(layers)
        if instances is None:
            layers = {
                name: module
                for name, module in layers.items()
                if params[name] or any(any(work[:3]) for work in own.get(name, ()))
            }
        rows = _rows((args, kwargs))
        self.params = {name: params[name] for name in layers}
        self.ltypes = {name: _kind(module) for name, module in layers.items()}
        called = [name for name in calls if name in layers]
        self.input_shapes = {name: [call.given for call in calls[name]] for name in called}
        self.output_shapes = {name: [call.returned for call in calls[name]] for name in called}
        self.macs = {name: [_each(work.macs, rows) for work in own[name]] for name in called}
        self.flops = {
            name: [_each(work.flops + work.elementwise, rows) for work in own[name]]
            for name in called
        }
        self.total_flops = sum(map(sum, self.flops.values()))
        self.total_macs = sum(map(sum, self.macs.values()))
        self.total_params = sum(self.params.values())
        self.relative_flops = _shares({n: sum(v) for n, v in self.flops.items()})
        self.relative_macs = _shares({n: sum(v) for n, v in self.macs.items()})
        self.relative_params = _shares(dict(self.params))

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in vars(self).items()]
        return "\n".join([f"{type(self).__name__}", *lines])


# --- the input -------------------------------------------------------------------------------


def _arguments(
    custom: object, size: Sequence[int], device: str | torch.device
) -> tuple[tuple[object, ...], dict[str, object]]:
    if custom is None:
        generator = torch.Generator().manual_seed(0)
        return (torch.rand(*size, generator=generator).to(device),), {}
    if isinstance(custom, torch.Tensor):
        return (custom,), {}
    if isinstance(custom, Mapping):
        return (), {str(name): value for name, value in custom.items()}
    if isinstance(custom, (list, tuple)):
        return tuple(custom), {}
    raise InputError(
        f"custom_tensor is a {type(custom).__name__}.",
        hint="pass a tensor, a list of what the model is called with, or a dict of keywords.",
    )


def _rows(given: object) -> int:
    """Return the rows of the batch: the first size of the first tensor that has one."""
    return next((t.shape[0] for t in tensors_in(given) if t.dim() and t.shape[0]), 1)


# --- the run ---------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class _Call:
    """One call of a layer.

    Attributes:
        start: first operation of it.
        given: shape of its first input.
        end: one past its last operation.
        returned: shape of its first output.
        inside: operations [start, end) of calls of layers inside it.
    """

    start: int
    given: torch.Size
    end: int = -1
    returned: torch.Size = dataclasses.field(default_factory=torch.Size)
    inside: list[tuple[int, int]] = dataclasses.field(default_factory=list)


def _run(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> tuple[dict[str, list[_Call]], tuple[Op, ...]]:
    """Return the calls of each layer, and all operations."""
    calls: dict[str, list[_Call]] = {}
    open_calls: list[_Call] = []
    tracer = Tracer(assume_scalars=False)

    def follow(name: str, module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        def begin(_: nn.Module, args: object, kwargs: object) -> None:
            call = _Call(tracer.length, _shape((args, kwargs)))
            calls.setdefault(name, []).append(call)
            open_calls.append(call)

        def finish(_: nn.Module, args: object, kwargs: object, output: object) -> None:
            call = open_calls.pop()
            call.end, call.returned = tracer.length, _shape(output)
            if open_calls:
                open_calls[-1].inside.append((call.start, call.end))

        yield module.register_forward_pre_hook(begin, with_kwargs=True)
        yield module.register_forward_hook(finish, with_kwargs=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(rng_untouched())
        stack.enter_context(_as_before(model))
        for name, module in layers.items():
            for handle in follow(name, module):
                stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        stack.callback(tracer.close)
        stack.enter_context(tracer.watching(model))
        stack.enter_context(tracer)
        model(*args, **kwargs)
    return calls, tracer.trace(rows=1, steady=False).ops


@contextlib.contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode; its flags and buffers are afterwards as they were."""
    modules = list(model.modules())
    flags = [module.training for module in modules]
    buffers = [
        (module, name, buffer, buffer.detach().clone(), buffer._version)
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    # Set one by one: a model's own train() may do more, and is not ours to call.
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        for module, name, buffer, values, version in buffers:
            module._buffers[name] = buffer
            # What did not change is not written: a graph of the user's may hold it.
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(values)


def _shape(value: object) -> torch.Size:
    return next((t.shape for t in tensors_in(value)), torch.Size())


def _own(call: _Call, ops: Sequence[Op]) -> Work:
    """Return what a call computes itself, without the layers inside it."""
    own: list[Op] = []
    start = call.start
    for first, end in call.inside:
        own += ops[start:first]
        start = end
    return total([*own, *ops[start : call.end]])


# --- figures ---------------------------------------------------------------------------------


def _params(layers: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return the parameters of each layer; those of several belong to the innermost, once."""
    owners: dict[int, tuple[str, int]] = {}
    # A layer comes before those inside it, so that these are asked first.
    for name, module in reversed(list(layers.items())):
        for parameter in module.parameters():
            owners.setdefault(id(parameter), (name, parameter.numel()))
    found = dict.fromkeys(layers, 0)
    for name, size in owners.values():
        found[name] += size
    return found


def _kind(module: nn.Module) -> dict[str, object]:
    found: dict[str, object] = {"type": type(module)}
    if isinstance(module, _CONVOLUTIONS):
        found |= {"kernel_size": module.kernel_size, "groups": module.groups}
    return found


def _each(amount: int, rows: int) -> float:
    """Return an amount for one row; a whole number wherever the rows share it evenly."""
    return amount // rows if amount % rows == 0 else amount / rows


def _shares(amounts: Mapping[str, float]) -> dict[str, float]:
    whole = sum(amounts.values())
    return {name: amount / whole if whole else 0.0 for name, amount in amounts.items()}
