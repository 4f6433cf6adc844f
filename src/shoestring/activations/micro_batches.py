"""Micro-batches: one batch in parts, weighted so that the gradients add up to the whole's."""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Self, TypeAlias, cast

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from shoestring.core.edit import Editor, remap
from shoestring.core.errors import InputError, RefusedError, ShoestringError
from shoestring.core.fidelity import Fidelity
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace, Work, total
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.fake import Batch, map_tensors, tensors_in
from shoestring.measure.tracing.step import Loss, StepOptions, forward_loss

Gradients: TypeAlias = dict[str, torch.Tensor]
Part: TypeAlias = Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...] | torch.Tensor

WEIGHTINGS: Final = ("rows", "labels", "shifted-labels")
"""What the loss of a part can be weighted by."""

_IGNORED: Final = -100
_TOLERANCE: Final = 1e-9
_ADDITION: Final = "aten.add_.Tensor"
"""What an operation that sums gradients is priced as."""
_ROWS_CHECKED: Final = 4


@dataclasses.dataclass(frozen=True)
class MicroBatches(Technique):
    r"""Run the batch in parts and add up their gradients.

    The loss of a batch is a mean over its terms, so the gradient of the whole is
    :math:`g = \sum_i w_i g_i` with :math:`w_i` the part's share of the terms: its share of the
    rows for a loss per row, of the labels that are not ignored for a loss per token.

    Args:
        parts: micro-batches in a batch, at least 2.
        weight_by: ``"rows"``, ``"labels"`` (those that are not -100) or ``"shifted-labels"``
            (the same without the first of each row, as causal language models count them);
            `find_weighting` tells which.

    Example:
        >>> parts = list(MicroBatches(parts=2).split(torch.zeros(3, 5)))
        >>> [(tuple(part.shape), round(weight, 3)) for part, weight in parts]
        [((2, 5), 0.667), ((1, 5), 0.333)]
    """

    parts: int
    weight_by: str = "rows"

    name: ClassVar[str] = "micro-batches"
    slot: ClassVar[Slot] = Slot.PARALLEL

    def validate(self) -> None:
        """Raise InputError where an option is out of range.

        Raises:
            InputError: fewer than two parts, or an unknown weighting.
        """
        if not 2 <= self.parts <= 10**6:
            raise InputError(
                f"{self.parts} micro-batches are of no use.", hint="use from 2 up to the rows."
            )
        _check_weighting(self.weight_by)

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT, or SAME_DISTRIBUTION where the forward draws random numbers.

        Args:
            profile: the step it would change.
        """
        draws = any(op.random and op.phase is Phase.FORWARD for op in profile.trace.ops)
        return Fidelity.SAME_DISTRIBUTION if draws else Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why the batch cannot be split, as a sentence; empty where it can.

        Args:
            profile: the step it would change.
        """
        step = profile.step
        if step.couplings:
            more = f" and {len(step.couplings) - 1} more" if len(step.couplings) > 1 else ""
            return f"the samples of a batch are not independent: {step.couplings[0]}{more}."
        if step.custom:
            return "the step is the user's own function, which takes the whole batch."
        if step.rows < self.parts:
            return f"a batch of {step.rows} rows cannot be split into {self.parts} parts."
        if profile.weighting is None:
            return "what its parts are weighted by can only be found with weights and a real batch."
        if any(not _scalable(trace) for trace in profile.traces):
            return "how the step's sizes depend on the rows of the batch is not known."
        return ""

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        """Return 2, 4, 8, ... parts, up to one row a part.

        The weighting is by rows: whoever has the model and a batch replaces it by what
        `find_weighting` finds.

        Args:
            profile: the step it would change.
        """
        rows = profile.step.rows
        counts = [2**k for k in range(1, max(rows, 1).bit_length()) if 2**k <= rows]
        return [cls(parts=n) for n in dict.fromkeys([*counts, rows]) if n >= 2]

    def confirm(self, profile: Profile) -> Self:
        """Return it weighted as the loss is, found in float64 on the model and batch.

        Args:
            profile: the plain step, profiled on real data.

        Raises:
            RefusedError: no weighting gives the gradients of the whole batch.
        """
        if profile.weighting is None:
            raise RefusedError(
                "micro-batches cannot be checked without data.", hint="profile a real model."
            )
        return dataclasses.replace(self, weight_by=profile.weighting())

    def predict(self, profile: Profile) -> Profile:
        """Return the profile of the step in parts: smaller activations, gradients that stay.

        Args:
            profile: the step before the change, with sizes per row.
        """
        traces = tuple(_in_parts(trace, self.parts, profile.machine) for trace in profile.traces)
        step = dataclasses.replace(profile.step, accumulate=profile.step.accumulate * self.parts)
        return dataclasses.replace(profile, traces=traces, step=step)

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"{self.parts} micro-batches weighted by {self.weight_by.replace('-', ' ')}"

    def split(self, batch: Batch) -> Iterator[tuple[Part, float]]:
        """Yield the parts of a batch with the weight of each part's loss.

        Tensors whose dimension 0 has the size of the batch are split, the others go into
        every part. A part whose labels are all ignored has no loss and is left out.

        Args:
            batch: a tensor, a tuple or a dict of tensors.

        Yields:
            (part, weight); the weights sum to 1.

        Raises:
            InputError: the batch has fewer rows than parts, or lacks the labels.
        """
        self.validate()
        rows = _rows(batch)
        if rows < self.parts:
            raise InputError(
                f"a batch of {rows} rows cannot be split into {self.parts} parts.",
                hint="use fewer parts.",
            )
        yield from _weighted(_cut(batch, _sizes(rows, self.parts)), self.weight_by)


