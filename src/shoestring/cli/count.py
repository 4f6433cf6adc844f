"""The command ``count``: where the FLOPs and bytes of a MODEL's step go."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from shoestring.cli.profile import (
    OptimizerName,
    advised,
    check_trained,
    make_optimizer,
    note,
    on_model,
)
from shoestring.core.documents import check_replaced, write_text
from shoestring.core.errors import InputError
from shoestring.core.markup import COUNT_PAGE

if TYPE_CHECKING:
    from shoestring.cli.models import Brought
    from shoestring.core.machine import Machine
    from shoestring.measure.counting.counts import Count
    from shoestring.measure.tracing.twin import Run

_DEPTH = 2


def count(
    model: str,
    /,
    *,
    batch: str,
    forward: bool = False,
    optimizer: OptimizerName | None = None,
    machine: str | None = None,
    dtype: str | None = None,
    depth: int | None = None,
    by: Literal["module", "phase", "op"] | None = None,
    json: bool = False,
    csv: bool = False,
    html: Path | None = None,
) -> int:
    """Count FLOPs, multiply-adds and bytes of one training step, or of a forward alone.

    Args:
        model: package.module:factory, path.py:factory, a folder with a config.json, or the
            name of a Hugging Face model in the local cache. Weights are not needed.
        batch: rows x length for text, as in 32x64; rows, or rows x channels x height x width
            for images; rows x samples for speech; any sizes for a factory's model.
        forward: the forward alone, without gradients; it needs no loss.
        optimizer: adamw by default; sgd has a momentum of 0.9; none stops after backward.
        machine: estimate times too, on this or on a data sheet's machine, as in rtx-4090.
        dtype: of the tensor that a factory's model is called with (float32).
        depth: of the tree of modules (2); like numbered modules are one line.
        by: one kind of line alone, all of it: module, phase or op.
        json: print JSON instead of a table.
        csv: print CSV instead of a table: a line for every kind of call, or as --by says.
        html: write a page to this file instead.

    Returns:
        The exit code.
    """
    _check(forward=forward, optimizer=optimizer, depth=depth, by=by, json=json, csv=csv, html=html)
    step: OptimizerName = "none" if forward else optimizer or "adamw"
    found = counted(model, batch, forward=forward, optimizer=step, machine=machine, dtype=dtype)
    if json or csv:
        sys.stdout.write(found.to_json() + "\n" if json else found.to_csv(by or "row", depth))
    elif html is not None:
        write_text(html, found.to_html(_DEPTH if depth is None else depth, machine))
        sys.stdout.write(f"{html}\n")
    else:
        from shoestring.measure.counting.table import print_count

        print_count(found, _DEPTH if depth is None else depth, machine, by=by)
    return 0


def _check(
    *,
    forward: bool,
    optimizer: str | None,
    depth: int | None,
    by: str | None,
    json: bool,
    csv: bool,
    html: Path | None,
) -> None:
    """Refuse what would have no effect, before torch is imported."""
    if (json + csv + (html is not None)) > 1:
        raise InputError(
            "only one of --json, --csv and --html can be given.",
            hint="write JSON, and load it with shoestring.Count.load for the others.",
        )
    useless = ""
    if forward and optimizer is not None:
        useless = "--optimizer would have no effect with --forward"
    elif by is not None and (json or html is not None):
        useless = f"--by would have no effect with {'--json' if json else '--html'}"
    elif depth is not None and json:
        useless = "--depth would have no effect with --json"
    elif depth is not None and (by in ("phase", "op") or (csv and by is None)):
        useless = "--depth would have no effect without modules"
    if useless:
        raise InputError(f"{useless}.", hint="leave one of them out.")
    if depth is not None and depth < 0:
        raise InputError(f"a depth of {depth} shows nothing.", hint="use 0 for the whole alone.")
    if html is not None:
        check_replaced(html, COUNT_PAGE, "no count", hint="name another file with --html.")


def counted(
    model: str,
    batch: str,
    *,
    forward: bool,
    optimizer: OptimizerName,
    machine: str | None,
    dtype: str | None,
) -> Count:
    """Count a MODEL's step as it is given on the command line.

    Args:
        model: what ``shoestring.cli.models`` finds.
        batch: sizes, as in ``32x64``.
        forward: the forward alone.
        optimizer: its short name.
        machine: name of a data sheet, or None.
        dtype: of a factory's tensor, or None.

    Raises:
        InputError: something of it cannot be used.
        RefusedError: the model cannot be traced.
    """

    def work(brought: Brought) -> Run:
        return _trace(brought, forward=forward, optimizer=optimizer, machine=machine)

    brought, run = on_model(model, batch, dtype=dtype, machine=machine, work=work)
    from shoestring.measure.counting.counts import Count
    from shoestring.measure.counting.counts import counted as count_trace
    from shoestring.planner.batches import describe_batch

    for sentence in advised(run.assumptions, brought):
        note(sentence)
    parts = ["forward"] if forward else ["forward", "backward"]
    parts += [type(run.optimizer).__name__] if run.optimizer is not None else []
    kind = type(brought.model).__name__
    found = count_trace(
        run.trace,
        title=f"{kind}, {describe_batch(brought.batch)}: {' + '.join(parts)}",
        params=sum(p.numel() for p in brought.model.parameters()),
    )
    return Count(lambda: found)


def _trace(
    brought: Brought, *, forward: bool, optimizer: OptimizerName, machine: str | None
) -> Run:
    import torch

    from shoestring.measure.tracing.step import StepOptions
    from shoestring.measure.tracing.twin import trace_model
    from shoestring.planner.wrapped import refuse_spread, unwrapped

    model = unwrapped(brought.model)
    refuse_spread(model)
    if forward:
        # No loss is taken of the output: the number stands for it, and costs no operation.
        number = torch.zeros((), device="cpu")
        options = StepOptions(loss=lambda output, batch: number, backward=False)
        return trace_model(model, brought.batch, None, options, _sheet(machine))
    check_trained(model, "count its --forward, or leave requires_grad set where it is to learn.")
    made = make_optimizer(optimizer)
    return trace_model(model, brought.batch, made, StepOptions(loss=brought.loss), _sheet(machine))


def _sheet(name: str | None) -> Machine:
    """Return the machine whose operators are counted.

    What kernels hold beside their outputs is not counted, so it need not be measured here: the
    sheet of this computer goes by another name.
    """
    from shoestring.core.machine import Machine
    from shoestring.measure.timing.machines import load_machine

    if name is None:
        return Machine(
            name="any",
            title="any CPU",
            device="cpu",
            memory=None,
            flops={"float32": 1.0},
            bandwidth=1.0,
            op_seconds=0.0,
        )
    return dataclasses.replace(load_machine(name), name="any")
