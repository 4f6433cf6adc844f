"""What every measurement shares: interleaved timing, ratios, and one JSON file per result.

A ratio is always ours over the other's, so that below 1 is better; nothing that is rendered
from a result depends on how fast the machine is.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import torch

from bench.modules import SOURCE, imported
from shoestring.core.documents import read_document, write_text
from shoestring.measure.host import cpu_name

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results"
SCHEMA: Final = "shoestring/bench/1"
INNER_ROOMS: Final = frozenset({"activations/remat"})
"""Rooms within rooms that results name by themselves."""

Plain: TypeAlias = str | int | float | bool | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One comparison of ours with a peer or with a bar.

    Attributes:
        scenario: what was compared, as in ``trace-speed/gpt2``; also the file's name.
        ours: what was run of ours.
        peer: what it was compared with; ``bar`` where that is a fixed figure.
        peer_version: of the peer, or empty.
        peer_options: how the peer was used.
        samples: the figures by side (``ours``, ``peer``, and others such as ``measured``).
        unit: of the samples.
        threads: of torch.
        dtype: of the model.
        ratio: median of ours over median of the peer's; None where one of them failed.
        spread: 10th and 90th percentile of the ratios of all pairs of samples; None with it.
        limit: the largest ratio that meets the bar; None where there is no bar.
        machine: processor and number of cores.
        torch: version.
        rooms: rooms of the package whose code the result depends on.
        source_hash: of their sources when it was made.
        command: that makes it again.
        note: what else must be said, as in why a peer failed.
    """

    scenario: str
    ours: str
    peer: str
    peer_version: str
    peer_options: Mapping[str, Plain]
    samples: Mapping[str, Sequence[float]]
    unit: str
    threads: int
    dtype: str
    ratio: float | None
    spread: tuple[float, float] | None
    limit: float | None
    machine: Mapping[str, Plain]
    torch: str
    rooms: tuple[str, ...]
    source_hash: str
    command: str
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if self.limit is None:
            return None
        return self.ratio is not None and self.ratio <= self.limit

    def to_json(self) -> str:
        """Return the result as JSON text with its schema."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=1) + "\n"


def make_result(  # noqa: PLR0913 - one name for each thing a result says
    scenario: str,
    *,
    ours: str,
    peer: str,
    samples: Mapping[str, Sequence[float]],
    unit: str,
    rooms: Sequence[str],
    command: Sequence[str],
    peer_version: str = "",
    peer_options: Mapping[str, Plain] | None = None,
    dtype: str = "float32",
    limit: float | None = None,
    note: str = "",
    made_with: str = "",
) -> Result:
    """Return a result whose ratio, machine, versions and hash are filled in.

    Args:
        scenario: what was compared.
        ours: what was run of ours.
        peer: what it was compared with.
        samples: figures by side; without one of ``ours`` and ``peer`` there is no ratio.
        unit: of the samples.
        rooms: rooms of the package that the result depends on.
        command: words after ``python -m``.
        peer_version: of the peer.
        peer_options: how the peer was used.
        dtype: of the model.
        limit: the largest ratio that meets the bar.
        note: what else must be said.
        made_with: `source_hash` of the rooms from before the measurement, so that what was
            edited meanwhile makes the result an older one; by default of now.
    """
    both = samples.get("ours") and samples.get("peer")
    ratio, spread = ratio_and_spread(samples["ours"], samples["peer"]) if both else (None, None)
    return Result(
        scenario=scenario,
        ours=ours,
        peer=peer,
        peer_version=peer_version,
        peer_options=dict(peer_options or {}),
        samples={side: list(figures) for side, figures in samples.items()},
        unit=unit,
        threads=torch.get_num_threads(),
        dtype=dtype,
        ratio=ratio,
        spread=spread,
        limit=limit,
        machine=machine(),
        torch=torch.__version__,
        rooms=tuple(rooms),
        source_hash=made_with or source_hash(rooms),
        command="python -m " + shlex.join(command),
        note=note,
    )


def interleave(
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    rounds: int,
    warm_ups: int = 1,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time two functions in turns, A B A B, so that a change of the machine meets both.

    Args:
        ours: the one side, a whole sample at a call.
        peer: the other side.
        rounds: samples of each.
        warm_ups: calls of each before the first sample.
        clock: seconds so far; by default the processor time of this process, which other
            processes hardly disturb.

    Returns:
        Seconds by side, ``ours`` and ``peer``.

    Raises:
        ValueError: there are no rounds.
    """
    if rounds < 1:
        raise ValueError("at least one round is needed")
    sides = {"ours": ours, "peer": peer}
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(warm_ups + rounds):
        for side, function in sides.items():
            gc.collect()  # what one side left behind is not billed to the other
            begin = clock()
            function()
            seconds = clock() - begin
            if turn >= warm_ups:
                samples[side].append(seconds)
    return samples


