"""Linear head and cross-entropy, a few rows at a time: the logits never exist whole."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol, TypeAlias

import torch
from torch.nn import functional as F

from shoestring.core.errors import InputError, RefusedError

Transform: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

COPIES: Final = 4
"""Arrays of logits alive at once while the backward of one chunk runs, its transform aside:
logits, log-probabilities, and the gradients of both."""
_SHARE = 16
_CHUNK_BYTES = 64 * 2**20
_LEAST_ROWS = 256
_IGNORED = -100


def rows_per_chunk(num_rows: int, num_classes: int, itemsize: int = 4) -> int:
    """Return how many rows of logits are computed at a time.

    A chunk is at most a sixteenth of the rows, and its copies of the logits fit into 64 MiB;
    where that would be fewer than 256 rows it is 256, because every chunk reads the whole
    weight, and below some 200 rows reading it takes longer than multiplying with it. The
    answer depends on shapes only, so that a prediction can use it.

    Args:
        num_rows: rows of the hidden states, N.
        num_classes: classes, V.
        itemsize: bytes of one logit in the widest dtype that it passes through.

    Returns:
        Rows, from 1 to ``max(1, ceil(num_rows / 16))``.

    Example:
        >>> rows_per_chunk(8192, 128_256)
        256
        >>> rows_per_chunk(64, 50_257)
        4
    """
    fitting = _CHUNK_BYTES // max(COPIES * num_classes * itemsize, 1)
    return max(1, min(-(-num_rows // _SHARE), max(fitting, _LEAST_ROWS)))


def chunked_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    class_weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
    transform: Transform | None = None,
    chunk_rows: int | None = None,
    compute_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    r"""Cross-entropy of ``transform(hidden @ weight.T + bias)`` without the whole logits.

    .. math:: L = \frac{1}{T} \sum_{i=1}^{N} \ell(f(W h_i + b), y_i)

    with hidden states :math:`h_i`, head :math:`W, b`, pointwise transform :math:`f`, labels
    :math:`y_i`, the loss :math:`\ell` of `torch.nn.functional.cross_entropy` and
    :math:`T` = sum of the class weights of the labels that count ("mean") or 1 ("sum").
    Values and gradients are those of the plain computation to rounding. Memory: N x V logits
    become one chunk of `rows_per_chunk` rows; the backward computes each chunk's logits
    again, which costs the head's forward once more. Gradients of weight and bias are summed
    over chunks in their own dtype.

    Args:
        hidden: ``[..., d]``, any strides; float64, float32, bfloat16 or float16.
        weight: ``[V, d]``, of the dtype of hidden except under autocast.
        labels: class indices, shaped as hidden without its last dimension.
        bias: ``[V]`` or None.
        class_weight: ``[V]`` weights of the classes in the dtype of the transformed logits;
            gets no gradient.
        ignore_index: label of the rows that do not count.
        label_smoothing: share of the target spread over all classes, 0 to 1.
        reduction: ``"mean"`` or ``"sum"``.
        transform: pointwise function of the logits, such as a soft cap; it is run on chunks,
            must not write in place, and parameters inside it get no gradient.
        chunk_rows: rows at a time, at least 1; by default `rows_per_chunk`.
        compute_dtype: dtype of the matrix product; by default autocast's where that is on,
            else that of hidden.

    Returns:
        The loss, a scalar; nan for a mean over no label that counts, as in torch.

    Raises:
        InputError: shapes do not match, the labels are no class indices, or an option is out
            of range.
        RefusedError: in the backward, when it is asked for a graph of itself
            (``create_graph=True``).

    Example:
        >>> hidden = torch.zeros(2, 3, 8, requires_grad=True)
        >>> weight, labels = torch.zeros(5, 8), torch.zeros(2, 3, dtype=torch.long)
        >>> chunked_cross_entropy(hidden, weight, labels).exp()
        tensor(5., grad_fn=<ExpBackward0>)
    """
    _check(hidden, weight, labels, bias, class_weight)
    dtype = compute_dtype or product_dtype(hidden)
    if compute_dtype is None and dtype is hidden.dtype is not weight.dtype:
        raise InputError(
            f"hidden is {hidden.dtype} and weight is {weight.dtype}.",
            hint="cast one of them, or give compute_dtype.",
        )
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction={reduction!r} is not known.", hint='use "mean" or "sum".')
    if not 0.0 <= label_smoothing <= 1.0:
        raise InputError("label_smoothing is not between 0 and 1.", hint="0 is none.")
    if chunk_rows is not None and chunk_rows < 1:
        raise InputError("chunk_rows is below 1.", hint="leave it out for the default.")
    wide = max(dtype.itemsize, torch.float32.itemsize)
    options = _Options(
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        mean=reduction == "mean",
        transform=transform,
        rows=chunk_rows or rows_per_chunk(labels.numel(), weight.shape[0], wide),
        dtype=dtype,
        autocast=_Autocast.now(hidden.device.type),
    )
    rows = hidden.reshape(-1, hidden.shape[-1]).to(dtype)
    run: Callable[..., torch.Tensor] = _ChunkedCrossEntropy.apply
    return run(rows, weight, bias, labels.reshape(-1), class_weight, options)


def product_dtype(hidden: torch.Tensor) -> torch.dtype:
    """Return the dtype in which a linear layer would compute here and now.

    Args:
        hidden: the layer's input.

    Returns:
        Autocast's dtype where autocast is on for the device and casts this input, else the
        input's own.
    """
    autocast = _Autocast.now(hidden.device.type)
    if autocast.dtype is not None and hidden.dtype is not torch.float64:
        return autocast.dtype
    return hidden.dtype


def plain_linear(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``rows @ weight.T + bias`` in the dtype of its arguments, whatever autocast says.

    Args:
        rows: ``[..., d]``.
        weight: ``[V, d]``.
        bias: ``[V]`` or None.
    """
    with _Autocast(rows.device.type, None).again():
        return F.linear(rows, weight, bias)


