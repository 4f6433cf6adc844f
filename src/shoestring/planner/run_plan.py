"""The plan that a run's folder keeps."""

from __future__ import annotations

from shoestring.core.errors import InputError
from shoestring.core.run_folder import Run
from shoestring.planner.plan import SCHEMA, Plan
from shoestring.planner.plan_file import plan_from_data


def plan_of_run(run: Run) -> Plan:
    """Return the plan of a run.

    Args:
        run: as its folder tells it; the plan in it is not trusted.

    Raises:
        InputError: it has none, it is of another version, or what is wrong with it.
    """
    data = dict(run.plan)
    if not data:
        raise InputError("the run has no plan.", hint="it was run as it is.")
    if data.pop("schema", None) != SCHEMA:
        raise InputError("the plan was written by another version.", hint="run it again.")
    return plan_from_data(data, Plan)
