"""Files and summary of the honesty comparison."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import torch

from bench.harness import files_of

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results" / "honesty"

WITHIN: Final = 0.05
"""Largest error of the whole peak."""
WITHIN_ABOVE_STATIC: Final = 0.10
"""Largest error of the peak minus what is there all the time."""
BELOW: Final = 0.02
"""A prediction is never further than this below the measured peak."""

Record: TypeAlias = dict[str, object]


def read(path: Path) -> Record:
    """Return a result, empty where there is none that can be read.

    Args:
        path: of the file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write(path: Path, document: Record) -> None:
    """Write a result aside, then put it in place.

    Args:
        path: of the file.
        document: its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)


ROOMS: Final = ("activations", "core", "measure", "planner")
"""Rooms that a prediction depends on."""


def sources(torch_version: str = torch.__version__) -> Record:
    """Return hashes of all that a result depends on, and of what its measurement depends on.

    Args:
        torch_version: of the torch that measured; a page is the same under any other.
    """
    measuring = [
        *(p for p in sorted((ROOT / "tests" / "zoo").glob("*.py")) if "test_" not in p.name),
        ROOT / "bench" / "architectures.py",
        ROOT / "bench" / "honesty_measure.py",
        ROOT / "src" / "shoestring" / "measure" / "tracing" / "allocator.py",
        ROOT / "src" / "shoestring" / "measure" / "_torch.py",
    ]
    package = sorted(path for room in ROOMS for path in files_of(room))
    return {
        "source_hash": _digest([*measuring, *package], torch_version),
        "measure_hash": _digest(measuring, torch_version),
    }


def _digest(paths: Iterable[Path], torch_version: str) -> str:
    digest = hashlib.sha256(torch_version.encode())
    for path in paths:
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def summarise(results: Sequence[Record]) -> Record:
    """Return counts, spread and misses of a comparison.

    A model passes where every one of its cells is within the bounds.

    Args:
        results: documents of the cells.
    """
    cells = [_judge(result) for result in results]
    models: dict[str, list[Record]] = {}
    for cell in cells:
        models.setdefault(str(cell["case"]), []).append(cell)
    passing = [name for name, rows in models.items() if all(not row["miss"] for row in rows)]
    errors = [float(str(c["error"])) for c in cells if "error" in c]
    above = [float(str(c["error_above_static"])) for c in cells if "error" in c]
    return {
        "cells": len(cells),
        "models": len(models),
        "models_passing": len(passing),
        "models_missing": sorted(set(models) - set(passing)),
        "cells_compared": len(errors),
        "cells_within_5_percent": sum(abs(e) <= WITHIN for e in errors),
        "cells_above_static_within_10_percent": sum(abs(e) <= WITHIN_ABOVE_STATIC for e in above),
        "cells_not_2_percent_below": sum(e >= -BELOW for e in errors),
        "models_within_5_percent": _count(models, "error", -WITHIN, WITHIN),
        "models_above_static_within_10_percent": _count(
            models, "error_above_static", -WITHIN_ABOVE_STATIC, WITHIN_ABOVE_STATIC
        ),
        "models_not_2_percent_below": _count(models, "error", -BELOW, float("inf")),
        "error": _spread(errors),
        "error_above_static": _spread(above),
        "misses": [cell for cell in cells if cell["miss"]],
    }


def _judge(result: Record) -> Record:
    cell: Record = {key: result.get(key) for key in ("case", "rows", "optimizer")}
    if "error" not in result:
        sides = [result.get(side) for side in ("measured", "predicted")]
        errors = [str(s["error"]) for s in sides if isinstance(s, dict) and "error" in s]
        return {**cell, "miss": errors or ["no result"]}
    error = float(str(result["error"]))
    above = float(str(result["error_above_static"]))
    miss = []
    if abs(error) > WITHIN:
        miss.append(f"peak {error:+.1%}")
    if abs(above) > WITHIN_ABOVE_STATIC:
        miss.append(f"above static {above:+.1%}")
    if error < -BELOW:
        miss.append(f"below by {-error:.1%}")
    return {**cell, "error": error, "error_above_static": above, "miss": miss}


def _count(models: dict[str, list[Record]], key: str, low: float, high: float) -> int:
    return sum(
        all(key in cell and low <= float(str(cell[key])) <= high for cell in cells)
        for cells in models.values()
    )


def _spread(errors: Sequence[float]) -> dict[str, float]:
    if not errors:
        return {}
    return {
        "least": min(errors),
        "median": statistics.median(errors),
        "most": max(errors),
        "median_size": statistics.median(map(abs, errors)),
    }
