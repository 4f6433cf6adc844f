"""Which techniques, with which options: every combination priced by its predicted profile."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from shoestring.core.budget import Budget
from shoestring.core.errors import RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.planner.batches import with_row_sizes

_MOST_ROWS = 2**20
FEW_OPS = 2000
"""Up to so many operations a prediction takes a few milliseconds."""
WORTH = 0.98
"""A technique is piled on others only where it takes their footprint below this share."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A combination of techniques and the profile predicted for it.

    Attributes:
        techniques: in the order in which they act.
        profile: predicted.
        added: label of a row that adds to the one above it.
    """

    techniques: tuple[Technique, ...]
    profile: Profile
    added: str = ""

    @property
    def label(self) -> str:
        """The changes in words."""
        return self.added or " + ".join(t.describe() for t in self.techniques) or "plain"


@dataclasses.dataclass(frozen=True)
class Limits:
    """A budget in numbers; None does not limit.

    Attributes:
        memory: bytes of the whole step on the device.
        activations: bytes of forward and backward above what is static.
        seconds: time of the step.
    """

    memory: int | None
    activations: int | None
    seconds: float | None

    @classmethod
    def of(cls, budget: Budget, prof: Profile, free: int | None) -> Limits:
        """Resolve a budget against a plain profile.

        Args:
            budget: what the user has.
            prof: the plain step, which percentages refer to.
            free: bytes free on the machine, for ``memory="auto"``.
        """
        activations = None
        if budget.activations is not None:
            activations = budget.activation_bytes(plain_peak=prof.activation_peak)
        return cls(
            memory=budget.memory_bytes(plain_peak=prof.footprint, free=free),
            activations=activations,
            seconds=budget.step_seconds(),
        )

    def allow(self, prof: Profile) -> bool:
        """Whether a profile is within the limits.

        Args:
            prof: plain or predicted.
        """
        return self.allow_memory(prof) and (self.seconds is None or prof.seconds <= self.seconds)

    def allow_memory(self, prof: Profile) -> bool:
        """Whether a profile is within the memory limits.

        Args:
            prof: plain or predicted.
        """
        if self.memory is not None and prof.footprint > self.memory:
            return False
        return self.activations is None or prof.activation_peak <= self.activations


@dataclasses.dataclass(frozen=True)
class Options:
    """What may be combined on a step.

    Attributes:
        profile: the plain step, with bytes per row where they are known.
        ladders: for each usable technique its settings, the mildest first.
        refused: (technique, reason).
        known: predictions made so far, by combination; added to as they are made.
    """

    profile: Profile
    ladders: tuple[tuple[Technique, ...], ...]
    refused: tuple[tuple[str, str], ...]
    known: dict[tuple[Technique, ...], Profile] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    def without(self, technique: Technique, reason: str) -> Options:
        """Return the options without one technique.

        Args:
            technique: it, with whatever settings, is refused.
            reason: why.
        """
        return Options(
            self.profile,
            tuple(ladder for ladder in self.ladders if ladder[0].name != technique.name),
            (*self.refused, (technique.name, reason)),
            self.known,
        )


def options_of(
    prof: Profile, classes: Sequence[type[Technique]], allow: Sequence[str], *, by_row: bool
) -> Options:
    """Find the techniques that a step admits.

    Args:
        prof: the plain step.
        classes: techniques of the catalogue.
        allow: names of techniques that may do more than keep the gradients exact.
        by_row: learn the bytes per row, which takes a second trace.
    """
    refused: list[tuple[str, str]] = []
    ladders: list[tuple[Technique, ...]] = []
    if by_row:
        with contextlib.suppress(RefusedError):
            prof = with_row_sizes(prof)
    for cls in classes:
        if cls.reported:
            continue
        ladder = []
        for technique in cls.propose(prof):
            fidelity = technique.fidelity(prof)
            if fidelity is not Fidelity.EXACT and cls.name not in allow:
                reason = f"it is {fidelity.value}: allow it by name with allow={cls.name!r}."
            else:
                reason = technique.refuse(prof)
            if reason:
                refused.append((cls.name, reason))
                break
            ladder.append(technique)
        if ladder:
            ladders.append(tuple(ladder))
        elif cls.name not in {name for name, _ in refused}:
            refused.append((cls.name, _why_not(cls, prof)))
    return Options(prof, tuple(ladders), tuple(refused))


def _why_not(cls: type[Technique], prof: Profile) -> str:
    try:
        reason = cls().refuse(prof)
    except TypeError:  # it cannot be built without options, and there are none to propose
        reason = ""
    return reason or "it finds nothing to change in this step."


def search(options: Options, limits: Limits) -> list[Candidate]:
    """Price combinations of techniques, each at the settings on its ladder.

    Args:
        options: what may be combined.
        limits: the budget.

    Returns:
        Every candidate that was priced, the plain step first. Where not even all techniques at
        their strongest fit together, and the batch is not split, nothing else is tried.
    """
    found = [Candidate((), options.profile)]
    time_alone = limits.memory is None and limits.activations is None
    if not options.ladders or (limits.allow(options.profile) and not time_alone):
        return found
    if all(ladder[0].slot is not Slot.PARALLEL for ladder in options.ladders):
        piled = strongest(options)
        if not limits.allow_memory(piled[-1].profile):
            return [Candidate(c.techniques, c.profile) for c in piled]
    longest = max(options.ladders, key=len)
    others = [ladder for ladder in options.ladders if ladder is not longest]
    # Every rung where that is quick, for the sake of the Pareto list, and where only time is
    # limited, since then there is no rung to stop at.
    climb = _every if time_alone or len(options.profile.trace.ops) <= FEW_OPS else _climb
    for chosen in _combinations(others):
        found += climb(chosen, longest, options, limits)
    return found


def _combinations(ladders: Sequence[tuple[Technique, ...]]) -> Iterator[tuple[Technique, ...]]:
    for choice in itertools.product(*[(None, *ladder) for ladder in ladders]):
        chosen = tuple(t for t in choice if t is not None)
        steps = [t for t in chosen if t.slot is Slot.STEP]
        if len(steps) <= 1:
            yield chosen


def _rung(
    chosen: tuple[Technique, ...],
    rung: Technique | None,
    options: Options,
) -> Candidate | None:
    """Price a combination with one more technique; None where they do not go together."""
    extra = () if rung is None else (rung,)
    if sum(t.slot is Slot.STEP for t in (*chosen, *extra)) > 1:
        return None
    techniques = tuple(sorted((*chosen, *extra), key=lambda t: (t.slot, t.name)))
    predicted = predict(techniques, options.profile, options.known)
    return None if predicted is None else Candidate(techniques, predicted)


def _every(
    chosen: tuple[Technique, ...],
    ladder: tuple[Technique, ...],
    options: Options,
    limits: Limits,
) -> list[Candidate]:
    """Try a combination without and with each rung of one ladder."""
    tried = [_rung(chosen, rung, options) for rung in (None, *ladder)]
    return [candidate for candidate in tried if candidate is not None]


def _climb(
    chosen: tuple[Technique, ...],
    ladder: tuple[Technique, ...],
    options: Options,
    limits: Limits,
) -> list[Candidate]:
    """Try a combination without and with rungs of one ladder, bisecting for one that fits."""
    found: list[Candidate] = []

    def fits(number: int) -> bool:
        candidate = _rung(chosen, ladder[number] if number >= 0 else None, options)
        if candidate is None:
            return False
        found.append(candidate)
        return limits.allow_memory(candidate.profile)

    low, high = -1, len(ladder) - 1
    if not fits(high) or fits(low):
        return found
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return found


def predict(
    techniques: tuple[Technique, ...],
    prof: Profile,
    known: dict[tuple[Technique, ...], Profile] | None = None,
) -> Profile | None:
    """Predict a combination; None where a technique refuses what those before it left.

    Args:
        techniques: in the order in which they act.
        prof: the plain step.
        known: predictions made before, by combination; added to.
    """
    known = {} if known is None else known
    plain = prof
    for count, technique in enumerate(techniques, start=1):
        key = techniques[:count]
        if key not in known:
            if technique.refuse(prof):
                return None
            known[key] = technique.predict(prof)
        prof = known[key]
    # Micro-batches come after the optimizer's step, which must go with them all the same.
    step = dataclasses.replace(plain.step, accumulate=prof.step.accumulate)
    plain = dataclasses.replace(plain, step=step)
    if any(t.slot is Slot.STEP and t.refuse(plain) for t in techniques):
        return None
    return prof


def best(found: Sequence[Candidate], limits: Limits) -> Candidate | None:
    """Return the candidate within the limits that takes the least time, then memory.

    Args:
        found: priced candidates.
        limits: the budget.
    """
    within = [c for c in found if limits.allow(c.profile)]
    if limits.memory is None and limits.activations is None:
        # A time alone was given: find the least memory for it.
        return min(within, key=lambda c: (c.profile.footprint, c.profile.seconds), default=None)
    return min(
        within,
        key=lambda c: (c.profile.seconds, len(c.techniques), c.profile.footprint),
        default=None,
    )


def pareto(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates of which none is both smaller and faster than another.

    Args:
        found: priced candidates.
    """
    kept: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: (c.profile.footprint, c.profile.seconds)):
        if not kept or candidate.profile.seconds < kept[-1].profile.seconds:
            kept.append(candidate)
    return kept


