"""Reading a plan from a file that may come from anywhere: everything is checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoestring.core.errors import InputError
from shoestring.core.technique import Technique
from shoestring.planner.buckets import BUCKETS
from shoestring.planner.figures import Figures, Row
from shoestring.planner.techniques import technique_classes

if TYPE_CHECKING:
    from shoestring.planner.plan import Plan


def plan_from_data(data: Mapping[str, object], make: type[Plan]) -> Plan:
    """Return the plan that a document describes.

    Args:
        data: the document without its schema.
        make: the class to make.

    Raises:
        InputError: something in it is missing, unknown, of another type or out of range.
    """
    known = {f.name for f in dataclasses.fields(make)}
    extra, missing = sorted(set(data) - known), sorted(known - set(data))
    if extra or missing:
        what = f"has the unknown key {extra[0]!r}" if extra else f"lacks the key {missing[0]!r}"
        raise InputError(f"the plan {what}.", hint="save it again with this version.")
    classes = {cls.name: cls for cls in technique_classes() if not cls.reported}
    steps = tuple(_technique(item, classes) for item in _list(data, "steps"))
    budget = data["budget"]
    return make(
        steps=steps,
        plain=_figures(data["plain"]),
        predicted=_figures(data["predicted"]),
        budget=None if budget is None else _whole(budget),
        refused=tuple(_pair(item) for item in _list(data, "refused")),
        pareto=tuple(_row(item) for item in _list(data, "pareto")),
        rows=tuple(_row(item) for item in _list(data, "rows")),
        fingerprint=_text(data["fingerprint"]),
        optimizer_path=_text(data["optimizer_path"]),
        optimizer_options=_plain_dict(data["optimizer_options"]),
        autocast=_dtype(data["autocast"]),
        clip_norm=None if data["clip_norm"] is None else _amount(data["clip_norm"]),
        accumulate=max(_whole(data["accumulate"]), 1),
        set_to_none=_flag(data["set_to_none"]),
        ddp=_buckets(data["ddp"]),
        machine=_text(data["machine"]),
        measured_on_machine=_flag(data["measured_on_machine"]),
        batch=_text(data["batch"]),
        model=_text(data["model"]),
        versions={str(k): _text(v) for k, v in _plain_dict(data["versions"]).items()},
    )


def _technique(item: object, classes: Mapping[str, type[Technique]]) -> Technique:
    if not isinstance(item, dict) or set(item) != {"name", "options"}:
        raise _damaged("a step must have a name and options")
    name, options = item["name"], item["options"]
    if not isinstance(name, str) or name not in classes:
        raise InputError(
            f"the plan uses the unknown technique {str(name)[:60]!r}.",
            hint="see `shoestring list`; it may come from a newer version.",
        )
    if not isinstance(options, dict):
        raise _damaged(f"the options of {name} must be an object")
    return classes[name].from_options(options)


def _damaged(what: str) -> InputError:
    return InputError(f"the plan is damaged: {what}.", hint="make it again with plan.save().")


def _list(data: Mapping[str, object], key: str) -> list[object]:
    value = data[key]
    if not isinstance(value, list):
        raise _damaged(f"{key} must be a list")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**60:
        raise _damaged("a size must be a whole number from 0 to 2**60")
    return value


def _dtype(value: object) -> str:
    if value not in ("", "bfloat16", "float16"):
        raise _damaged("autocast must be bfloat16, float16 or empty")
    return str(value)


def _buckets(value: object) -> str:
    if value not in ("", *BUCKETS):
        raise _damaged("ddp must be copies, views or empty")
    return str(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _damaged("a flag must be true or false")
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise _damaged("a time or a norm must be a number from 0")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 10_000:
        raise _damaged("a text is missing or far too long")
    return value


def _figures(value: object) -> Figures:
    if not isinstance(value, dict) or set(value) != {"peak", "footprint", "seconds"}:
        raise _damaged("figures must have peak, footprint and seconds")
    return Figures(_whole(value["peak"]), _whole(value["footprint"]), _amount(value["seconds"]))


def _row(value: object) -> Row:
    if not isinstance(value, dict) or set(value) != {f.name for f in dataclasses.fields(Row)}:
        raise _damaged("a row of the table lacks a field or has an unknown one")
    largest = value["largest_batch"]
    return Row(
        label=_text(value["label"]),
        figures=_figures(value["figures"]),
        fits=_flag(value["fits"]),
        fidelity=_text(value["fidelity"]),
        largest_batch=None if largest is None else _whole(largest),
        planned=_flag(value["planned"]),
    )


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise _damaged("a refusal must be a name and a reason")
    return _text(value[0]), _text(value[1])


def _plain_dict(value: object) -> dict[str, float | bool | str | None]:
    plain = (int, float, bool, str, type(None))
    if not isinstance(value, dict) or not all(isinstance(v, plain) for v in value.values()):
        raise _damaged("options must be plain values by name")
    return value
