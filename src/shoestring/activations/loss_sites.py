"""Find, in a trace, where a cross-entropy is taken of the product of a linear head."""

from __future__ import annotations

import dataclasses
from typing import Final

from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Trace

_PRODUCTS: Final = ("aten.mm.", "aten.addmm.", "aten.bmm.", "aten.linear.")
_POINTWISE: Final = frozenset(
    f"aten.{name}"
    for name in (
        *("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar", "add.Tensor", "add.Scalar"),
        *("sub.Tensor", "sub.Scalar", "rsub.Scalar", "neg.default", "tanh.default"),
        *("_to_copy.default", "clone.default"),
    )
)
_SMOOTHING: Final = ("aten.sum.", "aten.mul.Tensor")
_ITEMSIZE: Final = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_FLOATS: Final = (2, 4, 8)


@dataclasses.dataclass(frozen=True, slots=True)
class LossSite:
    """One cross-entropy of a head's product; operations and storages by number.

    Attributes:
        head: path of the module that makes the product.
        product: the matrix product of the forward.
        chain: what follows it up to the log-softmax, in order.
        end: last forward operation that needs the log-probabilities.
        weight: storage of the head's weight, as the product reads it.
        num_rows: rows of the hidden states.
        loss_rows: rows that the loss sees.
        num_classes: classes.
        width: features of the hidden states.
        itemsize: bytes of one element of the product.
        backward: first operation of the loss's backward and the last of the product's.
        gradients: backward operations of the product.
    """

    head: str
    product: int
    chain: tuple[int, ...]
    end: int
    weight: int
    num_rows: int
    loss_rows: int
    num_classes: int
    width: int
    itemsize: int
    backward: tuple[int, int]
    gradients: tuple[int, ...]

    def rows_of(self, nbytes: int) -> int:
        """Return how many rows of logits a storage holds; 0 where it holds none.

        Args:
            nbytes: its size.
        """
        for rows in (self.loss_rows, self.num_rows):
            if any(nbytes == rows * self.num_classes * size for size in _FLOATS):
                return rows
        return 0


class _Unfit(Exception):  # noqa: N818  # never leaves this module
    """Why a cross-entropy cannot be taken in chunks."""


def find_loss_sites(trace: Trace) -> tuple[list[LossSite], list[str]]:
    """Return the places where chunks would do, and why others will not do.

    A place is a log-softmax followed by a negative log-likelihood, whose input comes through
    pointwise operations, views and copies from one matrix product with a parameter.

    Args:
        trace: one step.

    Returns:
        The sites in the order of the forward, and a sentence for each cross-entropy that is
        none.
    """
    sites, reasons = [], []
    for index, op in enumerate(trace.ops):
        if op.phase is not Phase.FORWARD or not op.name.startswith("aten.nll_loss_forward"):
            continue
        softmax = trace.storages[op.reads[0]].birth
        if softmax == ALWAYS or not trace.ops[softmax].name.startswith("aten._log_softmax."):
            continue
        try:
            sites.append(_site(trace, softmax, index))
        except _Unfit as reason:
            reasons.append(str(reason))
    return sites, reasons


def _site(trace: Trace, softmax: int, likelihood: int) -> LossSite:
    product, chain = _chain(trace, softmax)
    op = trace.ops[product]
    if not op.module:
        raise _Unfit("the logits are computed outside any module.")
    weight = _weight(trace, op)
    itemsize = _ITEMSIZE.get(op.dtype, 4)
    elements = trace.storages[weight].nbytes // itemsize
    made = _made(trace, product)
    logits = trace.storages[made].nbytes // itemsize
    num_rows = op.flops // (2 * elements) if elements else 0
    num_classes = logits // num_rows if num_rows else 0
    width = elements // num_classes if num_classes else 0
    if not width or 2 * num_rows * num_classes * width != op.flops:
        raise _Unfit(f"the sizes of the product in {op.module!r} are not those of a linear head.")
    wide = _ITEMSIZE.get(trace.ops[softmax].dtype, 4)
    loss_rows = trace.storages[_made(trace, softmax)].nbytes // (wide * num_classes)
    backward, gradients = _backward(trace, likelihood, product)
    site = LossSite(
        head=op.module,
        product=product,
        chain=chain,
        end=likelihood,
        weight=weight,
        num_rows=num_rows,
        loss_rows=loss_rows,
        num_classes=num_classes,
        width=width,
        itemsize=itemsize,
        backward=backward,
        gradients=gradients,
    )
    return dataclasses.replace(site, end=_end(trace, site, likelihood))


