"""A page about one schedule of rematerialisation."""

from __future__ import annotations

from collections.abc import Sequence

from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.front import Front
from shoestring.core.markup import Html, tag
from shoestring.core.units import format_bytes
from shoestring.report.page import document
from shoestring.report.remat import Unit, remat_memory_figure
from shoestring.report.remat_front import Other, remat_front_figure
from shoestring.report.remat_places import remat_places_figure
from shoestring.report.sections import section


def remat_page(
    schedule: Schedule,
    front: Front | None = None,
    *,
    others: Sequence[Other] = (),
    unit: Unit = "s",
) -> str:
    """Return a page about a schedule as HTML text, in one file that asks no host for anything.

    Args:
        schedule: what is kept and computed again.
        front: what else can be reached; drawn if given.
        others: other ways to run the step, drawn beside the front.
        unit: what the schedule's seconds are.

    Raises:
        InputError: a package that draws charts is missing.
    """
    parts = remat_sections(schedule, front, others=others, unit=unit, prefix="remat", level=2)
    title = f"Rematerialisation: {format_bytes(schedule.peak)} in place of {_plain(schedule)}"
    return document(title, tag("header", tag("h1", title)), parts)


def remat_sections(
    schedule: Schedule,
    front: Front | None = None,
    *,
    others: Sequence[Other] = (),
    unit: Unit = "s",
    prefix: str,
    level: int,
) -> list[tuple[str, str, Html]]:
    """Return the sections about a schedule, for a page of its own or a part of a run's.

    Args:
        schedule: what is kept and computed again.
        front: what else can be reached; drawn if given.
        others: other ways to run the step, drawn beside the front.
        unit: what the schedule's seconds are.
        prefix: what ids begin with.
        level: of their headings, as in 2 for ``h2``.

    Returns:
        The id, the title and the section itself, in order.
    """
    found = [
        (
            "over-time",
            "Memory over the step",
            remat_memory_figure(schedule, prefix=prefix, unit=unit),
        ),
        ("again", "What is computed again", remat_places_figure(schedule, prefix=prefix)),
    ]
    if front is not None:
        drawn = remat_front_figure(front, others=others, chosen=schedule, prefix=prefix)
        found.append(("front", "What can be reached", drawn))
    return [
        (f"{prefix}-{name}", title, section(f"{prefix}-{name}", title, content, level=level))
        for name, title, content in found
    ]


def _plain(schedule: Schedule) -> str:
    return format_bytes(schedule.plain.peak)