def strongest(options: Options) -> list[Candidate]:
    """Return the plain step, then each technique at its strongest added to those before.

    Args:
        options: what may be combined. Only one technique acts on the optimizer's step.

    Returns:
        Candidates, each labelled by what it adds to the one before.
    """
    rows = [Candidate((), options.profile)]
    steps = [ladder[-1] for ladder in options.ladders if ladder[-1].slot is Slot.STEP]
    others = [
        ladder[-1]
        for ladder in options.ladders
        if ladder[-1].slot not in (Slot.STEP, Slot.PARALLEL)
    ]
    others.sort(key=lambda t: (t.slot is not Slot.REMAT, t.name))
    for technique in (*steps[:1], *others):
        chosen = (*rows[-1].techniques, technique)
        chosen = tuple(sorted(chosen, key=lambda t: (t.slot, t.name)))
        predicted = predict(chosen, options.profile, options.known)
        # The optimizer's step binds in the end, whatever it saves at first.
        helps = predicted is not None and (
            technique in steps or predicted.footprint < WORTH * rows[-1].profile.footprint
        )
        if predicted is not None and helps:
            rows.append(Candidate(chosen, predicted, added=f"+ {technique.describe()}"))
    return rows


def largest_batch(prof: Profile, memory: int | None) -> int | None:
    """Return the most rows with which a step fits; None where it is not known.

    Args:
        prof: plain or predicted, with bytes per row.
        memory: the budget in bytes.
    """
    trace = prof.trace
    if memory is None or not any(s.per_row for s in trace.storages):
        return None

    def fits(rows: int) -> bool:
        return prof.machine.footprint(trace.peak_at(rows)) <= memory

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= _MOST_ROWS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
