"""The tables that pages show, each made from the results of one scenario.

A figure whose code has changed since it was measured carries a dagger. A scenario without
results says that it was not run yet.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

from bench.attacks.table import TABLES as ATTACKS
from bench.counters.table import counters, flopco, speed, summary
from bench.harness import RESULTS, Result, has_changed, is_older, read_result
from bench.honesty_results import sources
from bench.remat.table import TABLES as REMAT
from bench.roofline_table import roofline
from bench.techniques_table import TECHNIQUES
from bench.trainers_table import trainers
from bench.zeroth.table import TABLES as ZEROTH
from shoestring.core.documents import read_document
from shoestring.core.units import format_bytes, format_seconds

Record: TypeAlias = dict[str, object]

HONESTY: Final = "shoestring/bench/honesty/1"
DEMO: Final = "shoestring/demo/1"
FORWARDED: Final = "shoestring/bench/forwarded/1"
NOT_RUN: Final = "*not run yet*"
OLDER: Final = "†"
FOOTNOTE: Final = "† measured with older code."
REFUSALS: Final = ("can't allocate memory", "std::bad_alloc", "MemoryError")
"""What an error says that ended a run for lack of memory."""
CLOSE: Final = 0.05
"""Error up to which a predicted peak counts as right."""


def honesty(results: Path = RESULTS) -> str:
    """Return the zoo's table, a row a model, with its summary.

    Args:
        results: folder of all results.
    """
    models = _by_model(_zoo_cells(results))
    if not models:
        return NOT_RUN
    lines = []
    for name, cells in models.items():
        rows = max(_whole(c["rows"]) for c in cells)
        shown = [c for c in cells if c["rows"] == rows and c["optimizer"] == "adamw"]
        lines.append([name, str(rows), *_peaks(shown), _worst(cells) + _dagger(cells)])
    head = ["model", "batch", "measured", "predicted", "error", "worst of all"]
    every = [cell for cells in models.values() for cell in cells]
    return "\n\n".join(
        [
            _grid(head, lines),
            "Batch: rows of the larger of two batches; measured, predicted and error: peak of a "
            "step with AdamW. Worst of all: the largest error over both batches and AdamW, SGD "
            "with momentum and Adafactor." + _footnote(every),
            _summary(every),
        ]
    )


def honesty_summary(results: Path = RESULTS) -> str:
    """Return the zoo's summary alone.

    Args:
        results: folder of all results.
    """
    cells = _zoo_cells(results)
    return _summary(cells) + _footnote(cells) if cells else NOT_RUN


def honesty_random(results: Path = RESULTS) -> str:
    """Return the drawn architectures, a row each, with seed and summary.

    Args:
        results: folder of all results.
    """
    parts = []
    for path in sorted((results / "honesty").glob("summary-random-*.json")):
        seed = path.stem.rpartition("-")[2]
        passed = _read(path.with_name(f"passed-over-{seed}.json"))
        drawn = [c for c in _cells(results) if "/" in str(c["case"]) and c["case"] not in passed]
        parts.append(_drawn(seed, drawn, len(set(passed) - {"schema", "seed"})))
    return "\n\n".join(parts) or NOT_RUN


def _drawn(seed: str, cells: Sequence[Record], passed: int) -> str:
    models = _by_model(cells)
    lines = []
    for name, own in models.items():
        task, _, kind = name.partition("/")
        right = "yes" if _close(own) else "**no**"
        lines.append([kind, task.replace("_", " ").lower(), _worst(own) + _dagger(own), right])
    good = sum(_close(own) for own in models.values())
    missed = ", ".join(n.partition("/")[2] for n, own in models.items() if not _close(own))
    return "\n\n".join(
        [
            _grid(["architecture", "task", "worst error", "within 5 %"], lines, left=2),
            f"{good} of {len(models)} architectures drawn with seed {seed} are within 5 % at two "
            "batches and with three optimizers"
            + (f"; missed: {missed}. " if missed else ". ")
            + f"{passed} more were drawn and passed over because their plain step did not run."
            + _footnote(cells),
        ]
    )


def peers(results: Path = RESULTS) -> str:
    """Return the error of each estimator over the zoo.

    Args:
        results: folder of all results.
    """
    found = _results(results, "peers")
    compared = [r for r in found if r.samples]
    if not compared:
        return NOT_RUN
    by_peer: dict[str, list[Result]] = {}
    for result in sorted(compared, key=_is_formula):
        by_peer.setdefault(result.peer, []).append(result)
    own = next(iter(by_peer.values()))
    lines = [["shoestring.profile", "trace without data", *_errors(own, "ours")]]
    for name, rows in by_peer.items():
        version = rows[0].peer_version.partition("+")[0]
        lines.append([f"{name} {version}", _kind(rows), *_errors(rows, "peer")])
    head = ["estimator", "kind", "median error", "worst error", "within 5 %"]
    text = [
        _grid(head, lines, left=2),
        "Size of the error of the peak of one training step, models of the zoo at the larger "
        "batch, AdamW, float32, one CPU thread." + _mark_footnote(compared),
    ]
    text += [f"{r.peer} {r.peer_version}: not compared; {r.note}." for r in found if not r.samples]
    return "\n\n".join(text)


def _is_formula(result: Result) -> bool:
    return result.peer_options["tensors"] == "none"


def _kind(rows: Sequence[Result]) -> str:
    if all(map(_is_formula, rows)):
        return "formula: 4 x parameters, no batch"
    real = sum(r.peer_options["tensors"] == "real" for r in rows)
    return "trace without data" + (f", {real} of {len(rows)} on real tensors" if real else "")


def _errors(rows: Sequence[Result], side: str) -> list[str]:
    errors = [r.samples[side][0] / r.samples["measured"][0] - 1 for r in rows if r.samples[side]]
    mark = OLDER if side == "ours" and any(map(is_older, rows)) else ""
    if not errors:
        return ["failed", "failed", f"0 of {len(rows)}"]
    middle = _percent(statistics.median(map(abs, errors)), sign=False)
    good = sum(abs(e) <= CLOSE for e in errors)
    return [middle + mark, _percent(max(errors, key=abs)), f"{good} of {len(rows)}"]


def trace_speed(results: Path = RESULTS) -> str:
    """Return the times to trace against the peer, and the bars.

    Args:
        results: folder of all results.
    """
    found = _results(results, "trace-speed")
    if not found:
        return NOT_RUN
    against = [r for r in found if r.peer != "bar"]
    bars = [r for r in found if r.peer == "bar"]
    text = []
    if against:
        text.append(
            _grid(
                ["step", "time, ours / peer", "10 to 90 %", "peer", "bar"],
                [[r.note, _ratio(r), _spread(r), r.peer, _verdict(r)] for r in against],
            )
        )
    if bars:
        text.append(
            _grid(
                ["step", "figure", "of at most", "bar"],
                [[r.note, *_of_bar(r), _verdict(r)] for r in bars],
            )
        )
    text.append(
        "Processor time of one thread, in turns; below 1 is faster than the peer."
        + _mark_footnote(found)
    )
    return "\n\n".join(text)


def _ratio(result: Result) -> str:
    mark = OLDER if is_older(result) else ""
    return "failed" if result.ratio is None else f"{result.ratio:.2f}{mark}"


def _spread(result: Result) -> str:
    return "" if result.spread is None else "{:.2f} to {:.2f}".format(*result.spread)


def _verdict(result: Result) -> str:
    return {None: "", True: "met", False: "**missed**"}[result.met]


def _of_bar(result: Result) -> tuple[str, str]:
    show: Callable[[float], str] = format_bytes if result.unit == "bytes" else format_seconds
    mark = OLDER if is_older(result) else ""
    return show(statistics.median(result.samples["ours"])) + mark, show(result.samples["peer"][0])


def forwarded(results: Path = RESULTS) -> str:
    """Return what one line prints about an 8B model, and how long it took against its bar.

    Args:
        results: folder of all results.
    """
    path = results / "forwarded.json"
    if not path.exists():
        return NOT_RUN
    document = read_document(path, FORWARDED)
    rooms = [str(room) for room in _items(document["rooms"])]
    older = has_changed(rooms, str(document["source_hash"]))
    took, most = statistics.median(_floats(document["samples"])), _number(document["limit"])
    cores = document["machine"].get("cores") if isinstance(document["machine"], dict) else None
    said = "\n\n".join(str(document[k]).strip("\n") for k in ("output", "error") if document[k])
    return (
        f"```text\n$ {document['command']}\n\n{said}\n```\n\n"
        f"Printed in {format_seconds(took)}{OLDER if older else ''} of at most "
        f"{format_seconds(most)}, Python's start included, on {cores} cores without a GPU: "
        f"{'met' if took <= most else '**missed**'}." + (f" {FOOTNOTE}" if older else "")
    )


def demo(results: Path = RESULTS) -> str:
    """Return the runs of the demo side by side, and what it claims.

    Args:
        results: folder of all results.
    """
    path = results / "demo.json"
    if not path.exists():
        return NOT_RUN
    document = read_document(path, DEMO)
    runs, claims = _records(document["runs"]), _records(document["claims"])
    plain = runs[0]
    rows = [
        ["enforced budget", *(_budget(run, document) for run in runs)],
        ["result", *map(_end, runs)],
        ["predicted peak", *(_size(run["predicted"]) for run in runs)],
        ["measured peak", *(_size(run["peak"]) for run in runs)],
        ["resident size", *(_size(run["resident"]) for run in runs)],
        ["time of a step, against plain", *(_slower(run, plain) for run in runs)],
        ["test accuracy", *(_share(run["accuracy"]) for run in runs)],
    ]
    grid = _grid(["", *(str(run["title"]) for run in runs)], rows)
    said = [
        f"- {'yes' if claim['holds'] else '**NO**'}: {claim['text']} ({claim['figure']})"
        for claim in claims
    ]
    return f"{grid}\n\n" + "\n".join(said)


def _budget(run: Record, document: Mapping[str, object]) -> str:
    return "none" if run["limit"] is None else _size(document["budget"])


def _end(run: Record) -> str:
    steps = len(_floats(run["seconds"]))
    if run["exit_code"] == 0:
        return f"finished {steps} steps"
    refused = any(text in str(run["error"]) for text in REFUSALS)
    return f"{'killed' if refused else 'failed'} in step {steps + 1}"


def _slower(run: Record, plain: Record) -> str:
    # The first steps make the optimizer's state, and the third is measured by events.
    own, base = _floats(run["seconds"])[3:], _floats(plain["seconds"])[3:]
    return f"{statistics.median(own) / statistics.median(base):.2f}" if own and base else ""


def _size(value: object) -> str:
    return "" if value is None else format_bytes(_number(value))


def _share(value: object) -> str:
    return "" if value is None else f"{_number(value):.1%}".replace("%", " %")


RENDERERS: Final[dict[str, Callable[[Path], str]]] = {
    "counters": counters,
    "counters-speed": speed,
    "counters-summary": summary,
    "demo": demo,
    "flopco": flopco,
    "forwarded": forwarded,
    "honesty": honesty,
    "honesty-random": honesty_random,
    "honesty-summary": honesty_summary,
    "peers": peers,
    "roofline": roofline,
    "trace-speed": trace_speed,
    "trainers": trainers,
    **ATTACKS,
    **REMAT,
    **TECHNIQUES,
    **ZEROTH,
}
"""Tables by the name that a page calls them by."""


# --- the honesty comparison's files ---------------------------------------------------------


def _zoo_cells(results: Path) -> list[Record]:
    return [cell for cell in _cells(results) if "/" not in str(cell["case"])]


def _cells(results: Path) -> list[Record]:
    documents = [_read(path) for path in sorted((results / "honesty").glob("*.json"))]
    return [d for d in documents if "optimizer" in d]


def _read(path: Path) -> Record:
    return read_document(path, HONESTY) if path.exists() else {}


def _by_model(cells: Sequence[Record]) -> dict[str, list[Record]]:
    models: dict[str, list[Record]] = {}
    for cell in sorted(cells, key=lambda c: (str(c["case"]), _whole(c["rows"]))):
        models.setdefault(str(cell["case"]), []).append(cell)
    return models


def _peaks(cells: Sequence[Record]) -> list[str]:
    if not cells:
        return ["", "", "not run"]
    shown = []
    for side in ("measured", "predicted"):
        document = cells[0].get(side)
        peak = document.get("peak") if isinstance(document, dict) else None
        shown.append(_size(peak) or "failed")
    return [*shown, _percent(_number(cells[0]["error"])) if "error" in cells[0] else ""]


def _worst(cells: Sequence[Record]) -> str:
    if any("error" not in cell for cell in cells):
        return "failed"
    return _percent(max((_number(cell["error"]) for cell in cells), key=abs))


def _close(cells: Sequence[Record]) -> bool:
    return all("error" in c and abs(_number(c["error"])) <= CLOSE for c in cells)


def _summary(cells: Sequence[Record]) -> str:
    from bench.honesty_results import BELOW, WITHIN, WITHIN_ABOVE_STATIC, summarise

    found = summarise(cells)
    misses = [
        f"{miss['case']}, {miss['rows']} rows, {miss['optimizer']}: "
        + "; ".join(map(str, miss["miss"] if isinstance(miss["miss"], list) else []))
        for miss in _records(found["misses"])
    ]
    return (
        f"**{found['models_passing']} of {found['models']} models** pass in every cell: peak "
        f"within {WITHIN:.0%} of the measured one, what is above the standing bytes within "
        f"{WITHIN_ABOVE_STATIC:.0%}, never more than {BELOW:.0%} below. Over all "
        f"{found['cells']} cells {found['cells_within_5_percent']} peaks are within "
        f"{WITHIN:.0%}. ".replace("%", " %")
        + (f"Missed: {' | '.join(misses)}." if misses else "None missed.")
    )


def _dagger(cells: Sequence[Record]) -> str:
    return OLDER if any(_is_older(cell) for cell in cells) else ""


def _footnote(cells: Sequence[Record]) -> str:
    return f" {FOOTNOTE}" if _dagger(cells) else ""


def _mark_footnote(results: Sequence[Result]) -> str:
    return f" {FOOTNOTE}" if any(map(is_older, results)) else ""


def _is_older(cell: Record) -> bool:
    return cell.get("source_hash") != _honesty_hash(str(cell.get("torch")))


@cache
def _honesty_hash(torch_version: str) -> object:
    return sources(torch_version)["source_hash"]


# --- small things ----------------------------------------------------------------------------


def _results(results: Path, folder: str) -> list[Result]:
    return [read_result(path) for path in sorted((results / folder).glob("*.json"))]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Return a table whose first columns hold text and the others figures."""
    lines = [head, ["---" if place < left else "--:" for place in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percent(share: float, *, sign: bool = True) -> str:
    text = f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text) + " %"


def _items(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"not a list: {json.dumps(value)[:100]}")
    return value


def _records(value: object) -> list[Record]:
    return [dict(item) for item in _items(value) if isinstance(item, dict)]


def _floats(value: object) -> list[float]:
    return [_number(item) for item in _items(value)]


def _number(value: object) -> float:
    return float(str(value))


def _whole(value: object) -> int:
    return int(str(value))
