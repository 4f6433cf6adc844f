"""``shoestring.plan``: what makes a step fit."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from shoestring.core.budget import Budget
from shoestring.core.errors import InfeasibleError, InputError, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.core.trace import Kind, Phase
from shoestring.core.units import format_bytes, format_seconds
from shoestring.measure.timing.machines import free_memory
from shoestring.planner.figures import Figures, Row
from shoestring.planner.plan import Plan, versions
from shoestring.planner.search import (
    Candidate,
    Limits,
    Options,
    best,
    largest_batch,
    options_of,
    pareto,
    search,
    strongest,
)
from shoestring.planner.techniques import technique_classes
from shoestring.planner.zeroth import NO_BACKWARD, is_forward_only


def plan(
    prof: Profile,
    budget: Budget,
    *,
    allow: Sequence[str] | str = (),
    without: Sequence[str] | str = (),
    largest: bool = False,
) -> Plan:
    """Find the changes of a step that meet a budget in the least predicted time.

    Only techniques that keep the gradients exact are used, unless more are allowed by name.

    Args:
        prof: the plain step, from ``shoestring.profile``.
        budget: what there is.
        allow: names of further techniques (``shoestring list`` names them).
        without: names of techniques that are not to be used.
        largest: also say for each row of the table how large a batch would fit.

    Returns:
        The plan.

    Raises:
        InfeasibleError: nothing allowed meets the budget; says the least that is reachable,
            what binds it, and what would reach it.
        InputError: a name in ``allow`` or ``without`` is not known or not usable here.

    Example:
        >>> from shoestring import profile
        >>> import torch
        >>> net = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)])
        >>> prof = profile(net, torch.zeros(8, 64), optimizer=torch.optim.AdamW,
        ...                loss=lambda y, x: y.square().mean())
        >>> plan(prof, Budget(memory="1GiB")).steps
        ()
    """
    found, reason = explore(prof, budget, allow=allow, without=without, largest=largest)
    if reason is not None:
        raise reason
    return found


def explore(
    prof: Profile,
    budget: Budget,
    *,
    allow: Sequence[str] | str = (),
    without: Sequence[str] | str = (),
    largest: bool = False,
) -> tuple[Plan, InfeasibleError | None]:
    """Plan, and where no plan fits return the one that reaches least, with the error.

    Args:
        prof: the plain step.
        budget: what there is.
        allow: names of further techniques.
        without: names of techniques that are not to be used.
        largest: also find the largest batch for each row.
    """
    names = (allow,) if isinstance(allow, str) else tuple(allow)
    unwanted = (without,) if isinstance(without, str) else tuple(without)
    classes = technique_classes()
    _check_names(names, unwanted, classes)
    classes = tuple(cls for cls in classes if cls.name not in unwanted)
    forward_only = is_forward_only(prof)
    if forward_only and (names or unwanted):
        raise InputError(
            f"allow= and without= have no effect: {NO_BACKWARD}", hint="leave them out."
        )
    classes = () if forward_only else classes
    free = free_memory(prof.machine) if budget.memory == "auto" else None
    limits = Limits.of(budget, prof, free)
    by_row = largest or "micro-batches" in names or _exact_parts(prof)
    options = options_of(prof, classes, names, by_row=by_row)
    options, found, chosen, fits = _choose(options, limits)
    rows = _rows(options, limits, chosen, classes, largest)
    reason = None if fits else _infeasible(chosen, limits, rows, names, options)
    step = prof.step
    made = Plan(
        steps=chosen.techniques,
        plain=Figures.of(prof),
        predicted=Figures.of(chosen.profile),
        budget=limits.memory,
        refused=(
            *((name, "it is left out by without=.") for name in unwanted),
            *((("all techniques", NO_BACKWARD),) if forward_only else ()),
            *options.refused,
        ),
        pareto=tuple(_row(c, limits, chosen, largest) for c in pareto(found)),
        rows=rows,
        fingerprint=step.fingerprint,
        optimizer_path=step.optimizer,
        optimizer_options=dict(step.optimizer_options),
        autocast=step.autocast,
        clip_norm=step.clip_norm,
        accumulate=step.accumulate,
        set_to_none=step.set_to_none,
        ddp=step.ddp,
        machine=prof.machine.name,
        measured_on_machine=prof.machine.measured or prof.machine.device == "cpu",
        batch=step.batch,
        model=step.model,
        versions=versions(),
    )
    return made, reason


def _exact_parts(prof: Profile) -> bool:
    """Whether micro-batches could be exact here, so that bytes per row are worth a trace."""
    draws = any(op.random and op.phase is Phase.FORWARD for op in prof.trace.ops)
    return prof.weighting is not None and not draws and not prof.step.couplings


def _choose(options: Options, limits: Limits) -> tuple[Options, list[Candidate], Candidate, bool]:
    """Search, and search again without what its own checks refuse."""
    found = search(options, limits)
    chosen = best(found, limits)
    fits = chosen is not None
    if chosen is None:
        chosen = min(found, key=lambda c: (c.profile.footprint, c.profile.seconds))
    confirmed = []
    for technique in chosen.techniques:
        try:
            confirmed.append(technique.confirm(options.profile))
        except RefusedError as error:
            return _choose(options.without(technique, error.message), limits)
    return options, found, Candidate(tuple(confirmed), chosen.profile), fits


def _check_names(
    names: Sequence[str], unwanted: Sequence[str], classes: Sequence[type[Technique]]
) -> None:
    known = {cls.name: cls for cls in classes}
    for name in unwanted:
        if name not in known or name in names:
            both = "names the unknown technique" if name not in known else "and allow both name"
            raise InputError(f"without {both} {name!r}.", hint=f"known: {sorted(known)}.")
    for name in names:
        if name not in known:
            raise InputError(
                f"allow names the unknown technique {name!r}.", hint=f"known: {sorted(known)}."
            )
        if known[name].reported:
            raise InputError(
                f"{name} is reported with its prediction, and not applied by a plan.",
                hint="leave it out of allow; its row in the table says what it would reach.",
            )


def _rows(
    options: Options,
    limits: Limits,
    chosen: Candidate,
    classes: Sequence[type[Technique]],
    largest: bool,
) -> tuple[Row, ...]:
    """Return the table: plain, exact techniques piled up, the plan, and what is only reported."""
    piled = strongest(options)
    rows = [_row(c, limits, chosen, largest) for c in piled]
    if chosen.techniques not in {c.techniques for c in piled}:
        rows.append(_row(chosen, limits, chosen, largest))
    smallest = min(piled, key=lambda c: c.profile.footprint).techniques
    for cls in sorted((cls for cls in classes if cls.reported), key=lambda cls: cls.alone):
        for technique in cls.propose(options.profile):
            with contextlib.suppress(RefusedError):
                candidate = _reported(technique, options.profile, smallest)
                rows.append(_row(candidate, limits, chosen, largest))
    return tuple(rows)


def _reported(technique: Technique, prof: Profile, exact: Sequence[Technique]) -> Candidate:
    """Predict what is only reported, with the exact changes of forward and backward around it."""
    others = [] if technique.alone else [t for t in exact if t.slot is not Slot.STEP]
    for each in sorted((technique, *others), key=lambda t: t.slot):
        refitted = each if each is technique else each.refit(prof)
        if each is technique or not refitted.refuse(prof):
            prof = refitted.predict(prof)
    label = technique.describe() if technique.alone else f"... + {technique.describe()}"
    return Candidate((technique,), prof, added=label)


def _row(candidate: Candidate, limits: Limits, chosen: Candidate, largest: bool) -> Row:
    prof = candidate.profile
    fidelities = [t.fidelity(prof) for t in candidate.techniques]
    worst = max(fidelities, key=list(Fidelity).index, default=prof.fidelity)
    return Row(
        label=candidate.label,
        figures=Figures.of(prof),
        fits=limits.allow(prof),
        fidelity=worst.value,
        largest_batch=largest_batch(prof, limits.memory) if largest else None,
        planned=candidate.techniques == chosen.techniques,
    )


def _infeasible(
    least: Candidate,
    limits: Limits,
    rows: Sequence[Row],
    allowed: Sequence[str],
    options: Options,
) -> InfeasibleError:
    prof = least.profile
    trace = prof.widest
    at = trace.ops[trace.peak_index]
    kinds = trace.by_kind(trace.peak_index)
    kind, size = max(kinds.items(), key=lambda item: item[1])
    where = f"{at.phase.value}, {at.name}" + (f" of {at.module}" if at.module else "")
    have = []
    if limits.memory is not None:
        have.append(format_bytes(limits.memory))
    if limits.activations is not None:
        have.append(f"{format_bytes(limits.activations)} of activations")
    if limits.seconds is not None:
        have.append(format_seconds(limits.seconds))
    by_name = [
        name for name, why in options.refused if "allow it by name" in why and name not in allowed
    ]
    would = [row.label.replace("... + ", "exact changes + ") for row in rows if row.fits]
    hint = "a smaller batch would help" if not would else f"would fit: {'; '.join(would)}"
    if by_name:
        hint += f"; or try allow={by_name[0]!r}"
    return InfeasibleError(
        f"no exact plan meets {' and '.join(have)}: the least reachable is "
        f"{format_bytes(prof.footprint)} in {format_seconds(prof.seconds)}, bound by "
        f"{format_bytes(size)} of {Kind(kind).value} in {where}.",
        hint=hint + ".",
    )