def _chain(trace: Trace, softmax: int) -> tuple[int, tuple[int, ...]]:
    """Walk from the log-softmax back to the matrix product."""
    chain = [softmax]
    while True:
        index = _source(trace, trace.ops[chain[0]])
        op = trace.ops[index]
        if op.name.startswith(_PRODUCTS):
            return index, tuple(chain)
        if op.name not in _POINTWISE or op.writes:
            raise _Unfit(f"{op.name} between the head and the loss cannot be taken in chunks.")
        chain.insert(0, index)


def _source(trace: Trace, op: Op) -> int:
    """Return the operation that made the logits which a pointwise operation reads."""
    logits = max(op.reads, key=lambda i: trace.storages[i].nbytes)
    for other in op.reads:
        storage = trace.storages[other]
        if other != logits and storage.kind not in (Kind.BUFFER, Kind.BATCH):
            raise _Unfit(f"{op.name} mixes the logits with a tensor that may need a gradient.")
    if trace.storages[logits].birth == ALWAYS:
        raise _Unfit("the loss is not taken of a matrix product.")
    return trace.storages[logits].birth


def _weight(trace: Trace, op: Op) -> int:
    def parameter(index: int) -> bool:
        storage = trace.storages[index]
        if storage.kind is Kind.PARAMETER or storage.birth == ALWAYS:
            return storage.kind is Kind.PARAMETER
        cast = trace.ops[storage.birth]
        kinds = [trace.storages[i].kind for i in cast.reads]
        return cast.name == "aten._to_copy.default" and Kind.PARAMETER in kinds

    found = [i for i in op.reads if parameter(i)]
    if not found:
        raise _Unfit(f"the product in {op.module!r} is not one with a parameter.")
    return max(found, key=lambda i: trace.storages[i].nbytes)


def _made(trace: Trace, index: int) -> int:
    """Return the largest storage that an operation made."""
    made = [i for i, s in enumerate(trace.storages) if s.birth == index]
    if not made:
        raise _Unfit(f"{trace.ops[index].name} wrote the logits into memory that was there.")
    return max(made, key=lambda i: trace.storages[i].nbytes)


def _backward(
    trace: Trace, likelihood: int, product: int
) -> tuple[tuple[int, int], tuple[int, ...]]:
    begins = [i for i, op in enumerate(trace.ops) if op.source == likelihood]
    gradients = tuple(
        i for i, op in enumerate(trace.ops) if op.source == product and op.phase is Phase.BACKWARD
    )
    if not begins or not gradients:
        raise _Unfit("the gradient of the loss does not reach the head.")
    return (begins[0], max(gradients)), gradients


def _end(trace: Trace, site: LossSite, likelihood: int) -> int:
    """Return the last forward use of the log-probabilities; nothing else may use the logits."""
    own = {site.product, *site.chain, likelihood}
    logits = {
        i
        for i, s in enumerate(trace.storages)
        if s.birth in own and s.birth != likelihood and site.rows_of(s.nbytes)
    }
    probabilities = {i for i in logits if trace.storages[i].birth == site.chain[-1]}
    makes = {s.birth for s in trace.storages}
    end = likelihood
    for index in range(site.product + 1, site.backward[0]):
        op = trace.ops[index]
        if op.phase is not Phase.FORWARD or index in own or not logits.intersection(op.reads):
            continue
        only_probabilities = probabilities.issuperset(logits.intersection(op.reads))
        if only_probabilities and op.name.startswith(_SMOOTHING) and not op.writes:
            end = max(end, index)
        elif op.writes or index in makes:
            raise _Unfit(f"the logits are used by {op.name} too, which needs them whole.")
    return end
