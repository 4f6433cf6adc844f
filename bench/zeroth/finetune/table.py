"""The table of the fine-tuning: what each method gains over the linear probe."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Final

from bench.harness import RESULTS
from shoestring.core.documents import read_document
from shoestring.core.units import format_bytes

SCHEMA: Final = "shoestring/bench/zeroth-finetune/1"
FOLDER: Final = "zeroth-finetune"
MODES: Final = {"full": "all but embeddings", "lora": "LoRA and head", "head": "head alone"}
ASKED: Final = {"loss": "", "accuracy": ", asked for accuracy"}
NOT_RUN: Final = "*not run yet*"


def finetune(results: Path = RESULTS) -> str:
    """Return accuracy, gain, forward passes, time and memory of each method and mode.

    Args:
        results: folder of all results.
    """
    from bench.zeroth.finetune.methods import METHODS
    from bench.zeroth.finetune.sources import sources

    lines = []
    older = False
    for mode, words in MODES.items():
        # Beside the optimizer that does least besides its forward passes.
        two_forwards = [_seconds(run) for run in whole(results, mode, "zosgd", "loss")]
        for (name, method), metric in itertools.product(METHODS.items(), ASKED):
            runs = whole(results, mode, name, metric)
            if not runs:
                continue
            older |= any(run["source_hash"] != sources(method.module) for run in runs)
            tests = [_accuracy(run["test"]) for run in runs]
            gains = [_accuracy(run["test"]) - _accuracy(run["probe"]) for run in runs]
            first = runs[0]
            times = statistics.median(map(_seconds, runs)) / statistics.median(two_forwards or [1])
            lines.append(
                [
                    words,
                    method.title + ASKED[metric],
                    f"{statistics.fmean(tests):.1f}",
                    f"{statistics.fmean(gains):+.1f}",
                    f"{min(gains):+.1f} to {max(gains):+.1f}",
                    str(len(runs)),
                    str(_whole_number(first, "evaluations") * _whole_number(first, "steps"))
                    if method.evaluations
                    else "with backward",
                    f"{times:.2f}" if two_forwards and metric == "loss" else "",
                    format_bytes(_whole_number(first, "state_bytes")),
                ]
            )
    if not lines:
        return NOT_RUN
    head = ["trained", "method", "test accuracy", "gain", "of seeds", "seeds"]
    head += ["forward passes", "time", "optimizer state"]
    rule = ["---", "---", *["--:"] * (len(head) - 2)]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
    said = (
        "MiniLM on tweets of three classes: 6,000 to train, 1,000 to choose by, 2,000 to test, "
        "32 word pieces; 3,000 steps of 16 rows at one rate from a linear probe, which the gain is "
        "over, in points. Each method has the same tuning: 8 rates at 150 steps, the best 3 at "
        "600, by the loss on the rows to choose by. Time: processor time of the steps, in that of "
        "ZOSGD's. An accuracy that is asked for is that of 1,000 rows, in place of the loss."
    )
    return f"{grid}\n\n{said}" + (" † measured with older code." if older else "")


def _accuracy(score: object) -> float:
    """Return the accuracy of a pair of loss and accuracy, in percent."""
    assert isinstance(score, list)
    return 100 * float(score[1])


def _whole_number(run: dict[str, object], name: str) -> int:
    return int(str(run[name]))


def _seconds(run: dict[str, object]) -> float:
    return float(str(run["seconds"]))


def whole(results: Path, mode: str, method: str, metric: str) -> list[dict[str, object]]:
    """Return the runs that were scored on the test part.

    Args:
        results: folder of all results.
        mode: of `MODES`.
        method: of `METHODS`.
        metric: what was asked for.
    """
    paths = sorted((results / FOLDER / mode / method).glob("*.json"))
    found = [dict(read_document(path, SCHEMA)) for path in paths]
    return [run for run in found if run["test"] is not None and run["metric"] == metric]