def _check_weighting(weight_by: str) -> None:
    if weight_by not in WEIGHTINGS:
        raise InputError(
            f"{weight_by!r} is no weighting of micro-batches.", hint=f"use one of {WEIGHTINGS}."
        )


def _rows(batch: Batch) -> int:
    sizes = [t.shape[0] for t in tensors_in(batch) if t.dim() > 0]
    if not sizes:
        raise InputError("the batch holds no tensor with rows.", hint="pass tensors as the batch.")
    return max(set(sizes), key=sizes.count)


def _sizes(rows: int, parts: int) -> list[int]:
    least, extra = divmod(rows, parts)
    return [least + (i < extra) for i in range(parts)]


def _cut(batch: Batch, sizes: Sequence[int]) -> Iterator[Part]:
    rows, start = sum(sizes), 0
    for size in sizes:

        def part(tensor: torch.Tensor, start: int = start, size: int = size) -> torch.Tensor:
            whole = tensor.dim() == 0 or tensor.shape[0] != rows
            return tensor if whole else tensor.narrow(0, start, size)

        yield cast(Part, map_tensors(batch, part))  # the containers are kept
        start += size


def _weighted(parts: Iterable[Part], weight_by: str) -> Iterator[tuple[Part, float]]:
    listed = list(parts)
    terms = [_terms(part, weight_by) for part in listed]
    total = sum(terms)
    if total == 0:
        raise InputError("no row of the batch has a label.", hint="leave such batches out.")
    for part, count in zip(listed, terms, strict=True):
        if count:
            yield part, count / total


def _terms(part: Part, weight_by: str) -> int:
    if weight_by == "rows":
        return _rows(part)
    labels = part.get("labels") if isinstance(part, Mapping) else None
    if not isinstance(labels, torch.Tensor):
        raise InputError(
            f"a batch without labels cannot be weighted by {weight_by}.",
            hint='pass a dict with the key "labels", or weight by rows.',
        )
    counted = labels[..., 1:] if weight_by == "shifted-labels" else labels
    return int((counted != _IGNORED).sum())


# --- what it costs -----------------------------------------------------------------------


def _scalable(trace: Trace) -> bool:
    return any(storage.per_row is not None for storage in trace.storages)


