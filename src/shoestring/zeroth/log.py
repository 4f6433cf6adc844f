"""The log of a run: a few numbers for each step, from which all its steps can be made again."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoestring.core.documents import parse_document, read_document, write_text
from shoestring.core.errors import InputError
from shoestring.zeroth.kept import Group

SCHEMA: Final = "shoestring/zolog/1"
MOST_BYTES: Final = 256 * 2**20

Numbers = npt.NDArray[Any]


@dataclasses.dataclass
class Log:
    """What each step of an optimizer came to.

    A step is ``4 q`` bytes: half the difference of the losses along each direction. Options that
    change from step to step, as with a scheduler, take 8 bytes each.

    Attributes:
        optimizer: name of its class.
        options: those that stay, seed and directions among them.
        shapes: of what is trained, in order.
        sizes: parameters in each group.
        start: draws before the first step.
        names: of the options that are kept of each group for each step.
        deltas: by step, along each direction; after them what else the optimizer's rule takes.
        settings: by step, the named options of the first group, then of the second, and so on.
    """

    optimizer: str
    options: dict[str, Any]
    shapes: list[list[int]]
    sizes: list[int]
    start: int
    names: list[str]
    deltas: list[tuple[float, ...]] = dataclasses.field(default_factory=list)
    settings: list[tuple[float, ...]] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.deltas)

    def add(self, deltas: Sequence[float], settings: Sequence[float]) -> None:
        """Add a step.

        Args:
            deltas: along each direction, and what else there is; numbers of float32.
            settings: the named options of each group.
        """
        self.deltas.append(tuple(deltas))
        self.settings.append(tuple(settings))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the log as a JSON document, whole or not at all.

        Args:
            path: the file to write.

        Raises:
            InputError: it cannot be written.
        """
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """Return the log as a JSON document."""
        columns = np.array(self.settings, np.float64).reshape(len(self), -1)
        document = {
            "schema": SCHEMA,
            "optimizer": self.optimizer,
            "options": self.options,
            "shapes": self.shapes,
            "sizes": self.sizes,
            "start": self.start,
            "names": self.names,
            "steps": len(self),
            "deltas": _packed(np.array(self.deltas, np.float32)),
            "settings": [_column(column) for column in columns.T],
        }
        return json.dumps(document)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Log:
        """Read a log that may come from anywhere.

        Args:
            path: the file to read.

        Raises:
            InputError: it cannot be read, or is no log.

        Example:
            >>> import tempfile
            >>> log = Log("ZOSGD", {"seed": 0}, [[3]], [1], 0, ["lr"])
            >>> log.add([0.5], [1e-3])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     log.save(f"{folder}/run.zolog")
            ...     Log.load(f"{folder}/run.zolog") == log
            True
        """
        return _log_in(read_document(path, SCHEMA, most_bytes=MOST_BYTES), os.fspath(path))

    @classmethod
    def from_json(cls, text: str) -> Log:
        """Read a log from the text of its document, which may come from anywhere.

        Args:
            text: of `to_json`.

        Raises:
            InputError: it is no log.
        """
        return _log_in(parse_document(text, SCHEMA, most_bytes=MOST_BYTES), "the text")


def option_of(group: Group, name: str) -> float:
    """Return an option as the log names it: of a pair, ``betas.0`` is the first.

    Args:
        group: options of parameters.
        name: of the option.
    """
    option, _, place = name.partition(".")
    return float(group[option][int(place)] if place else group[option])


def set_options(group: Group, names: Sequence[str], values: Sequence[float]) -> None:
    """Set options as the log names them.

    Args:
        group: options of parameters; changed.
        names: of the options.
        values: one for each name, and maybe more.
    """
    for name, value in zip(names, values, strict=False):
        option, _, place = name.partition(".")
        pair = list(group[option]) if place else []
        if place:
            pair[int(place)] = value
        group[option] = tuple(pair) if place else value


def _log_in(document: Mapping[str, Any], name: str) -> Log:
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InputError(
            f"{name} is no log of a zeroth-order optimizer ({error}).",
            hint="it may be damaged; logs are written by opt.log.save.",
        ) from error


def _column(values: Numbers) -> float | str:
    """Return an option of all steps: one number where it stays."""
    return float(values[0]) if len(values) and (values == values[0]).all() else _packed(values)


def _packed(values: Numbers) -> str:
    little = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode()


def _unpacked(text: str, dtype: str) -> Numbers:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype)


def _read(found: Mapping[str, Any]) -> Log:
    steps = int(found["steps"])
    deltas = _unpacked(found["deltas"], "<f4")
    if steps < 0 or (steps == 0) != (len(deltas) == 0) or (steps and len(deltas) % steps):
        raise ValueError("its steps are not as many as it says")
    columns = []
    for value in found["settings"]:
        column = _unpacked(value, "<f8") if isinstance(value, str) else np.full(steps, float(value))
        if len(column) != steps:
            raise ValueError("an option is not there for each step")
        columns.append(column)
    sizes, shapes = [int(n) for n in found["sizes"]], found["shapes"]
    names = [str(name) for name in found["names"]]
    if steps and len(columns) != len(names) * len(sizes):
        raise ValueError("options are missing")
    settings = np.stack(columns, 1) if columns else np.empty((steps, 0))
    return Log(
        optimizer=str(found["optimizer"]),
        options=dict(found["options"]),
        shapes=[[int(n) for n in shape] for shape in shapes],
        sizes=sizes,
        start=int(found["start"]),
        names=names,
        deltas=[tuple(row) for row in deltas.reshape(steps, -1).astype(float).tolist()],
        settings=[tuple(row) for row in settings.tolist()],
    )
