"""The catalogue: one row for every public name and technique, as pure data.

The command line's list, the tables of README and docs, `cite` and the parametrisation of the
contract tests are all made from these rows. Nothing here imports torch, or anything else of
the package but the papers, so that listing and citing are instant.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Final, Literal

from shoestring import papers

Kind = Literal["technique", "verb", "record", "optimizer", "integration", "function"]

_SOFTWARE: Final = """\
@software{shoestring,
  title = {shoestring: train, compress and measure PyTorch models on a budget},
  author = {{The shoestring developers}},
  license = {Apache-2.0},
}"""


class UnknownNameError(ValueError):
    """A name that the catalogue does not have.

    Args:
        message: one sentence that says what is wrong.
        hint: what to do about it; shown after ``hint:``.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One public name.

    Attributes:
        name: the name in plans, in ``allow=`` and on the command line.
        path: where it is imported from, ``package.module:Name``.
        kind: what it is.
        saves: the resource it saves, in a word or two; empty for verbs and records.
        fidelity: what it does to the gradients; empty for verbs and records.
        summary: one line.
        paper: the work it follows, or None.
    """

    name: str
    path: str
    kind: Kind
    summary: str
    saves: str = ""
    fidelity: str = ""
    paper: papers.Paper | None = None


_ROWS: Final = (
    Row(
        name="profile",
        path="shoestring.planner.profiling:profile",
        kind="verb",
        summary="what a training step costs, without running it",
    ),
    Row(
        name="plan",
        path="shoestring.planner.planning:plan",
        kind="verb",
        summary="the fastest allowed change of the step that meets a budget",
    ),
    Row(
        name="count",
        path="shoestring.measure.counting.count:count",
        kind="verb",
        summary="the FLOPs, multiply-adds and bytes of any code, by module, operator and phase",
    ),
    Row(
        name="diff",
        path="shoestring.measure.counting.diff:diff",
        kind="verb",
        summary="what changed between two counts",
    ),
    Row(
        name="explain_oom",
        path="shoestring.planner.oom:explain_oom",
        kind="verb",
        summary="turns an out-of-memory error into what held the memory, and plans that fit",
    ),
    Row(
        name="cite",
        path="shoestring.catalog:cite",
        kind="verb",
        summary="the BibTeX entry of a technique",
    ),
    Row(
        name="Budget",
        path="shoestring.core.budget:Budget",
        kind="record",
        summary="what the user has: memory, seconds",
    ),
    Row(
        name="Profile",
        path="shoestring.core.profile:Profile",
        kind="record",
        summary="what a step costs, module by module and byte by byte",
    ),
    Row(
        name="Count",
        path="shoestring.measure.counting.counts:Count",
        kind="record",
        summary="what was counted: a table, JSON, HTML or CSV of it",
    ),
    Row(
        name="Difference",
        path="shoestring.measure.counting.diff:Difference",
        kind="record",
        summary="two counts side by side",
    ),
    Row(
        name="Plan",
        path="shoestring.planner.plan:Plan",
        kind="record",
        summary="a choice of techniques with its predictions; applies, verifies, saves",
    ),
    Row(
        name="Machine",
        path="shoestring.core.machine:Machine",
        kind="record",
        summary="a machine's data sheet",
    ),
    Row(
        name="PlannedTrainer",
        path="shoestring.integrations.transformers:PlannedTrainer",
        kind="integration",
        summary="Hugging Face's Trainer, each step run by a plan, checkpoints whole or absent",
    ),
    Row(
        name="remat",
        path="shoestring.activations.rematerialisation:Rematerialisation",
        kind="technique",
        saves="activations",
        fidelity="exact",
        summary="runs operations again in backward whose results cost more to keep than to make",
        paper=papers.JAIN,
    ),
    Row(
        name="remat.fit",
        path="shoestring.activations.remat.fitting:fit",
        kind="function",
        saves="activations",
        fidelity="exact",
        summary="captures a model's forward and backward and keeps their peak within a budget",
        paper=papers.JAIN,
    ),
    Row(
        name="remat.schedule",
        path="shoestring.activations.remat.fitting:schedule",
        kind="function",
        saves="activations",
        fidelity="exact",
        summary="decides what a captured step keeps and computes again; applied later",
        paper=papers.JAIN,
    ),
    Row(
        name="remat.pareto",
        path="shoestring.activations.remat.fitting:pareto",
        kind="function",
        saves="activations",
        fidelity="exact",
        summary="finds the front of a captured step: what its peak can be, and what each costs",
        paper=papers.JAIN,
    ),
    Row(
        name="remat.backend",
        path="shoestring.activations.remat.backends:backend",
        kind="function",
        saves="activations",
        fidelity="exact",
        summary="a backend of torch.compile that runs each graph within a budget",
        paper=papers.JAIN,
    ),
    Row(
        name="chunked-loss",
        path="shoestring.activations.chunked_loss:ChunkedLoss",
        kind="technique",
        saves="activations",
        fidelity="exact",
        summary="language-model head and cross-entropy in chunks, the logits never whole",
        paper=papers.WIJMANS,
    ),
    Row(
        name="micro-batches",
        path="shoestring.activations.micro_batches:MicroBatches",
        kind="technique",
        saves="activations",
        fidelity="exact or same distribution",
        summary="the batch in parts, weighted by their number of loss terms",
    ),
    Row(
        name="offload",
        path="shoestring.activations.offload:Offload",
        kind="technique",
        saves="device memory",
        fidelity="exact",
        summary="keeps saved activations in host memory until backward",
    ),
    Row(
        name="sliced-step",
        path="shoestring.optim.step:SlicedStep",
        kind="technique",
        saves="temporaries",
        fidelity="exact",
        summary="the optimizer's step without copies of the parameters",
    ),
    Row(
        name="release-gradients",
        path="shoestring.optim.step:ReleaseGradients",
        kind="technique",
        saves="gradients",
        fidelity="exact",
        summary="each gradient is used and freed as soon as backward has made it",
        paper=papers.LV,
    ),
    Row(
        name="bf16",
        path="shoestring.planner.reported:Bfloat16Autocast",
        kind="technique",
        saves="activations",
        fidelity="approximate",
        summary="forward and backward in bfloat16 where autocast allows",
    ),
    Row(
        name="lora",
        path="shoestring.planner.reported:Lora",
        kind="technique",
        saves="gradients, optimizer state",
        fidelity="retrain",
        summary="trains low-rank corrections of frozen weights",
        paper=papers.HU,
    ),
    Row(
        name="nf4",
        path="shoestring.planner.reported:Nf4Base",
        kind="technique",
        saves="parameters",
        fidelity="retrain",
        summary="frozen weights in four bits, low-rank corrections trained",
        paper=papers.QLORA,
    ),
    Row(
        name="adam8bit",
        path="shoestring.planner.reported:Adam8bit",
        kind="technique",
        saves="optimizer state",
        fidelity="approximate",
        summary="Adam's moments in eight bits",
        paper=papers.EIGHT_BIT,
    ),
    Row(
        name="zeroth-order",
        path="shoestring.planner.reported:ZerothOrder",
        kind="technique",
        saves="activations, gradients, optimizer state",
        fidelity="approximate",
        summary="gradients estimated from forward passes alone",
        paper=papers.MEZO,
    ),
    Row(
        name="ZOSGD",
        path="shoestring.zeroth.sgd:ZOSGD",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="unbiased",
        summary="gradient descent along random directions, at the memory of inference",
        paper=papers.MEZO,
    ),
    Row(
        name="ZOSign",
        path="shoestring.zeroth.sign:ZOSign",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="steps of one length along random directions, whatever the scale of the loss",
        paper=papers.ZO_BENCH,
    ),
    Row(
        name="ZOAdam",
        path="shoestring.zeroth.adam:ZOAdam",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="unbiased",
        summary="Adam, fed with estimates of the gradient",
        paper=papers.ZO_ADAMM,
    ),
    Row(
        name="ZOMuon",
        path="shoestring.zeroth.muon:ZOMuon",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="Muon, fed with estimates of the gradient",
        paper=papers.JAGUAR,
    ),
    Row(
        name="SamplingMuon",
        path="shoestring.zeroth.muon:SamplingMuon",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="steps along orthogonal matrices, without polar factors",
    ),
    Row(
        name="JaguarSign",
        path="shoestring.zeroth.jaguar:JaguarSign",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="sign descent on a momentum that remembers each coordinate",
        paper=papers.JAGUAR,
    ),
    Row(
        name="JaguarMuon",
        path="shoestring.zeroth.jaguar:JaguarMuon",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="Muon on a momentum that remembers each coordinate",
        paper=papers.JAGUAR,
    ),
    Row(
        name="LOZO",
        path="shoestring.zeroth.lozo:LOZO",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="unbiased",
        summary="descent along low-rank matrices that share a factor for some steps",
        paper=papers.LOZO,
    ),
    Row(
        name="SubspaceZOMuon",
        path="shoestring.zeroth.subspace_muon:SubspaceZOMuon",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="orthogonalised steps within a random subspace",
        paper=papers.ZO_MUON,
    ),
    Row(
        name="HiZOO",
        path="shoestring.zeroth.hizoo:HiZOO",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="descent scaled by a curvature for each weight, from a third evaluation",
        paper=papers.HIZOO,
    ),
    Row(
        name="SparseZO",
        path="shoestring.zeroth.sparse:SparseZO",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="descent of the smallest weights; the others stay",
        paper=papers.SPARSE_MEZO,
    ),
    Row(
        name="ZOConservative",
        path="shoestring.zeroth.conservative:ZOConservative",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="approximate",
        summary="keeps the best of a step, its opposite and none",
        paper=papers.ZO_BENCH,
    ),
    Row(
        name="ZOSVRG",
        path="shoestring.zeroth.svrg:ZOSVRG",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="unbiased",
        summary="slopes of batches, corrected by a slope over all data",
        paper=papers.MEZO_SVRG,
    ),
    Row(
        name="ForwardGradient",
        path="shoestring.zeroth.forward_gradient:ForwardGradient",
        kind="optimizer",
        saves="activations, gradients",
        fidelity="unbiased",
        summary="exact slopes along random directions, by forward-mode differentiation",
        paper=papers.FORWARD,
    ),
    Row(
        name="ZOMarina",
        path="shoestring.zeroth.marina:ZOMarina",
        kind="optimizer",
        saves="activations, communication",
        fidelity="approximate",
        summary="descent along a gradient of differences, of which workers send some coordinates",
        paper=papers.MARINA,
    ),
    Row(
        name="zeroth.AllGather",
        path="shoestring.zeroth.workers:AllGather",
        kind="integration",
        saves="communication",
        fidelity="exact",
        summary="data-parallel zeroth-order training by one number for a direction",
        paper=papers.DECOMFL,
    ),
    Row(
        name="zeroth.catch_up",
        path="shoestring.zeroth.catch_up:catch_up",
        kind="function",
        summary="makes the steps of a log that an optimizer has not made yet",
    ),
    Row(
        name="zeroth.rejoin",
        path="shoestring.zeroth.catch_up:rejoin",
        kind="function",
        summary="brings all workers of a group to the step of the furthest",
    ),
    Row(
        name="zeroth.attack",
        path="shoestring.zeroth.attacks.loop:attack",
        kind="function",
        summary="images that a model misclassifies, found by its answers alone, queries counted",
        paper=papers.SQUARE,
    ),
    Row(
        name="zeroth.guarantee",
        path="shoestring.zeroth.guarantees.methods:guarantee",
        kind="function",
        summary="what is proved of a zeroth-order method: step, radius, bound and iterations",
        paper=papers.JAGUAR,
    ),
    Row(
        name="zeroth.estimate_gradient",
        path="shoestring.zeroth.estimate:estimate_gradient",
        kind="function",
        summary="the gradient of anything that returns a number, from its values",
        paper=papers.MEZO,
    ),
    Row(
        name="zeroth.suggest",
        path="shoestring.zeroth.survey:suggest",
        kind="function",
        summary="a learning rate and eps for zeroth-order training, measured on a batch",
    ),
    Row(
        name="zeroth.survey",
        path="shoestring.zeroth.survey:survey",
        kind="function",
        summary="slopes, curvature and noise of a loss along random directions",
    ),
    Row(
        name="zeroth.replay",
        path="shoestring.zeroth.replay:replay",
        kind="function",
        summary="makes the steps of a zeroth-order run again from its log, to the last bit",
        paper=papers.MEZO,
    ),
)


def rows() -> tuple[Row, ...]:
    """Return every row: verbs, records, then techniques."""
    return _ROWS


def find(name: str) -> Row:
    """Return the row of a name.

    Args:
        name: a name of the catalogue, as in ``remat``.

    Returns:
        Its row.

    Raises:
        UnknownNameError: the catalogue has no such name.

    Example:
        >>> find("lora").saves
        'gradients, optimizer state'
    """
    for row in _ROWS:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, [row.name for row in _ROWS], n=1)
    hint = f"did you mean {near[0]}?" if near else "see shoestring list."
    raise UnknownNameError(f"the catalogue has no {name[:60]!r}.", hint=hint)


def cite(subject: object) -> str:
    """Return the BibTeX entry of a technique or another public name.

    Args:
        subject: a name of the catalogue, or the class, function or instance itself.

    Returns:
        The entry of the paper it follows; the package's own entry where it follows none.

    Raises:
        UnknownNameError: the catalogue does not have it.

    Example:
        >>> cite("remat").splitlines()[0]
        '@inproceedings{jain2020checkmate,'
    """
    row = find(subject) if isinstance(subject, str) else _row_of(subject)
    return row.paper.bibtex() if row.paper else _SOFTWARE


def _row_of(subject: object) -> Row:
    # A class or function knows where it was defined; an instance's class does.
    named = subject if hasattr(subject, "__qualname__") else type(subject)
    path = f"{named.__module__}:{getattr(named, '__qualname__', '')}"
    for row in _ROWS:
        if row.path == path:
            return row
    raise UnknownNameError(f"the catalogue has no {path}.", hint="see shoestring list.")