@dataclasses.dataclass(frozen=True, slots=True)
class _Autocast:
    """A state of autocast: the dtype that it casts to, or None where it is off."""

    device: str
    dtype: torch.dtype | None

    @classmethod
    def now(cls, device: str) -> _Autocast:
        on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return cls(device, torch.get_autocast_dtype(device) if on else None)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        if self == _Autocast.now(self.device):
            yield
            return
        on = self.dtype is not None
        with torch.autocast(self.device, self.dtype, on, cache_enabled=False):
            yield


@dataclasses.dataclass(frozen=True, slots=True)
class _Options:
    ignore_index: int
    label_smoothing: float
    mean: bool
    transform: Transform | None
    rows: int
    dtype: torch.dtype
    autocast: _Autocast

    def losses(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        class_weight: torch.Tensor | None,
        reduction: Literal["none", "sum"],
    ) -> torch.Tensor:
        return F.cross_entropy(
            logits,
            labels,
            class_weight,
            reduction=reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    options: _Options
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor | None, ...]

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None: ...


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward keeps hidden, weight and labels; backward computes each chunk's logits again."""

    @staticmethod
    def forward(
        ctx: _Context,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        class_weight: torch.Tensor | None,
        options: _Options,
    ) -> torch.Tensor:
        """Return the loss of all rows."""
        head, offset = weight.to(options.dtype), _cast(bias, options.dtype)
        parts = []
        for start in range(0, max(len(hidden), 1), options.rows):
            here = slice(start, start + options.rows)
            logits = plain_linear(hidden[here], head, offset)
            if options.transform is not None:
                logits = options.transform(logits)
            parts.append(options.losses(logits, labels[here], class_weight, "none"))
            del logits
        losses = torch.cat(parts)
        loss, total = _reduce(losses, labels, class_weight, options)
        ctx.save_for_backward(hidden, weight, bias, labels, class_weight, total)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of hidden, weight and bias."""
        if torch.is_grad_enabled():
            raise RefusedError(
                "the chunked cross-entropy cannot be differentiated twice.",
                hint="leave out create_graph=True, or remove the chunked loss.",
            )
        options = ctx.options
        hidden, weight, bias, labels, class_weight, total = ctx.saved_tensors
        assert hidden is not None
        assert weight is not None
        assert labels is not None
        scale = grads[0] if total is None else grads[0] / total
        sums = _Sums.like(hidden, weight, bias, ctx.needs_input_grad)
        head, offset = weight.to(options.dtype), _cast(bias, options.dtype)
        for start in range(0, len(hidden), options.rows):
            here = slice(start, start + options.rows)
            chunk = plain_linear(hidden[here], head, offset)
            slope = _slope(chunk, labels[here], class_weight, options, scale)
            del chunk
            sums.add(slope, hidden[here], head, here)
            del slope
        return sums.hidden, sums.weight, sums.bias, None, None, None


@dataclasses.dataclass(slots=True)
class _Sums:
    """The gradients being filled; None where none is needed."""

    hidden: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None

    @classmethod
    def like(
        cls,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        needed: tuple[bool, ...],
    ) -> _Sums:
        return cls(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight) if needed[1] else None,
            torch.zeros_like(bias) if needed[2] and bias is not None else None,
        )

    def add(self, slope: torch.Tensor, rows: torch.Tensor, head: torch.Tensor, here: slice) -> None:
        if self.hidden is not None:
            torch.mm(slope, head, out=self.hidden[here])
        if self.weight is not None:
            if self.weight.dtype is slope.dtype:
                self.weight.addmm_(slope.t(), rows)
            else:  # under autocast: products in its dtype, their sum in that of the weight
                self.weight.add_(slope.t() @ rows)
        if self.bias is not None:
            self.bias.add_(slope.sum(0))


def _slope(
    chunk: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor | None,
    options: _Options,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient of a chunk's logits, by torch's own formulas."""
    leaf = chunk.detach().requires_grad_()
    with torch.enable_grad(), options.autocast.again():
        logits = leaf if options.transform is None else options.transform(leaf)
        loss = options.losses(logits, labels, class_weight, "sum")
    del logits
    (slope,) = torch.autograd.grad(loss, leaf, scale.to(loss.dtype))
    return slope