def _in_parts(trace: Trace, parts: int, machine: Machine) -> Trace:
    small = trace.scaled(math.ceil(trace.rows / parts))
    editor = Editor(small)
    persistent: dict[int, int] = {}
    for index, accumulated in small.accumulated.items():
        fresh = small.storages[index]
        if fresh.birth == ALWAYS:
            continue  # gradients stay already
        # All parts but the first find the sum of the earlier ones, so it counts as always
        # there; what a part computes is added to it at once. Where a gradient is copied away
        # as soon as it is complete, the sum is.
        death = accumulated if fresh.death == accumulated else None
        persistent[index] = editor.add(
            Storage(fresh.nbytes, Kind.GRADIENT, ALWAYS, death, fresh.module)
        )
        editor.storages[index] = dataclasses.replace(fresh, death=accumulated)
    for index, op in enumerate(small.ops):
        if op.phase is Phase.OPTIMIZER and not persistent.keys().isdisjoint(op.reads):
            editor.replace(index, remap(op, persistent))
    ran = [op for op in small.ops if op.phase is not Phase.OPTIMIZER]
    end = next((i for i, op in enumerate(small.ops) if op.phase is Phase.OPTIMIZER), len(small.ops))
    others = parts - 1
    # Every part but the first adds its gradients to the sums: an addition a gradient.
    sums = sum(editor.storages[i].nbytes for i in persistent.values())
    additions = Work(bytes_read=2 * sums, bytes_written=sums)
    adding = machine.price(_ADDITION, Phase.BACKWARD, "float32", additions).memory
    adding += len(persistent) * machine.price(_ADDITION, Phase.BACKWARD, "float32", Work()).cost
    editor.insert(
        end,
        Op(
            name="micro-batches.others",
            phase=Phase.BACKWARD,
            module="",
            seconds=others * (sum(machine.seconds(op) for op in ran) + adding),
            **total(ran).plus(additions).times(others)._asdict(),
        ),
    )
    return editor.trace()


# --- which weighting is exact ------------------------------------------------------------


def couplings(model: nn.Module) -> tuple[str, ...]:
    """Return what mixes the samples of a batch, as far as it can be seen without data.

    Batch normalisation with the batch's statistics, a router's balancing loss, a contrastive
    loss. `find_weighting` finds the rest, by computing.

    Args:
        model: any module; its training flag is taken as it is.

    Returns:
        ``path: reason``, one for each layer or loss.

    Example:
        >>> couplings(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
        ('1: normalises with statistics of the batch',)
    """
    found = [
        f"{path or type(module).__name__}: normalises with statistics of the batch"
        for path, module in model.named_modules()
        if _uses_batch_statistics(module)
    ]
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        if getattr(config, "output_router_logits", False) is True:
            found.append(
                f"{path or type(module).__name__}: the loss balances routers over the batch"
            )
            break
    found += [
        f"{path}: the loss contrasts the samples of the batch"
        for path, parameter in model.named_parameters()
        if parameter.numel() == 1 and path.rpartition(".")[2] == "logit_scale"
    ]
    return tuple(found)


def _uses_batch_statistics(module: nn.Module) -> bool:
    if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)):
        return False
    return module.training or module.running_mean is None


def find_weighting(model: nn.Module, batch: Batch, loss: Loss | None = None) -> str:
    """Return the weighting under which micro-batches add up to the whole batch, by computing.

    A few rows of the batch, padded unequally where it has an attention mask or labels per
    token, are differentiated whole and in unequal parts, in float64 on a copy of the model
    with dropout off; the weighting whose sums agree to 1e-9 of the largest gradient wins.

    Args:
        model: any module with weights; not changed. It needs twice its memory once more.
        batch: a batch with data.
        loss: ``f(output, batch) -> scalar``; by default the output's own.

    Returns:
        ``"rows"``, ``"labels"`` or ``"shifted-labels"``.

    Raises:
        RefusedError: no weighting agrees: something mixes the samples, or the loss is no mean.
        InputError: the batch has one row only.
    """
    rows = min(_rows(batch), _ROWS_CHECKED)
    if rows < 2:
        raise InputError("a batch of one row cannot be split.", hint="pass at least two rows.")
    if any(t.is_meta for t in (*model.parameters(), *tensors_in(batch))):
        raise RefusedError(
            "micro-batches are checked by computing, and there is no data.",
            hint="pass a model with weights and a real batch.",
        )
    first = (3 * rows) // 4
    few = _padded(next(_cut(batch, [rows, _rows(batch) - rows])), first)
    with rng_untouched():
        twin = copy.deepcopy(model).double()
        whole, largest = _steady_gradients(twin, few, loss)
        for weight_by in WEIGHTINGS:
            if weight_by != "rows" and not _has_labels(few):
                continue
            parts = list(_weighted(_cut(few, [first, rows - first]), weight_by))
            if _difference(_summed(twin, parts, loss), whole) <= _TOLERANCE * largest:
                return weight_by
    raise RefusedError(
        "the gradients of micro-batches do not add up to the batch's, however they are weighted.",
        hint="something mixes the samples of a batch, or the loss is not a mean over its terms.",
    )


