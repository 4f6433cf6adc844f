"""The command count: its table, JSON, CSV and page, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import shoestring
from shoestring.measure.counting.counts import Count
from tests.cli.conftest import ENVIRONMENT, Answer

NET = """
    import torch
    from torch import nn


    def model():
        print("building")
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))


    def loss(output, batch):
        return output.square().mean()
"""
BARE = """
    import torch
    from torch import nn


    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)
            self.requires_grad_(False)

        def forward(self, x):
            return self.layer(x).argmax(-1)
"""
GPT = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 50,
    "n_embd": 16,
    "n_layer": 4,
    "n_head": 2,
}
FORWARD = 2 * 32 * 64 * 256 * 2


def test_it_counts_what_the_library_counts(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", NET)
    answer = command("count", "net.py", "--batch", "32x64", "--json")
    assert answer.err == "building\n"
    found = Count.from_json(answer.out)
    net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64))
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.zeros(32, 64)
    net(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    with shoestring.count(net) as c:
        net(x).square().mean().backward()
        optimizer.step()
    assert found.params == c.params
    for phase, cost in c.by_phase().items():
        same = found.by_phase()[phase]
        assert (same.flops, same.macs) == (cost.flops, cost.macs)
        assert same.elementwise_flops == cost.elementwise_flops
    # The optimizer reads its four counters of 4 bytes, whose values the command assumes.
    assert c.total.bytes - found.total.bytes == 4 * 4
    assert found.counted.title == "Sequential, 32x64 float32: forward + backward + AdamW"


def test_the_table_is_on_stdout_without_colour(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", NET)
    answer = command("count", "net.py", "--batch", "32x64", "--optimizer", "none")
    assert answer.err == "building\n"
    assert "\x1b" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= 100
    heads = [line.split()[0] for line in answer.out.splitlines() if "element-wise" in line]
    assert heads == ["module", "phase", "operator"]
    assert "optimizer" not in answer.out


def test_the_forward_alone_needs_neither_a_loss_nor_trained_parameters(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("bare.py", BARE)
    answer = command("count", "bare.py", "--batch", "5x8", "--forward", "--json")
    found = Count.from_json(answer.out)
    assert answer.err == ""
    assert found.macs == 5 * 8 * 4
    assert set(found.by_op()) == {"aten.addmm", "aten.argmax"}
    assert found.activation_bytes == 0
    refused = command("count", "bare.py", "--batch", "5x8", code=2).refusal
    assert "no trainable parameter" in refused[0]
    assert "--forward" in refused[1]


def test_a_configuration_is_enough(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    pytest.importorskip("transformers")
    write("gpt/config.json", json.dumps(GPT))
    answer = command("count", "gpt", "--batch", "2x8", "--forward", "--depth", "3")
    assert "transformer.h.0 … 3 (4)" in answer.out or "h.0 … 3 (4)" in answer.out
    found = Count.from_json(command("count", "gpt", "--batch", "2x8", "--forward", "--json").out)
    layer = 2 * 8 * 12 * 16 * 16 + 2 * 2 * 8 * 8 * 16
    assert found.macs == 4 * layer + 2 * 8 * 16 * 50


@pytest.mark.parametrize("by", ["module", "phase", "op"])
def test_one_kind_of_line(
    command: Callable[..., Answer], write: Callable[[str, str], Path], by: str
) -> None:
    write("net.py", NET)
    options = ("--batch", "32x64", "--by", by)
    table = command("count", "net.py", *options).out
    assert sum("element-wise" in line for line in table.splitlines()) == 1
    lines = list(csv.DictReader(io.StringIO(command("count", "net.py", *options, "--csv").out)))
    forward = {"module": "0", "phase": "forward", "op": "aten.addmm"}[by]
    (line,) = [line for line in lines if line[by] == forward]
    assert int(line["flops"]) >= FORWARD // 2


def test_the_csv_has_every_kind_of_call(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", NET)
    lines = list(
        csv.DictReader(io.StringIO(command("count", "net.py", "--batch", "32x64", "--csv").out))
    )
    forward = [line for line in lines if line["phase"] == "forward"]
    assert sum(int(line["flops"]) for line in forward) == FORWARD
    assert {line["known"] for line in lines} == {"true"}


def test_the_page_is_written_and_replaces_only_its_like(
    command: Callable[..., Answer], write: Callable[[str, str], Path], folder: Path
) -> None:
    net = write("net.py", NET)
    for _ in range(2):
        answer = command("count", "net.py", "--batch", "32x64", "--html", "count.html")
        assert answer.out == "count.html\n"
    assert (folder / "count.html").read_text().startswith("<!doctype html>")
    refused = command("count", "net.py", "--batch", "32x64", "--html", str(net), code=2).refusal
    assert "is there already, and is no count" in refused[0]


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("net.py",), "batch", "--help"),
        (("net.py", "--batch", "32by64"), "not a batch specification", "32x64"),
        (("net.py", "--batch", "0x64"), "size of zero", "1 up"),
        (("net.py", "--batch", "32x63"), "the step raised", "--batch"),
        (("net.py", "--batch", "32x64", "--dtype", "float33"), "not a dtype", "float32"),
        (("net.py", "--batch", "32x64", "--machine", "abacus"), "abacus", "this"),
        (("net.py", "--batch", "32x64", "--optimizer", "magic"), "magic", "--help"),
        (("net.py", "--batch", "32x64", "--by", "colour"), "colour", "--help"),
        (("net.py", "--batch", "32x64", "--depth", "-1"), "depth of -1", "0"),
        (("net.py", "--batch", "32x64", "--json", "--csv"), "only one of", "JSON"),
        (("net.py", "--batch", "32x64", "--json", "--depth", "3"), "--depth would have no", "out"),
        (("net.py", "--batch", "32x64", "--json", "--by", "op"), "--by would have no", "out"),
        (("net.py", "--batch", "32x64", "--by", "op", "--depth", "1"), "--depth would", "out"),
        (("net.py", "--batch", "2x64", "--forward", "--optimizer", "sgd"), "--optimizer", "out"),
        (("net.py", "--batch", "2x64", "--html", "gone/page.html"), "cannot be written", "folder"),
        (("empty.py", "--batch", "2x64"), "holds no function or model", "model()"),
        (("gone.py", "--batch", "2x64"), "no file 'gone.py'", "path"),
        (("nowhere:model", "--batch", "2x64"), "no module 'nowhere'", "working folder"),
    ],
)
def test_bad_input_is_two_lines(
    command: Callable[..., Answer],
    write: Callable[[str, str], Path],
    arguments: tuple[str, ...],
    error: str,
    hint: str,
) -> None:
    write("net.py", NET.replace('print("building")', "pass"))
    write("empty.py", "")
    found = command("count", *arguments, code=2).refusal
    assert error in found[0]
    assert hint in found[1]


def test_another_dtype(command: Callable[..., Answer], write: Callable[[str, str], Path]) -> None:
    write(
        "net.py",
        """
        from torch import nn


        def model():
            return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))
    """,
    )
    arguments = ("net.py", "--batch", "3x5", "--dtype", "int64", "--forward", "--json")
    assert Count.from_json(command("count", *arguments).out).macs == 3 * 5 * 4 * 2
    half = ("net.py:half", "--batch", "3x4", "--dtype", "bfloat16", "--forward", "--json")
    write(
        "net.py", "from torch import nn\n\n\ndef half():\n    return nn.Linear(4, 2).bfloat16()\n"
    )
    found = Count.from_json(command("count", *half).out)
    assert {row.dtype for row in found.rows} == {"bfloat16"}
    assert found.bytes_written == 2 * 3 * 2


def test_an_operator_without_a_formula_is_told(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write(
        "own.py",
        """
        import torch


        @torch.library.custom_op("shoestring_cli_tests::own", mutates_args=())
        def own(x: torch.Tensor) -> torch.Tensor:
            return x * 2


        @own.register_fake
        def _(x):
            return torch.empty_like(x)


        class Own(torch.nn.Module):
            def forward(self, x):
                return own(x)


        def model():
            return Own()
    """,
    )
    answer = command("count", "own.py", "--batch", "3x4", "--forward")
    assert "NOT COUNTED" in answer.out
    assert "shoestring_cli_tests.own (1 call)" in answer.out


def test_a_step_that_depends_on_data_is_run_with_data(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("net.py", BARE.replace(".argmax(-1)", "[x.sum(-1) > 0]").replace("self.requires", "#"))
    answer = command("count", "net.py", "--batch", "4x8", "--forward")
    assert "note: the step depends on data: it was traced once on a real copy" in answer.err


def test_help_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from shoestring.cli.app import main; code = main(sys.argv[1:])\n"
        "sys.exit(code or int('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "count", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert "--forward" in done.stdout
