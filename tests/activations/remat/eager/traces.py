"""Steps made by hand or drawn at random, to be predicted."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from shoestring.core.machine import Machine
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace


def op(
    reads: Sequence[int] = (),
    writes: Sequence[int] = (),
    *,
    name: str = "aten.exp.default",
    phase: Phase = Phase.FORWARD,
    module: str = "",
    workspace: int = 0,
    source: int = -1,
    random: bool = False,
    seconds: float = 1.0,
) -> Op:
    """Return an operation."""
    return Op(
        name,
        phase,
        module,
        tuple(reads),
        tuple(writes),
        workspace=workspace,
        source=source,
        random=random,
        seconds=seconds,
    )


def kept(birth: int, death: int | None, nbytes: int = 4096, released: int | None = None) -> Storage:
    """Return a storage of the forward."""
    kind = Kind.BUFFER if birth == ALWAYS else Kind.ACTIVATION
    return Storage(nbytes, kind, birth, death, released=released)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Draw a step: results are changed in place before anything else reads them, if at all."""
    sizes = st.integers(1, 9).map(lambda n: n * 1024)
    count = draw(st.integers(2, 9))
    ops: list[Op] = []
    births = [ALWAYS, ALWAYS]
    for _ in range(count):
        some = st.lists(st.sampled_from(range(len(births))), max_size=3, unique=True)
        names = st.sampled_from(["aten.exp.default", "aten.mul.Tensor"])
        module, name = draw(st.sampled_from(["", "a", "a.b"])), draw(names)
        space = draw(st.sampled_from([0, 500]))
        ops.append(op(draw(some), name=name, module=module, workspace=space))
        made = [len(births) + k for k in range(draw(st.sampled_from([1, 1, 1, 2, 0])))]
        births += [len(ops) - 1] * len(made)
        if made and draw(st.booleans()):
            reads = [made[0], *(s for s in draw(some) if s < made[0])]
            ops.append(op(reads, made[:1], name="aten.add_.Tensor"))
    border = len(ops)
    for _ in range(draw(st.integers(1, 6))):
        source = draw(st.integers(-1, border - 1))
        again = draw(st.sampled_from([False, False, True]))  # as another technique puts it there
        for _ in range(draw(st.integers(1, 3))):
            some = st.lists(st.sampled_from(range(len(births))), max_size=3, unique=True)
            if again:
                ops.append(op(draw(some), phase=Phase.RECOMPUTE))
            else:
                ops.append(op(draw(some), phase=Phase.BACKWARD, source=source))
            if draw(st.booleans()):
                births.append(len(ops) - 1)
    storages = [
        _storage(draw, s, birth, draw(sizes), ops, border) for s, birth in enumerate(births)
    ]
    return Trace(tuple(ops), tuple(storages), calls=((0, border),))


def _storage(
    draw: st.DrawFn, s: int, birth: int, nbytes: int, ops: Sequence[Op], border: int
) -> Storage:
    last = max([max(birth, 0), *(i for i, o in enumerate(ops) if s in o.reads)])
    if birth == ALWAYS:
        return kept(birth, draw(st.sampled_from([None, last])), nbytes)
    death = draw(st.sampled_from([last, last, draw(st.integers(last, len(ops) - 1)), None]))
    released = None
    if death is not None and birth < border <= death:
        first = max([birth, *(i for i in range(border) if s in ops[i].reads)])
        released = draw(st.sampled_from([None, draw(st.integers(first, border - 1))]))
    return kept(birth, death, nbytes, released)


MACHINE = Machine(
    name="plain",
    title="a machine with round figures",
    device="cpu",
    memory=None,
    flops={"float32": 1e9},
    bandwidth=1e9,
    op_seconds=0.5,
)
