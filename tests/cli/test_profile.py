"""The command profile: its table, its JSON, and what it keeps quiet about."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import shoestring
from tests.cli.conftest import ENVIRONMENT, Answer

NET = """
    import warnings

    import torch
    from torch import nn


    def model():
        print("building")
        warnings.warn("deprecated since yesterday")
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))


    def loss(output, batch):
        return output.square().mean()
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoestring", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=ENVIRONMENT,
    )


def test_the_json_is_what_the_library_says(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", NET)
    answer = command("profile", "net.py", "--batch", "32x64", "--machine", "h100", "--json")
    found = json.loads(answer.out)
    net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
    expected = shoestring.profile(
        net,
        torch.zeros(32, 64),
        optimizer=torch.optim.AdamW,
        loss=lambda y, x: y.square().mean(),
        machine="h100",
    )
    assert found == json.loads(expected.to_json())
    assert found["assumptions"] == []


def test_the_table_is_on_stdout_and_what_the_model_prints_is_not(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", NET)
    answer = command("profile", "net.py", "--batch", "32x64", "--machine", "h100")
    assert answer.err == "building\n"
    assert "building" not in answer.out
    assert "peak" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "per_parameter"), [("adamw", 8), ("adam", 8), ("sgd", 4), ("none", 0)]
)
def test_the_optimizer_is_the_named_one(
    command: Callable[..., Answer],
    write: Callable[[str, str], Path],
    name: str,
    per_parameter: int,
) -> None:
    write("net.py", NET)
    options = ("--machine", "this", "--optimizer", name, "--json")
    found = json.loads(command("profile", "net.py", "--batch", "4x64", *options).out)
    count = found["step"]["num_parameters"]
    assert count == 64 * 256 + 256 + 256 * 64 + 64
    state = sum(row["optimizer"] for row in found["modules"] if row["path"] == "")
    assert abs(state - per_parameter * count) <= 64  # step counters


def test_adafactor_keeps_rows_and_columns_only(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", NET)
    options = ("--machine", "h100", "--optimizer", "adafactor", "--json")
    found = json.loads(command("profile", "net.py", "--batch", "4x64", *options).out)
    (state,) = (row["optimizer"] for row in found["modules"] if row["path"] == "")
    assert 0 < state < found["step"]["num_parameters"]


def test_a_step_that_depends_on_data_is_run_with_data(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write(
        "net.py",
        NET
        + """

    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            y = self.layer(x)
            return y[y > 0].sum()
    """,
    )
    answer = command("profile", "net.py:Chosen", "--batch", "4x8", "--machine", "h100")
    assert "note: the step depends on data: it was traced once on a real copy" in answer.out
    assert answer.err == ""


def test_weights_that_do_not_fit_are_not_made(
    command: Callable[..., Answer],
    write: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(
        "net.py",
        """
        import torch


        class Chosen(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(8, 8)

            def forward(self, x):
                y = self.layer(x)
                return y[y > 0].sum()
    """,
    )
    monkeypatch.setattr("shoestring.measure.host.free_memory", lambda: 1000)
    answer = command("profile", "net.py", "--batch", "4x8", "--machine", "h100", code=2)
    assert "must be run once with weights" in answer.refusal[0]
    assert "1.69 KiB" in answer.refusal[0]  # six times 72 numbers of 4 bytes


def test_transformers_and_kineto_say_nothing(write: Callable[[str, str], Path]) -> None:
    pytest.importorskip("transformers")
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 50,
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "loss_type": None,
    }
    path = write("gpt/config.json", json.dumps(config))
    done = run(path.parents[1], "profile", "gpt", "--batch", "2x8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "GPT2LMHeadModel" in done.stdout


@pytest.mark.parametrize("name", ["profile", "plan"])
def test_help_needs_no_torch(tmp_path: Path, name: str) -> None:
    code = (
        "import sys; from shoestring.cli.app import main; code = main(sys.argv[1:])\n"
        "sys.exit(code or int('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert "--batch" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [("plan", "x.py", "--batch", "0x2"), ("plan", "x.py", "--batch", "2", "--memory", "2 gigs")],
)
def test_a_slip_is_told_before_torch_is_imported(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code = (
        "import sys; from shoestring.cli.app import main; code = main(sys.argv[1:])\n"
        "sys.exit(code + 100 * ('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert done.returncode == 2