def _reduce(
    losses: torch.Tensor,
    labels: torch.Tensor,
    class_weight: torch.Tensor | None,
    options: _Options,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the loss and what a mean divides by, or None for a sum.

    The losses are added by torch's own negative log-likelihood, as the only class of a second
    problem, so that they are added in its order and the loss has the same bits.
    """
    counted = labels != options.ignore_index
    only = torch.where(counted, 0, _IGNORED)
    plain = class_weight is None
    loss = F.nll_loss(
        -losses[:, None],
        only,
        ignore_index=_IGNORED,
        reduction="mean" if options.mean and plain else "sum",
    )
    if not options.mean:
        return loss, None
    if class_weight is None:
        return loss, counted.sum().to(losses.dtype)
    total = torch.where(counted, class_weight[labels.where(counted, 0)], 0).sum()
    return loss / total, total


def _cast(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None,
    class_weight: torch.Tensor | None,
) -> None:
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[-1]:
        raise InputError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} do not match.",
            hint="they are [..., d] and [V, d].",
        )
    if labels.shape != hidden.shape[:-1] or labels.is_floating_point():
        raise InputError(
            f"labels {tuple(labels.shape)} of {labels.dtype} are no class indices of hidden "
            f"{tuple(hidden.shape)}.",
            hint="one whole number per row; class probabilities are not taken.",
        )
    for name, vector in (("bias", bias), ("class_weight", class_weight)):
        if vector is not None and vector.shape != weight.shape[:1]:
            raise InputError(
                f"{name} {tuple(vector.shape)} is not one number per class.",
                hint=f"there are {weight.shape[0]} classes.",
            )
    if class_weight is not None and class_weight.requires_grad:
        raise InputError("class_weight requires a gradient.", hint="pass class_weight.detach().")
