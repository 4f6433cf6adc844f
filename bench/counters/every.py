"""All cases by name."""

from __future__ import annotations

from typing import Final

from bench.counters.case import Case
from bench.counters.cases import CASES
from bench.counters.steps import STEPS

EVERY: Final[dict[str, Case]] = {case.name: case for case in (*CASES, *STEPS)}
"""Cases by name, in the order of the tables."""