def _has_labels(batch: Batch) -> bool:
    return isinstance(batch, Mapping) and isinstance(batch.get("labels"), torch.Tensor)


def _padded(batch: Part, rows: int) -> Part:
    """Pad the first rows of a batch, so that its parts have unequal numbers of tokens."""
    wide = map_tensors(batch, lambda t: t.double() if t.is_floating_point() else t.clone())
    if isinstance(wide, dict):
        for name, filler in (("attention_mask", 0), ("labels", _IGNORED)):
            tokens = wide.get(name)
            if not isinstance(tokens, torch.Tensor) or tokens.is_floating_point():
                continue
            if tokens.dim() == 2 and tokens.shape[1] > 2:
                tokens[:rows, -(tokens.shape[1] // 3) :] = filler
    return wide


class _Steady(TorchFunctionMode):
    """Computes in float64 throughout and leaves dropout out.

    Models turn logits to float32 for the loss, whatever their weights are; that rounding
    would hide behind it what is looked for here.
    """

    _NARROW = (torch.float32, torch.float16, torch.bfloat16)
    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)
    _DROPOUTS = (nn.functional.dropout, torch.dropout, nn.functional.dropout1d)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Rewrite one call."""
        options = {k: self._wide(v) for k, v in (kwargs or {}).items()}
        if func in self._CASTS:
            return cast(torch.Tensor, args[0]).double()
        if func in self._DROPOUTS:
            return args[0] if args else options["input"]
        if func is nn.functional.scaled_dot_product_attention:
            args = (*args[:4], 0.0, *args[5:]) if len(args) > 4 else args
            options.pop("dropout_p", None)
        return func(*(self._wide(a) for a in args), **options)

    def _wide(self, value: object) -> object:
        return torch.float64 if isinstance(value, torch.dtype) and value in self._NARROW else value


def _gradients(model: nn.Module, batch: Batch, loss: Loss | None) -> Gradients:
    model.zero_grad(set_to_none=True)
    try:
        with _Steady():
            value, _ = forward_loss(model, batch, StepOptions(loss=loss))
            value.backward()
    except ShoestringError:
        raise
    except Exception as error:
        raise RefusedError(
            f"the model does not run on a part of the batch: {error}",
            hint="the rows of its tensors must be independent, in dimension 0.",
        ) from error
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _steady_gradients(model: nn.Module, batch: Part, loss: Loss | None) -> tuple[Gradients, float]:
    """Return the whole batch's gradients and their largest; random layers are switched off."""
    start = copy.deepcopy(dict(model.named_buffers()))
    before = _random_states()
    whole = _gradients(model, batch, loss)
    if _random_states() != before:
        # Random numbers are drawn elsewhere than in dropout: evaluate, but let the layers
        # that mix samples do so.
        mixing = [m for m in model.modules() if _uses_batch_statistics(m)]
        model.eval()
        for module in mixing:
            module.train()
        whole = _gradients(model, batch, loss)
    largest = max((float(g.abs().max()) for g in whole.values() if g.numel()), default=0.0)
    for path, buffer in model.named_buffers():
        buffer.copy_(start[path])
    return whole, largest


def _random_states() -> tuple[object, ...]:
    """Return the states of the global generators of Python, NumPy and torch, to be compared."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  # models draw from it
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    states = [state.numpy().tobytes() for state in (torch.get_rng_state(), *cuda)]
    return (random.getstate(), name, np.asarray(keys).tobytes(), *rest, *states)


def _summed(model: nn.Module, parts: Sequence[tuple[Part, float]], loss: Loss | None) -> Gradients:
    total: Gradients = {}
    for part, weight in parts:
        for name, gradient in _gradients(model, part, loss).items():
            total[name] = total.get(name, 0) + weight * gradient
    return total


def _difference(one: Gradients, other: Gradients) -> float:
    """Return the largest difference; a gradient that only one side has counts whole."""
    largest = 0.0
    for name in one.keys() | other.keys():
        a, b = one.get(name), other.get(name)
        gap = a if b is None else b if a is None else a - b
        assert gap is not None
        if gap.numel():
            value = float(gap.abs().max())
            largest = max(largest, math.inf if math.isnan(value) else value)
    return largest
