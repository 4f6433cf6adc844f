"""The command ``plan``: what makes a MODEL's training step fit."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoestring import catalog
from shoestring.cli.profile import StepName, note, profiled, talk
from shoestring.core.budget import Budget
from shoestring.core.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from shoestring.core.profile import Profile
    from shoestring.planner.plan import Plan

SCHEMA: Final = "shoestring/plans/1"


def plan(
    model: str,
    /,
    *,
    batch: str,
    memory: list[str] | None = None,
    largest_batch: bool = False,
    allow: list[str] | None = None,
    without: list[str] | None = None,
    optimizer: StepName = "adamw",
    machine: str = "this",
    dtype: str | None = None,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Find what makes one training step fit a budget of memory.

    Only changes that keep the gradients exact are used, unless more are allowed by name; what
    LoRA, a 4-bit base and others would reach is shown beside. With several budgets a matrix is
    printed. The exit code is 3 where no budget can be met.

    Args:
        model: package.module:factory, path.py:factory, a folder with a config.json, or the
            name of a Hugging Face model in the local cache. Weights are not needed.
        batch: rows x length for text, as in 4x2048; rows, or rows x channels x height x width
            for images; rows x samples for speech; any sizes for a factory's model.
        memory: the whole step's budget, as in 24GiB, or 60% of the plain step, or auto for
            what the machine has (the default); may be repeated.
        largest_batch: also find the largest batch that fits, for each row.
        allow: a technique that does more than keep the gradients exact; may be repeated.
        without: a technique that is not to be used; may be repeated.
        optimizer: sgd has a momentum of 0.9; none stops after backward; zo and its kind take
            forward passes alone, which leaves nothing to change.
        machine: this, or a data sheet, as in rtx-4090 or h200.
        dtype: of the tensor that a factory's model is called with (float32).
        out: a file to save the plan in, for shoestring.Plan.load.
        json: print JSON instead of a table.

    Returns:
        The exit code.

    Raises:
        InfeasibleError: no budget can be met.
        InputError: something cannot be used as it is.
    """
    budgets = [Budget(memory=text) for text in memory or ["auto"]]
    _check({"allow": allow or [], "without": without or []}, budgets, out)
    prof = profiled(model, batch, optimizer=optimizer, machine=machine, dtype=dtype)
    for sentence in prof.assumptions:
        note(sentence)
    plans, reasons = _planned(prof, budgets, allow or [], without or [], largest_batch)
    sys.stdout.write(_as_json(plans) if json else _as_table(plans))
    sys.stdout.flush()
    failed = [reason for reason in reasons if reason is not None]
    if len(failed) == len(plans):
        raise failed[-1]
    for reason in failed:
        note(reason.message.removesuffix("."))
    if out is not None:
        plans[0].save(out)
    return 0


def _check(named: Mapping[str, Sequence[str]], budgets: Sequence[Budget], out: Path | None) -> None:
    """Refuse what can be refused before torch is imported and the model is traced."""
    if out is not None and len(budgets) > 1:
        raise InputError("--out takes one plan.", hint="give one --memory.")
    known = [row.name for row in catalog.rows() if row.kind == "technique"]
    for option, name in ((option, name) for option, names in named.items() for name in names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see shoestring list."
            raise InputError(f"--{option} names the unknown technique {name!r}.", hint=hint)


def _planned(
    prof: Profile,
    budgets: Sequence[Budget],
    allow: Sequence[str],
    without: Sequence[str],
    largest: bool,
) -> tuple[list[Plan], list[InfeasibleError | None]]:
    from shoestring.planner.planning import explore

    plans: list[Plan] = []
    reasons: list[InfeasibleError | None] = []
    with talk("planning"):
        for budget in budgets:
            made, reason = explore(prof, budget, allow=allow, without=without, largest=largest)
            plans.append(made)
            reasons.append(reason)
    return plans, reasons


def _as_table(plans: Sequence[Plan]) -> str:
    from shoestring.planner.tables import matrix

    return (plans[0].table() if len(plans) == 1 else matrix(plans)) + "\n"


def _as_json(plans: Sequence[Plan]) -> str:
    import json

    if len(plans) == 1:
        return plans[0].to_json() + "\n"
    documents = [json.loads(made.to_json()) for made in plans]
    return json.dumps({"schema": SCHEMA, "plans": documents}, indent=1) + "\n"
