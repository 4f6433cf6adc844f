"""Run the line that the README opens with, and keep what it prints and how long it took."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Final

import torch

from bench.harness import RESULTS, ROOT, machine, source_hash
from shoestring.core.documents import write_text

SCHEMA: Final = "shoestring/bench/forwarded/1"
ROOMS: Final = ("activations", "cli", "core", "measure", "optim", "planner")
WORDS: Final = (
    "plan", "examples/llama-8b", "--batch", "4x2048", "--memory", "24GiB", "--machine", "rtx-4090",
    "--largest-batch",
)  # fmt: skip
BAR_SECONDS: Final = 10.0
RUNS: Final = 3


def main() -> int:
    """Run the line a few times; the least time counts, since others only add to it."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "shoestring", *WORDS],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
        if done.returncode not in (0, 3):
            sys.stderr.write(done.stderr)
            return 1
    result = {
        "schema": SCHEMA,
        "scenario": "forwarded",
        "command": "shoestring " + " ".join(WORDS),
        "output": done.stdout,
        "error": done.stderr,
        "exit_code": done.returncode,
        "samples": seconds,
        "limit": BAR_SECONDS,
        "rooms": list(ROOMS),
        "source_hash": source_hash(ROOMS),
        "machine": machine(),
        "torch": torch.__version__,
    }
    write_text(RESULTS / "forwarded.json", json.dumps(result, indent=1) + "\n")
    sys.stderr.write(f"{min(seconds):.1f} s at the least of {RUNS}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
