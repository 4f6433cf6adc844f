"""What each technique saves and costs on models of the zoo, measured and predicted.

    python -m bench.techniques [--again] [TECHNIQUE ...]

One file a technique goes to ``bench/results/techniques/``: a row a model with the peak of a
steady step plain and with the technique, the predicted peak, and the processor time of a step
against plain, in turns on one thread. A result that stands and whose sources have not changed
is kept.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from bench.harness import RESULTS, machine, one_thread, source_hash
from bench.techniques_measure import PARTS, Cell, Record, measure
from bench.techniques_reported import SIDES
from bench.techniques_table import SCHEMA
from shoestring.core.documents import read_document, write_text
from shoestring.core.errors import ShoestringError
from shoestring.planner.techniques import technique_classes

ROOMS: Final = ("activations", "core", "measure", "optim", "planner")
LIBRARIES: Final = ("transformers", "peft", "bitsandbytes")
UNTIMED: Final = {"offload", *SIDES}
"""Where a CPU says nothing about the time on a card."""

FOREACH: Final = "foreach AdamW"
CELLS: Final[dict[str, tuple[Cell, ...]]] = {
    "remat": (
        Cell("gpt2", 24), Cell("llama", 24), Cell("vit", 24), Cell("resnet", 16),
        Cell("whisper", 2),
    ),
    "chunked-loss": (Cell("llama", 24), Cell("gemma", 24), Cell("gpt2", 24), Cell("t5", 16)),
    "micro-batches": (
        Cell("lstm", 64), Cell("gpt2", 24), Cell("bert", 24), Cell("vit", 24), Cell("whisper", 2),
    ),
    "offload": (
        Cell("bert", 24), Cell("llama", 24), Cell("unet", 12), Cell("resnet", 16),
        Cell("whisper", 2),
    ),
    "sliced-step": (
        Cell("vit", 1, FOREACH), Cell("t5", 1, FOREACH), Cell("bert", 1, FOREACH),
        Cell("bert", 1), Cell("bert", 24),
    ),
    "release-gradients": (
        Cell("tabular", 2), Cell("bert", 1), Cell("llama", 1), Cell("resnet", 1), Cell("bert", 24),
    ),
    "bf16": (
        Cell("unet", 12), Cell("resnet", 16), Cell("gpt2", 24), Cell("bert", 24), Cell("t5", 16),
    ),
    "lora": (Cell("llama", 4), Cell("bert", 4), Cell("t5", 4), Cell("vit", 24)),
    "nf4": (Cell("vit", 4), Cell("bert", 4), Cell("llama", 4), Cell("bert", 24)),
    "adam8bit": (
        Cell("bert", 4), Cell("llama", 4), Cell("resnet", 4), Cell("lstm", 8), Cell("gpt2", 24),
    ),
    "zeroth-order": (
        Cell("bert", 24), Cell("gpt2", 24), Cell("llama", 24), Cell("resnet", 16),
        Cell("unet", 12),
    ),
}  # fmt: skip
"""The steps of each technique: where it acts, and where it hardly helps."""

NOTES: Final[dict[str, str]] = {
    "remat": "The choice that takes least memory.",
    "chunked-loss": "The vocabulary of these models has 2,000 entries; a larger one gives more.",
    "micro-batches": f"{PARTS} parts, or one a row where there are fewer rows.",
    "offload": (
        "The copies that wait are kept where torch's allocator does not count them, as on a "
        "card; the time on a card is that of its link, of which a CPU says nothing."
    ),
    "sliced-step": (
        "Foreach is torch's default on a card. Where the peak is in the backward, as at the "
        "larger batch, the step's temporaries do not matter. A step of one row is short, and "
        "the calls for each parameter are a larger share of it."
    ),
    "release-gradients": (
        "Where the peak is at the start of the backward, as at the larger batch, no gradient is "
        "there yet. A step of one row is short, and the calls for each parameter are a larger "
        "share of it."
    ),
    "bf16": "No time is shown: what a CPU gains or loses says nothing about a card.",
    "lora": "No time is shown: that of a CPU says nothing about a card.",
    "nf4": "No time is shown: bitsandbytes dequantises in another way on a CPU than on a card.",
    "adam8bit": "No time is shown: bitsandbytes has other kernels on a CPU than on a card.",
    "zeroth-order": (
        "No time is shown: a step is another one, and more are needed. With it: two forward "
        "passes without gradients."
    ),
}
"""What else a page must say about its figures."""


def folder(results: Path = RESULTS) -> Path:
    """Return where the results of this scenario are kept.

    Args:
        results: folder of all results.
    """
    return results / "techniques"


def make(name: str, *, results: Path = RESULTS, again: bool = False) -> Record:
    """Make one technique's result, or keep the one that stands.

    Args:
        name: of the technique.
        results: folder of all results.
        again: whether a result that stands is made anew.

    Returns:
        The document, which is written as well.
    """
    path = folder(results) / f"{name}.json"
    hashed = source_hash(ROOMS)  # before, so that what is edited meanwhile makes it older
    old = {} if again else _read(path)
    if _stands(old, name, hashed):
        _say(f"{name} stands")
        return old
    rows = []
    for cell in CELLS[name]:
        rows.append(measure_row(name, cell))
        _say(f"{name} {_line(rows[-1])}")
    document: Record = {
        "schema": SCHEMA,
        "scenario": "techniques",
        "technique": name,
        "rows": rows,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "rooms": list(ROOMS),
        "source_hash": hashed,
        "machine": machine(),
        "torch": torch.__version__,
        "libraries": {library: _version(library) for library in LIBRARIES},
        "command": f"python -m bench.techniques {name}",
        "note": NOTES[name],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=1) + "\n")
    return document


def measure_row(name: str, cell: Cell) -> Record:
    """Return one row; a step that fails is a result too, and the others go on.

    Args:
        name: of the technique.
        cell: the step.
    """
    kind = next(kind for kind in technique_classes() if kind.name == name)
    try:
        return measure(cell, kind, side=SIDES.get(name), timed=name not in UNTIMED)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told and written
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return {
            "model": cell.model,
            "batch": cell.rows,
            "optimizer": cell.optimizer,
            "error": text[:300],
        }


def _read(path: Path) -> Record:
    try:
        return read_document(path, SCHEMA)
    except ShoestringError:
        return {}


def _stands(old: Record, name: str, hashed: str) -> bool:
    """Whether a result is of these sources, this torch, these steps, and complete."""
    if old.get("source_hash") != hashed or old.get("torch") != torch.__version__:
        return False
    rows = old.get("rows")
    if not isinstance(rows, list) or any("error" in row for row in rows):
        return False
    cells = [Cell(row["model"], row["batch"], row["optimizer"]) for row in rows]
    return cells == list(CELLS[name]) and old.get("note") == NOTES[name]


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _line(row: Record) -> str:
    name = f"{row['model']} {row['batch']} {row['optimizer']}"
    if "error" in row:
        return f"{name}: {row['error']}"
    plain, measured, predicted = (float(str(row[k])) for k in ("plain", "measured", "predicted"))
    text = f"{name}: {measured / plain:.2f} of plain, predicted {predicted / measured - 1:+.1%}"
    if row["time_ratio"] is None:
        return text
    ratio, expected = (float(str(row[k])) for k in ("time_ratio", "predicted_time_ratio"))
    return f"{text}, time {ratio:.2f}, predicted {expected:.2f}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the techniques whose results are missing or old.

    Args:
        arguments: of the command line.

    Returns:
        0, or 1 where a step failed.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("techniques", nargs="*", metavar="TECHNIQUE", help=", ".join(CELLS))
    parser.add_argument("--again", action="store_true", help="make results that stand as well")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.techniques if name not in CELLS]:
        parser.error(f"there is no technique {unknown[0]!r}: choose from {', '.join(CELLS)}.")
    one_thread()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        # What an earlier version found out about kernels is not believed.
        os.environ["SHOESTRING_CACHE"] = cache
        warnings.simplefilter("ignore")
        made = [make(name, again=options.again) for name in options.techniques or CELLS]
    rows = [
        row for document in made if isinstance(found := document["rows"], list) for row in found
    ]
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
