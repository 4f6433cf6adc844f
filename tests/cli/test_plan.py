"""The command plan: tables, matrix, JSON, the file it saves, and the line people forward."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shoestring import Plan
from shoestring.core.units import format_bytes
from shoestring.measure.timing.machines import load_machine
from tests.cli.conftest import ENVIRONMENT, Answer

EXAMPLE = Path(__file__).parents[2] / "examples" / "llama-8b"

NET = """
    import torch
    from torch import nn


    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(32, 128), nn.Linear(128, 32)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(6))

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x


    def loss(output, batch):
        return output.square().mean()
"""

OPTIONS = ("net.py:Net", "--batch", "2048x32", "--machine", "this")


@pytest.fixture
def net(write: Callable[[str, str], Path]) -> Path:
    return write("net.py", NET)


def test_a_plan_that_fits_is_saved_and_loads(
    command: Callable[..., Answer], net: Path, folder: Path
) -> None:
    answer = command("plan", *OPTIONS, "--memory", "60%", "--out", "plan.json")
    assert answer.err == ""
    plan = Plan.load(folder / "plan.json")
    assert plan.steps
    assert plan.budget is not None
    assert plan.predicted.footprint <= plan.budget == int(0.6 * plan.plain.footprint)
    assert answer.out == plan.table() + "\n"
    assert sorted(p.name for p in folder.iterdir()) == ["net.py", "plan.json"]


def test_the_json_is_the_plan_itself(
    command: Callable[..., Answer], net: Path, folder: Path
) -> None:
    answer = command("plan", *OPTIONS, "--memory", "60%", "--json")
    (folder / "copy.json").write_text(answer.out)
    assert Plan.load(folder / "copy.json").to_json() + "\n" == answer.out


def test_without_a_budget_the_machines_memory_is_it(
    command: Callable[..., Answer], net: Path
) -> None:
    options = ("net.py:Net", "--batch", "64x32", "--machine", "l4", "--json")
    found = json.loads(command("plan", *options).out)
    assert found["budget"] == load_machine("l4").memory
    assert found["steps"] == []


def test_several_budgets_are_a_matrix(command: Callable[..., Answer], net: Path) -> None:
    options = ("--memory", "100%", "--memory", "60%", "--memory", "1%", "--largest-batch")
    answer = command("plan", *OPTIONS, *options)
    documents = json.loads(command("plan", *OPTIONS, *options, "--json").out)
    assert documents["schema"] == "shoestring/plans/1"
    assert len(documents["plans"]) == 3
    assert max(map(len, answer.out.splitlines())) <= 100
    head = next(line for line in answer.out.splitlines() if "step time" in line)
    for document in documents["plans"]:
        assert format_bytes(document["budget"]) in head
    plain = next(line for line in answer.out.splitlines() if line.strip().startswith("plain"))
    # 100 %: the plan, and 2048 rows are all that fits; less memory does not hold this batch.
    assert "plan 2048" in plain
    assert plain.count("(") == 2
    # One of the budgets is out of reach: told on stderr, with exit code 0.
    (note,) = answer.err.splitlines()
    assert note.startswith("note: no exact plan meets")


def test_no_budget_that_can_be_met_is_code_3(command: Callable[..., Answer], net: Path) -> None:
    answer = command("plan", *OPTIONS, "--memory", "2%", "--memory", "1%", "--json", code=3)
    assert "the least reachable is" in answer.refusal[0]
    assert len(json.loads(answer.out)["plans"]) == 2


@pytest.mark.parametrize("memory", ["100%", "60%", "1%"])
def test_the_table_is_at_most_100_columns_wide(
    command: Callable[..., Answer], net: Path, memory: str
) -> None:
    code = 3 if memory == "1%" else 0
    answer = command("plan", *OPTIONS, "--memory", memory, "--largest-batch", code=code)
    assert max(map(len, answer.out.splitlines())) <= 100
    assert "Net, AdamW, on this: budget" in answer.out
    assert [line for line in answer.out.splitlines() if line.startswith("> ")]


def test_the_line_people_forward() -> None:
    pytest.importorskip("transformers")
    options = ("--batch", "4x2048", "--memory", "24GiB", "--machine", "rtx-4090")
    done = subprocess.run(
        [sys.executable, "-m", "shoestring", "plan", str(EXAMPLE), *options, "--largest-batch"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    # Full AdamW on 8B weights fits no 24 GiB card: exit code 3, and what would fit in the hint.
    assert done.returncode == 3
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: no exact plan meets 24.0 GiB: the least reachable is")
    assert "LoRA" in hint
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "LlamaForCausalLM, AdamW, on rtx-4090: budget 24.0 GiB"
    rows = {line[2:].split("  ")[0]: line.split() for line in lines}
    assert any(re.fullmatch(r"\+ recompute \d+ operations", label) for label in rows)
    for label in (
        "plain",
        "+ cross-entropy of lm_head in chunks",
        "... + LoRA, rank 16",
        "... + 4-bit base (NF4) + LoRA, rank 16",
        "zeroth-order (two forward passes)",
    ):
        assert label in rows, done.stdout
        fits, largest = rows[label][-2:]
        assert fits in ("yes", "no")
        assert (int(largest) >= 4) == (fits == "yes"), label
    # 8.03e9 weights, gradients and two moments of 2 bytes: 59.8 GiB before any activation.
    peak = float(rows["plain"][1])
    assert rows["plain"][2] == "GiB"
    assert peak > 59.8
    assert "not yet measured on CUDA" in done.stdout
