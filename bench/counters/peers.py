"""The counters that ours is compared with, each used as its own pages say.

    python -m bench.counters.peers NAME CASE ...

prints a line of JSON for each case, on the Python that has the counter installed.

Counters that count one sample (their input has no size for the batch, or they divide by it) are
given one row, and their answer is multiplied by the rows. Those that answer in FLOPs are compared
in FLOPs, those in multiply-adds in multiply-adds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from bench.counters.case import ROWS, Case

Answer: TypeAlias = tuple[float | None, dict[str, float]]
"""A count, and what the counter itself says it added beside contractions."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another counter.

    Attributes:
        name: short, for the command line and files.
        title: for people.
        distribution: that has to be installed; empty for torch.
        used: the call whose answer is taken.
        note: how the answer is to be read, or empty.
        unit: 1 where it counts multiply-adds, 2 where it counts FLOPs.
        one_row: whether it counts one sample.
        steps: whether it sees backward.
        rules: what it adds for each element of a kind, as its source says.
        count: counts a case.
    """

    name: str
    title: str
    distribution: str
    used: str
    note: str = ""
    unit: int = 1
    one_row: bool = False
    steps: bool = False
    rules: Mapping[str, int] = dataclasses.field(default_factory=dict)
    count: Callable[[Case], Answer]

    @property
    def version(self) -> str:
        """Of what is installed here."""
        return importlib.metadata.version(self.distribution or "torch")


def _torch(case: Case) -> Answer:
    from torch.utils.flop_counter import FlopCounterMode

    model, x = case.build(ROWS)
    with FlopCounterMode(display=False) as counter:
        case.run(model, x)
    return counter.get_total_flops(), {}


def _fvcore(case: Case) -> Answer:
    from fvcore.nn import FlopCountAnalysis

    model, x = case.build(ROWS)
    found = FlopCountAnalysis(model, x).unsupported_ops_warnings(False)
    beside = ("batch_norm", "layer_norm", "adaptive_avg_pool2d")
    added = {op: found.by_operator()[op] for op in beside}
    return found.total(), _present(added)


def _ptflops(backend: str, rows: int) -> Callable[[Case], Answer]:
    def count(case: Case) -> Answer:
        from ptflops import get_model_complexity_info

        model, x = case.build(rows)
        macs, _ = get_model_complexity_info(
            model,
            tuple(x.shape[1:]) or (1,),
            input_constructor=lambda _: x,
            as_strings=False,
            print_per_layer_stat=False,
            backend=backend,
        )
        return macs, {}

    return count


def _thop(case: Case) -> Answer:
    from thop import profile

    model, x = case.build(ROWS)
    macs, _ = profile(model, inputs=(x,), verbose=False)
    return macs, {}


def _calflops(case: Case) -> Answer:
    from calflops import calculate_flops

    model, x = case.build(ROWS)
    _, macs, _ = calculate_flops(model, args=[x], print_results=False, output_as_string=False)
    return macs, {}


def _torchinfo(case: Case) -> Answer:
    from torchinfo import summary

    model, x = case.build(ROWS)
    return summary(model, input_data=x, verbose=0).total_mult_adds, {}


def _operations(case: Case) -> Answer:
    from torch_operation_counter import OperationsCounterMode

    model, x = case.build(ROWS)
    # Given the model it adds clones of its own to each module, and counts them.
    with OperationsCounterMode() as counter:
        case.run(model, x)
    products = ("mm", "bmm", "addmm", "baddbmm", "convolution", "linear", "matmul", "attention")
    by_op = counter.operations_count["__main__"]
    added = {
        str(op).removeprefix("aten."): number
        for op, number in by_op.items()
        if not any(word in str(op) for word in products)
    }
    return counter.total_operations, _present(added)


def _flopco(case: Case) -> Answer:
    from flopco import FlopCo

    model, x = case.build(1)
    return FlopCo(model, custom_tensor=[x]).total_macs, {}


def _deepspeed(case: Case) -> Answer:
    from deepspeed.profiling.flops_profiler import get_model_profile

    model, x = case.build(ROWS)
    _, macs, _ = get_model_profile(model, args=[x], print_profile=False, as_string=False, warm_up=0)
    return macs, {}


def _present(added: Mapping[str, float]) -> dict[str, float]:
    return {name: number for name, number in added.items() if number}


# ptflops sees a module's activation and pooling twice, in its hook and in the function it patches.
_MODULES: Final = {"bias": 1, "layer norm": 2, "batch norm": 2, "ReLU": 2, "pooling": 2}

PEERS: Final[tuple[Peer, ...]] = (
    Peer(
        name="torch",
        title="FlopCounterMode",
        distribution="",
        used="FlopCounterMode().get_total_flops()",
        note="in FLOPs",
        unit=2,
        steps=True,
        count=_torch,
    ),
    Peer(
        name="fvcore",
        title="fvcore",
        distribution="fvcore",
        used="FlopCountAnalysis(model, x).total()",
        note="what it calls FLOPs are multiply-adds",
        count=_fvcore,
    ),
    Peer(
        name="ptflops",
        title="ptflops (modules)",
        distribution="ptflops",
        used="get_model_complexity_info(model, size, backend='pytorch')",
        note="of one row",
        one_row=True,
        rules={**_MODULES, "gates": 10, "scale": 1, "softmax": 1},
        count=_ptflops("pytorch", 1),
    ),
    Peer(
        name="ptflops-aten",
        title="ptflops (aten)",
        distribution="ptflops",
        used="get_model_complexity_info(model, size, backend='aten')",
        rules={"bias": 1, "output bias": 1},
        count=_ptflops("aten", ROWS),
    ),
    Peer(
        name="thop",
        title="thop",
        distribution="thop",
        used="profile(model, inputs)",
        rules={
            "bias": 1,
            "layer norm": 4,
            "batch norm": 4,
            "pooling": 1,
            "pooling outputs": 1,
            "gates": 8,
        },
        count=_thop,
    ),
    Peer(
        name="calflops",
        title="calflops",
        distribution="calflops",
        used="calculate_flops(model, args)",
        note="its MACs",
        count=_calflops,
    ),
    Peer(
        name="torchinfo",
        title="torchinfo",
        distribution="torchinfo",
        used="summary(model, input_data).total_mult_adds",
        rules={"bias": 1, "norm parameters": 1, "the sum over z": 1},
        count=_torchinfo,
    ),
    Peer(
        name="operations",
        title="torch-operation-counter",
        distribution="torch-operation-counter",
        used="OperationsCounterMode().total_operations",
        note="a multiply-add is one operation",
        steps=True,
        rules={"bias": 1, "output bias": 1},
        count=_operations,
    ),
    Peer(
        name="flopco",
        title="FlopCo",
        distribution="flopco-pytorch",
        used="FlopCo(model, custom_tensor).total_macs",
        note="of one row",
        one_row=True,
        count=_flopco,
    ),
    Peer(
        name="deepspeed",
        title="DeepSpeed",
        distribution="deepspeed",
        used="get_model_profile(model, args)",
        note="its MACs",
        count=_deepspeed,
    ),
)
"""The counters, in the order of the table."""


def answer(peer: Peer, case: Case) -> dict[str, object]:
    """Return what a counter says of a case, in the case's unit, or why it says nothing.

    Args:
        peer: the counter.
        case: the case.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value, added = peer.count(case)
    except Exception as error:  # noqa: BLE001 - a peer that fails is a result
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    if value is None:
        return {"error": "it returned None"}
    scale = (ROWS if peer.one_row else 1) * (2 if case.unit == "FLOPs" else 1) / peer.unit
    return {
        "answer": _whole(value * scale),
        "added": {name: _whole(number * scale) for name, number in added.items()},
    }


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


def main(arguments: Sequence[str]) -> None:
    """Print the answers of one counter.

    Args:
        arguments: its name and those of cases.
    """
    from bench.counters.every import EVERY

    peer = {p.name: p for p in PEERS}[arguments[0]]
    # What a counter prints goes to the errors, on whatever way: this process's output is ours.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            for name in arguments[1:]:
                print(json.dumps(answer(peer, EVERY[name])), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
