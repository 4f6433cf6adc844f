"""Rows of what every user meets: verbs, records, and trainers of others."""

from __future__ import annotations

from typing import Final

from shoestring.catalog.row import Row

ROWS: Final = (
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
)