def ratio_and_spread(
    ours: Sequence[float], peer: Sequence[float]
) -> tuple[float, tuple[float, float]]:
    """Return median(ours) / median(peer), and how far single pairs spread around it.

    Args:
        ours: figures of the one side, above zero.
        peer: of the other.

    Returns:
        The ratio, and the 10th and 90th percentile of ours_i / peer_j over all i and j.

    Example:
        >>> ratio_and_spread([2.0, 3.0, 4.0], [6.0])
        (0.5, (0.36666666666666664, 0.6333333333333333))
    """
    ratio = statistics.median(ours) / statistics.median(peer)
    pairs = sorted(a / b for a in ours for b in peer)
    return ratio, (_percentile(pairs, 0.1), _percentile(pairs, 0.9))


def _percentile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def machine() -> dict[str, Plain]:
    """Return the processor's name and its cores: all that a result says of where it was made."""
    return {"cpu": cpu_name(), "cores": os.cpu_count()}


def one_thread() -> None:
    """Make torch work on one thread, whose processor time is then the time of the work."""
    torch.set_num_threads(1)


def source_hash(rooms: Sequence[str], source: Path = SOURCE) -> str:
    """Return a hash of the sources of some rooms.

    Args:
        rooms: names of folders of the package; or of a module, as in ``zeroth.sgd``, for what
            importing it runs.
        source: the package's folder.

    Raises:
        ValueError: a room or a module does not exist.
    """
    digest = hashlib.sha256()
    for room in sorted(set(rooms)):
        files = files_of(room, source)
        if not files:
            raise ValueError(f"there is no room {room!r}")
        for path in files:
            digest.update(path.relative_to(source).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def files_of(room: str, source: Path = SOURCE) -> list[Path]:
    """Return the sources of a room, without those of a room of `INNER_ROOMS` that lies in it.

    Args:
        room: name of a folder of the package, or of a module.
        source: the package's folder.

    Raises:
        ValueError: a module does not exist.
    """
    if "." in room:
        return sorted(imported(room, source=source))
    inner = [source / name for name in INNER_ROOMS - {room}]
    found = sorted((source / room).rglob("*.py"))
    return [path for path in found if not any(path.is_relative_to(other) for other in inner)]


def is_older(result: Result, source: Path = SOURCE) -> bool:
    """Return whether a room that the result depends on has changed since it was made.

    Args:
        result: a result.
        source: the package's folder.
    """
    return has_changed(result.rooms, result.source_hash, source)


def has_changed(rooms: Sequence[str], then: str, source: Path = SOURCE) -> bool:
    """Return whether the sources of some rooms are others than those of a hash.

    Args:
        rooms: names of folders of the package; one that is gone has changed.
        then: what `source_hash` returned.
        source: the package's folder.
    """
    try:
        return source_hash(rooms, source) != then
    except ValueError:
        return True


def path_of(scenario: str, results: Path = RESULTS) -> Path:
    """Return where a scenario's result is kept.

    Args:
        scenario: its name, as in ``trace-speed/gpt2``.
        results: folder of all results.
    """
    return results / f"{scenario}.json"


def write_result(result: Result, results: Path = RESULTS) -> Path:
    """Write a result, whole or not at all.

    Args:
        result: a result.
        results: folder of all results.

    Returns:
        The file's path.

    Raises:
        InputError: it cannot be written.
    """
    path = path_of(result.scenario, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, result.to_json())
    return path


def read_fields(path: Path, schema: str, kind: type) -> dict[str, object]:
    """Read the fields of a dataclass, neither more nor less.

    Args:
        path: of a JSON document.
        schema: its format.
        kind: the dataclass.

    Raises:
        InputError: it is no JSON document of the schema.
        ValueError: a field is missing or unknown.
    """
    fields = read_document(path, schema)
    del fields["schema"]
    names = {field.name for field in dataclasses.fields(kind)}
    if set(fields) != names:
        raise ValueError(f"{path.name}: fields differ by {sorted(set(fields) ^ names)}")
    return fields


def read_result(path: Path) -> Result:
    """Read a result.

    Args:
        path: of its file.

    Raises:
        InputError: it is no JSON document of the schema.
        ValueError: a field is missing, unknown or of another kind.
    """
    fields = read_fields(path, SCHEMA, Result)
    _check_kinds(path.name, fields)
    fields["rooms"] = tuple(fields["rooms"])  # type: ignore[arg-type]
    fields["spread"] = None if fields["spread"] is None else tuple(fields["spread"])  # type: ignore[arg-type]
    return Result(**fields)  # type: ignore[arg-type]


def _check_kinds(name: str, fields: Mapping[str, object]) -> None:
    number = (int, float)
    kinds: dict[str, tuple[type, ...]] = {
        "threads": (int,),
        "ratio": (*number, type(None)),
        "limit": (*number, type(None)),
        "spread": (list, type(None)),
        "rooms": (list,),
        "samples": (dict,),
        "machine": (dict,),
        "peer_options": (dict,),
    }
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, kinds.get(field, (str,))):
            raise ValueError(f"{name}: {field} is {value!r}")
    samples = fields["samples"]
    assert isinstance(samples, dict)
    for side, figures in samples.items():
        if not isinstance(figures, list) or not all(isinstance(f, number) for f in figures):
            raise ValueError(f"{name}: samples of {side} are no list of numbers")
    both = bool(samples.get("ours") and samples.get("peer"))
    if both != (fields["ratio"] is not None) or both != (fields["spread"] is not None):
        raise ValueError(f"{name}: a ratio needs samples of both sides, and they a ratio")
