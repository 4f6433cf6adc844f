"""What a run's folder tells a report: each part checked, or the sentence why it is missing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from shoestring.core.errors import InputError
from shoestring.core.run_folder import Entry, Run, RunFolder, Timeline
from shoestring.measure.counting.counts import Count
from shoestring.planner.plan import Plan
from shoestring.planner.run_plan import plan_of_run


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """One run as a report sees it.

    Attributes:
        name: of the run among those of the page.
        run: what was run.
        plan: its plan, or None.
        log: its log; empty where there is none.
        timeline: the memory of one step, or None.
        count: the FLOPs and bytes of one step, or None.
        missing: why a part is missing, by its name: ``plan``, ``log``, ``timeline`` or ``count``.
    """

    name: str
    run: Run
    plan: Plan | None
    log: tuple[Entry, ...]
    timeline: Timeline | None
    count: Count | None
    missing: dict[str, str]


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> list[Seen]:
    """Read the folders of runs.

    Args:
        folders: at least one; none twice.

    Returns:
        The runs in the order given, each with a name of its own.

    Raises:
        InputError: one is no run's folder, its ``run.json`` is damaged, or it comes twice.
    """
    paths = [Path(folder) for folder in folders]
    real = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, real, strict=True):
        if real.count(place) > 1:
            raise InputError(f"{path} is given twice.", hint="name each run once.")
    return [_read(path, name) for path, name in zip(paths, _names(real, paths), strict=True)]


def _names(real: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Return the folders' own names, or the paths as given where these are not unique."""
    short = [Path(place).name or place for place in real]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _read(path: Path, name: str) -> Seen:
    folder = RunFolder(path)
    run = folder.read()
    missing: dict[str, str] = {}
    plan: Plan | None = None
    log: list[Entry] = []
    timeline: Timeline | None = None
    count: Count | None = None
    try:
        plan = plan_of_run(run)
    except InputError as error:
        missing["plan"] = error.message
    try:
        log = folder.log()
        if not log:
            missing["log"] = "nothing has been logged yet."
    except InputError as error:
        missing["log"] = error.message
    try:
        if (path / "timeline.json").exists():
            timeline = folder.timeline()
        else:
            missing["timeline"] = "the run has written no timeline."
    except InputError as error:
        missing["timeline"] = error.message
    try:
        if folder.count.exists():
            count = Count.load(folder.count)
        else:
            missing["count"] = "the run has written none."
    except InputError as error:
        missing["count"] = error.message
    return Seen(name, run, plan, tuple(log), timeline, count, missing)
