"""What FlopCo does beside counting multiply-adds: the bias of a layer, and a model's hooks.

    python -m bench.counters.flopco

prints both as JSON, on the Python that has FlopCo installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import torch
from torch import nn

from bench.counters.environment import Environment
from bench.counters.records import ROOMS
from bench.harness import RESULTS, ROOT, source_hash
from shoestring.core.documents import write_text

SCHEMA: Final = "shoestring/bench/flopco/1"
INPUTS: Final = 10
OUTPUTS: Final = 3


def by_hand() -> int:
    """Return the FLOPs of a linear layer on one row: multiply-adds twice, and one a bias."""
    return 2 * INPUTS * OUTPUTS + OUTPUTS


def _linear() -> tuple[nn.Module, torch.Tensor, list[str]]:
    """Return a layer with a hook of the user's, its input, and the hook's calls."""
    model, called = nn.Sequential(nn.Linear(INPUTS, OUTPUTS)), []
    model[0].register_forward_hook(lambda *_: called.append("once"))
    return model, torch.ones(1, INPUTS), called


def reference() -> dict[str, object]:
    """Return FLOPs and whether the user's hook is still called, by FlopCo."""
    from flopco import FlopCo

    model, x, called = _linear()
    flops = FlopCo(model, custom_tensor=[x]).total_flops
    called.clear()
    model(x)
    return {"flops": flops, "keeps_hooks": bool(called)}


def ours() -> dict[str, object]:
    """Return the same by `shoestring.measure.count`."""
    from shoestring.measure.counting.count import count

    model, x, called = _linear()
    with count(model) as counted:
        model(x)
    called.clear()
    model(x)
    return {"flops": counted.flops + counted.elementwise_flops, "keeps_hooks": bool(called)}


def path_of(results: Path = RESULTS) -> Path:
    """Return where the comparison is kept.

    Args:
        results: folder of all results.
    """
    return results / "flopco.json"


def compare(environment: Environment, *, results: Path = RESULTS) -> None:
    """Compare, and write the result; where FlopCo is not installed, write nothing.

    Args:
        environment: FlopCo lives in.
        results: folder of all results.
    """
    before = source_hash(ROOMS)
    done = subprocess.run(
        [str(environment.python), "-m", "bench.counters.flopco"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"FlopCo: {done.stderr.splitlines()[-1:]}", file=sys.stderr)
        return
    document = {
        "schema": SCHEMA,
        "layer": f"Linear({INPUTS}, {OUTPUTS})",
        "hand": by_hand(),
        "ours": ours(),
        "reference": json.loads(done.stdout),
        "rooms": list(ROOMS),
        "source_hash": before,
        "torch": torch.__version__,
        "command": "python -m bench.counters.correctness",
    }
    write_text(path_of(results), json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = reference()
    print(json.dumps(found))
