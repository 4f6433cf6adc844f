"""Names of operations: written and read again, and those of several calls kept apart."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from shoestring.activations.remat.eager.sites import Counting, Site, from_text, sites_of, to_text
from shoestring.core.trace import Phase, Trace
from tests.activations.remat.eager.traces import op

PARTS = st.text("ab0_", min_size=1, max_size=3)
SITES = st.builds(
    Site,
    st.lists(PARTS, max_size=3).map(".".join),
    st.lists(PARTS, min_size=3, max_size=3).map(".".join),
    st.integers(0, 300),
)


@given(st.frozensets(SITES))
def test_what_is_written_is_read_again(sites: frozenset[Site]) -> None:
    lines = to_text(sites)
    assert from_text(lines) == sites
    assert len(lines) == len({site.module for site in sites})


def test_operations_are_numbered_by_module_and_name() -> None:
    counting = Counting()
    asked = [("a", "x"), ("a", "x"), ("b", "x"), ("a", "y"), ("a", "x")]
    assert [counting.next(*pair).number for pair in asked] == [0, 1, 0, 0, 2]


def test_each_call_of_the_model_is_numbered_by_itself() -> None:
    forward = tuple(op(module=module) for module in ("a", "a", "", "a", "a", "", "a"))
    ops = (*forward[:3], op(phase=Phase.BACKWARD), *forward[3:])
    trace = Trace(ops, (), calls=((0, 4), (4, 7)))
    numbers = {i: (site.module, site.number) for i, site in sites_of(trace).items()}
    first = {0: ("a", 0), 1: ("a", 1), 2: ("", 0)}
    assert numbers == first | {4: ("a", 0), 5: ("a", 1), 6: ("", 0)}
    within = dataclasses.replace(trace, calls=((0, 7), (1, 3)))
    assert sites_of(within)[1].number == 1
