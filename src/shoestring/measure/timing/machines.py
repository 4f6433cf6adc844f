"""Machine sheets: what a machine does in a second, holds, and does otherwise than a CPU trace.

The folder ``sheets`` beside this file holds one JSON sheet a card, every row with its source.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
from pathlib import Path
from typing import Any, Final, cast

import torch

from shoestring.core.errors import InputError
from shoestring.core.kernels import Kernel
from shoestring.core.machine import Machine, Pace
from shoestring.core.trace import Phase
from shoestring.core.units import format_bytes, format_seconds
from shoestring.measure import host
from shoestring.measure.cache import cache_folder, read_cache, write_cache
from shoestring.measure.timing.microbench import Rates, measure_rates

THIS: Final = "this"
SHEET_SCHEMA: Final = "shoestring/machine/1"
CACHE_SCHEMA: Final = "shoestring/rates/2"
_MOST_TRIES: Final = 3

_CUDA_CONTEXT: Final = 500 * 2**20
"""An estimate: what the driver does not tell while other processes use the card."""
_CUDA_RESERVE: Final = 0.05
"""An estimate, as in the sheets."""
_CUDA_BLOCK: Final = 512

Row = dict[str, object]


def machine_names() -> tuple[str, ...]:
    """Return the names that `load_machine` knows, ``this`` first.

    Example:
        >>> "rtx-4090" in machine_names()
        True
    """
    folder = importlib.resources.files("shoestring.measure.timing") / "sheets"
    names = (f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json"))
    return (THIS, *sorted(names))


def load_machine(name: str | Machine | None = None) -> Machine:
    """Return a machine's sheet.

    Rates are what is reached: the datasheet's, times the share of it that the sheet names.
    ``this`` is measured in about two seconds and kept in the user's cache folder.

    Args:
        name: one of `machine_names`; None for ``this``; a `Machine` is returned as it is.

    Returns:
        The sheet.

    Raises:
        InputError: there is no such machine.

    Example:
        >>> load_machine("h200").device
        'cuda'
    """
    if isinstance(name, Machine):
        return name
    known = machine_names()
    wanted = THIS if name is None else str(name).strip().lower().replace("_", "-").replace(" ", "-")
    if wanted not in known:
        raise InputError(f"machine {name!r} is not known.", hint=f"use one of {', '.join(known)}.")
    return _this() if wanted == THIS else _from_sheet(read_sheet(wanted))


def free_memory(machine: Machine) -> int | None:
    """Return the bytes that a step may take in all, for the budget ``auto``.

    Args:
        machine: a sheet. On ``this`` what is free now counts, within the limits of the
            container and of the process; on any other machine all of its memory.

    Returns:
        Bytes; None where it is not known.
    """
    if machine.name != THIS:
        return machine.memory
    if machine.device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return free + unused + machine.context  # the context is in use already, and budgeted
    return host.free_memory()


def describe(machine: Machine) -> str:
    """Return a sheet as a table for people.

    Args:
        machine: the sheet.

    Returns:
        Lines of text.
    """
    rows = [(f"{machine.name}", f"{machine.title} ({machine.device})")]
    rows.append(("memory", "not known" if machine.memory is None else format_bytes(machine.memory)))
    rows += [(dtype, f"{rate / 1e12:.3g} TFLOP/s") for dtype, rate in machine.flops.items()]
    rows.append(("bandwidth", f"{machine.bandwidth / 1e9:.3g} GB/s"))
    if machine.link is not None:
        rows.append(("host link", f"{machine.link / 1e9:.3g} GB/s"))
    rows.append(("an operation", format_seconds(machine.op_seconds)))
    rows += [(f"in {phase}", format_seconds(cost)) for phase, cost in machine.op_costs.items()]
    if machine.device != "cpu":
        rows.append(("context", format_bytes(machine.context)))
        rows.append(("reserve", f"{machine.reserve:.0%} of allocated"))
    rows.append(("block", f"{machine.block} B"))
    rows.append(("optimizer", "foreach by default" if machine.foreach else "loop by default"))
    kernel = "fused with dropout too" if machine.fused_attention else "score matrix with dropout"
    rows.append(("attention", kernel))
    done = "compared with measurements" if machine.measured else "not yet measured on CUDA"
    rows += [("memory rows", done), ("source", machine.source)]
    return "\n".join(f"{key:<14}{value}" for key, value in rows)


# --- sheets ----------------------------------------------------------------------------------


def read_sheet(name: str) -> dict[str, Row]:
    """Return the rows of a machine's JSON sheet, as they are written there.

    Args:
        name: one of `machine_names`, but ``this``.

    Returns:
        Row name -> ``value``, ``unit``, ``status``, ``source`` and perhaps ``note``; the
        rows ``chip``, ``flops`` and ``achieved`` hold such rows. Name and title are rows
        with a value only.
    """
    file = importlib.resources.files("shoestring.measure.timing") / "sheets" / f"{name}.json"
    document = json.loads(file.read_text("utf-8"))
    assert document["schema"] == SHEET_SCHEMA, name
    assert document["name"] == name, name
    head = {key: {"value": document[key]} for key in ("name", "title", "device")}
    return {**head, **document["rows"]}


def _from_sheet(rows: dict[str, Row]) -> Machine:
    share = {key: _value(cast(Row, row)) for key, row in rows["achieved"].items()}
    flops = {key: _value(cast(Row, row)) * share["flops"] for key, row in rows["flops"].items()}
    reached = ", ".join(f"{value:.0%} of {key}" for key, value in share.items())
    datasheet = str(rows["bandwidth"]["source"])
    return Machine(
        name=str(rows["name"]["value"]),
        title=str(rows["title"]["value"]),
        device=str(rows["device"]["value"]),
        memory=int(_value(rows["memory"])),
        flops=flops,
        bandwidth=_value(rows["bandwidth"]) * share["bandwidth"],
        op_seconds=_value(rows["op_seconds"]),
        link=_value(rows["link"]) * share["link"],
        context=int(_value(rows["context"])),
        reserve=_value(rows["reserve"]),
        block=int(_value(rows["block"])),
        foreach=bool(rows["foreach"]["value"]),
        fused_attention=bool(rows["fused_attention"]["value"]),
        measured=bool(rows["measured"]["value"]),
        source=f"{datasheet}; taken as reached (estimates): {reached}",
    )


def _value(row: Row) -> float:
    return cast(float, row["value"])


# --- this machine ----------------------------------------------------------------------------


def _this() -> Machine:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = _rates(device, torch.get_num_threads(), cache_folder() / "rates.json")
    source = f"measured here with {torch.get_num_threads()} threads, torch {torch.__version__}"
    if device == "cuda":
        return Machine(
            name=THIS,
            title=torch.cuda.get_device_name(),
            device=device,
            memory=torch.cuda.get_device_properties(0).total_memory,
            flops=rates.flops,
            bandwidth=rates.bandwidth,
            op_seconds=rates.op_seconds,
            link=rates.link,
            context=_CUDA_CONTEXT,
            reserve=_CUDA_RESERVE,
            block=_CUDA_BLOCK,
            foreach=True,
            fused_attention=True,
            source=f"{source}; context and reserve are estimates",
        )
    return Machine(
        name=THIS,
        title=host.cpu_name(),
        device=device,
        memory=host.total_memory(),
        flops=rates.flops,
        bandwidth=rates.bandwidth,
        op_seconds=rates.op_seconds,
        measured=True,
        source=source,
        paces=rates.paces,
        op_costs=rates.op_costs,
    )


@functools.cache  # a step is priced once: the figures do not change while the process lives
def _rates(device: str, threads: int, path: Path) -> Rates:
    """Return this computer's rates, kept for each processor and number of threads.

    What was measured while other processes ran is measured again in later runs, up to
    `_MOST_TRIES` times or until they are quiet, and the best figures are kept.
    """
    chip = torch.cuda.get_device_name() if device == "cuda" else host.cpu_name()
    key = f"{chip}, {threads} threads, torch {torch.__version__}"
    known, tries = _from_row(read_cache(path, CACHE_SCHEMA).get(key), device)
    if known is not None and (known.quiet or tries >= _MOST_TRIES):
        return known
    rates = measure_rates(device)
    rates = rates if known is None else rates.best(known)
    row = {**dataclasses.asdict(rates), "tries": tries + 1}
    write_cache(path, CACHE_SCHEMA, {**read_cache(path, CACHE_SCHEMA), key: row})
    return rates


def _from_row(row: object, device: str) -> tuple[Rates | None, int]:
    """Return a row of the cache file and how often it was measured; None where it is none."""
    try:
        fields = dict(cast(dict[str, Any], row))  # whatever it is, `_usable` looks at it
        tries = fields.pop("tries")
        paces = {Kernel(name): Pace(*pace) for name, pace in fields.pop("paces").items()}
        op_costs = {Phase(name): cost for name, cost in fields.pop("op_costs").items()}
        rates = Rates(**fields, paces=paces, op_costs=op_costs)
        usable = _usable(rates, device) and type(tries) is int
    except (AttributeError, KeyError, TypeError, ValueError):
        return None, 0
    return (rates, tries) if usable else (None, 0)


def _usable(rates: Rates, device: str) -> bool:
    """Whether what a file holds can have been measured."""
    numbers = [*rates.flops.values(), rates.bandwidth, rates.op_seconds, *rates.op_costs.values()]
    numbers += [n for pace in rates.paces.values() for n in (pace.share, pace.bandwidth)]
    if device == "cuda":
        numbers.append(cast(float, rates.link))
    starts = [pace.start for pace in rates.paces.values()]
    positive = all(type(n) is float and math.isfinite(n) and n > 0 for n in numbers)
    started = all(type(n) is float and math.isfinite(n) and n >= 0 for n in starts)
    return positive and started and "float32" in rates.flops and type(rates.quiet) is bool
