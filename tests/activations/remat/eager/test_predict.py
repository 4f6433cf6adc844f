"""What is predicted against the obvious account of every event."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.eager.predict import PlainStep, recomputed
from shoestring.activations.remat.eager.sites import sites_of
from shoestring.core.trace import Phase, Trace
from tests.activations.remat.eager.traces import traces
from tests.oracles.eager_predict import timeline


def chosen_of(data: st.DataObject, trace: Trace) -> set[int]:
    forward = [i for i, o in enumerate(trace.ops) if o.phase is Phase.FORWARD]
    whole = [i for i in forward if not o_changes(trace, i)]
    return set(data.draw(st.lists(st.sampled_from(whole), unique=True)))


def o_changes(trace: Trace, index: int) -> bool:
    return bool(trace.ops[index].writes)


@given(trace=traces(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_the_timeline_is_that_of_every_event(trace: Trace, data: st.DataObject) -> None:
    chosen = chosen_of(data, trace)
    sites = sites_of(trace)
    found = recomputed(trace, {sites[i] for i in chosen})
    assert found.timeline().tolist() == timeline(trace, chosen)


@given(trace=traces(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_timeline_is_that_of_the_changed_step(trace: Trace, data: st.DataObject) -> None:
    step = PlainStep(trace)
    change = step.run_again(chosen_of(data, trace))
    found = step.timeline(change, np.ones(len(trace.storages), dtype=np.int64))
    assert found.tolist() == step.changed(change).timeline().tolist()
