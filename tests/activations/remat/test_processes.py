"""Two processes: DistributedDataParallel gives the same gradients, and FSDP is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import shoestring

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("torch was built without gloo", allow_module_level=True)

ROOT = Path(__file__).parents[3]
SOURCE = str(Path(shoestring.__file__).resolve().parents[1])

Results = list[dict[str, object]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run both processes once, and return what each found."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((SOURCE, str(ROOT))),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-W", "ignore", "-m", "tests.activations.remat.processes"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=150)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def test_gradients_are_those_of_the_plain_wrapper(results: Results) -> None:
    for found in results:
        assert "error" not in found, found["error"]
        assert found["overhead"] > 0
        assert found["exchanged"]
        assert found["ddp False"]
        assert found["ddp True"]
        assert found["captures"] <= 3


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sharded_model_is_refused_by_name(when: str, part: bool, results: Results) -> None:
    for found in results:
        text = str(found[f"fit {when} {part}"])
        assert "sharded by FSDP" in text
        assert "hint:" in text
