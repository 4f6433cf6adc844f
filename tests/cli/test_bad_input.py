"""Bad input: an exit code, two lines on stderr, no traceback, and a folder left as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import Budget
from shoestring.cli import models
from shoestring.core import InputError
from shoestring.core.units import parse_batch, parse_bytes
from tests.cli.conftest import ENVIRONMENT, Answer, contents

MODELS = """
    import dataclasses
    import sys
    import threading

    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(x)


    class Raises(Net):
        def forward(self, x):
            raise KeyError("no such thing")


    class Two(Net):
        def forward(self, x, y):
            return self.layer(x) + y


    class Numbers(Net):
        def forward(self, x):
            return {"best": self.layer(x).argmax(-1)}


    class Nothing(Net):
        def forward(self, x):
            return None


    class Frozen(Net):
        def __init__(self):
            super().__init__()
            self.requires_grad_(False)


    class Locked(Net):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()


    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 8)

        def forward(self, x):
            return self.table(x)


    class Dict(Net):
        def forward(self, x):
            return {"y": self.layer(x), "n": 3}


    class List(Net):
        def forward(self, x):
            return [self.layer(x), None]


    @dataclasses.dataclass
    class Output:
        y: torch.Tensor
        n: int = 3


    class Dataclass(Net):
        def forward(self, x):
            return Output(self.layer(x))


    class Half(Net):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(8, 8).requires_grad_(False)


    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))


    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8, dtype=torch.complex64)

        def forward(self, x):
            return self.layer(x)


    class Branches(Net):
        def forward(self, x):
            y = self.layer(x)
            return self.layer(y) if y.sum() > 0 else y


    def fails():
        raise ValueError("no weights\\nhere")


    def leaves():
        sys.exit("goodbye")


    def number():
        return 3
"""


@pytest.fixture
def net(write: Callable[[str, str], Path]) -> Path:
    return write("net.py", MODELS)


def profile(command: Callable[..., Answer], *arguments: str, code: int = 2) -> Answer:
    return command("profile", *arguments, "--machine", "h100", code=code)


@pytest.mark.parametrize(
    ("model", "error", "hint"),
    [
        ("net.py:Raises", "the step raised KeyError: 'no such thing'", "batch(*sizes)"),
        ("net.py:Two", "missing 1 required positional argument: 'y'", "batch(*sizes)"),
        ("net.py:Tokens", "the step raised RuntimeError", "--dtype"),
        ("net.py:Numbers", "no loss can be taken of an output of class dict", "loss(output, batch"),
        ("net.py:Nothing", "no loss can be taken of an output of class NoneType", "loss(output"),
        ("net.py:Frozen", "Frozen has no trainable parameter", "requires_grad"),
        ("net.py:Locked", "cannot be copied", "remove locks"),
        ("net.py:fails", "the factory fails failed: ValueError: no weights here", "arguments"),
        ("net.py:leaves", "the factory leaves failed: SystemExit: goodbye", "arguments"),
        ("net.py:number", "the factory number returned a int", "torch.nn.Module"),
        ("net.py:nowhere", "net.py has no factory 'nowhere'", "Raises"),
        ("net.py", "functions and models, and none is called model", "net.py:Net"),
        ("absent.py", "there is no file 'absent.py'", "check the path"),
        ("no_such_package.nets:net", "there is no module 'no_such_package.nets'", "working folder"),
        ("json.no_such_part:net", "there is no module 'json.no_such_part'", "working folder"),
        ("json:nowhere", "json has no factory 'nowhere'", "functions and models in it"),
        ("not a module:net", "is not a factory", "package.module:factory"),
        ("net:", "is not a factory", "package.module:factory"),
    ],
)
def test_a_model_that_cannot_be_used(
    command: Callable[..., Answer], net: Path, model: str, error: str, hint: str
) -> None:
    answer = profile(command, model, "--batch", "4x8")
    assert error in answer.refusal[0]
    assert hint in answer.refusal[1]
    assert answer.out == ""


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise OSError('no such drive')", "cannot be imported: OSError: no such drive"),
        ("def model(:", "cannot be imported: SyntaxError"),
        ("import no_such_package", "cannot be imported: ModuleNotFoundError"),
        ("import sys; sys.exit()", "cannot be imported: SystemExit."),
        ("x = 3", "holds no function or model"),
    ],
)
@pytest.mark.parametrize("name", ["broken.py", "broken:model"])
def test_a_module_that_cannot_be_imported(
    command: Callable[..., Answer],
    write: Callable[[str, str], Path],
    text: str,
    error: str,
    name: str,
) -> None:
    write("broken.py", text)
    found, _ = profile(command, name, "--batch", "4x8").refusal
    assert error in found or (text == "x = 3" and "has no factory" in found)


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        ("0x8", "has a size of zero"),
        ("4x0", "has a size of zero"),
        ("", "is not a batch specification"),
        ("4*8", "is not a batch specification"),
        ("-4x8", "is not a batch specification"),
        ("4x8x1x1x1x1x1", "is not a batch specification"),
        ("999999999x999999999", "is beyond any machine"),
        ("4x9", "the step raised RuntimeError"),
    ],
)
def test_a_batch_that_cannot_be_used(
    command: Callable[..., Answer], net: Path, batch: str, error: str
) -> None:
    assert error in profile(command, "net.py:Net", f"--batch={batch}").refusal[0]


@pytest.mark.parametrize(
    ("options", "error", "hint"),
    [
        (("--memory", "2 gigs"), "'2 gigs' is not a size", "24GiB"),
        (("--memory", "0GiB"), "is not a usable size", "1 B to 1 EiB"),
        (("--memory", "130%"), "is not a usable percentage", "at most 100"),
        (("--memory", ""), "is not a size", "24GiB"),
        (("--memory", "9999999EiB"), "is not a size", "24GiB"),
        (("--allow", "zzz"), "unknown technique", "shoestring list"),
        (("--allow", "micro-batch"), "unknown technique", "did you mean micro-batches?"),
        (("--allow", "lora"), "lora is reported with its prediction", "leave it out"),
        (("--machine", "abacus"), "machine 'abacus' is not known", "rtx-4090"),
        (("--optimizer", "lion"), "lion", "shoestring plan --help"),
        (("--dtype", "float31"), "'float31' is not a dtype", "int64"),
        (("--memory", "1GiB", "--memory", "2GiB", "--out", "a.json"), "one plan", "one --memory"),
        (("--memory", "1GiB", "--out", "nowhere/a.json"), "cannot be written", "existing folder"),
        (("--memory", "1GiB", "--out", "net.py/a.json"), "cannot be written", "existing folder"),
        (("--memory", "1GiB", "--out", "."), "cannot be written", "name a file"),
    ],
)
def test_an_option_that_cannot_be_used(
    command: Callable[..., Answer], net: Path, options: tuple[str, ...], error: str, hint: str
) -> None:
    machine = () if "--machine" in options else ("--machine", "h100")
    answer = command("plan", "net.py:Net", "--batch", "4x8", *machine, *options, code=2)
    assert error in answer.refusal[0]
    assert hint in answer.refusal[1]


def test_a_budget_below_the_least_reachable_has_code_3_and_a_table(
    command: Callable[..., Answer], net: Path
) -> None:
    arguments = ("net.py:Net", "--batch", "4096x8", "--machine", "h100", "--memory", "100MiB")
    answer = command("plan", *arguments, "--out", "a.json", code=3)
    error, hint = answer.refusal
    assert "no exact plan meets 100 MiB: the least reachable is" in error
    assert "bound by" in error
    assert hint
    assert "plain" in answer.out


@pytest.mark.parametrize("model", ["Dict", "List", "Dataclass", "Half", "Branches"])
def test_outputs_frozen_parts_and_branches_work(
    command: Callable[..., Answer], net: Path, model: str
) -> None:
    answer = profile(command, f"net.py:{model}", "--batch", "4x8", "--json", code=0)
    assert answer.err == ""
    found = json.loads(answer.out)
    gradients = found["peak_by_kind"]["gradients"] or found["peak_by_kind"]["optimizer state"]
    assert gradients > 0
    assert found["step"]["num_trainable"] == 72
    assert found["step"]["num_parameters"] == (144 if model == "Half" else 72)
    assert any("the mean of its output stands in" in note for note in found["assumptions"])
    depends = any("depends on data" in note for note in found["assumptions"])
    assert depends == (model == "Branches")
    assert found["step"]["fake"] == (not depends)


def test_tied_weights_count_once(command: Callable[..., Answer], net: Path) -> None:
    answer = profile(command, "net.py:Tied", "--batch", "4x8", "--json", code=0)
    assert json.loads(answer.out)["step"]["num_parameters"] == 64


@pytest.mark.parametrize(("model", "dtype"), [("Tokens", "int64"), ("Complex", "complex64")])
def test_integer_and_complex_inputs_work_by_name(
    command: Callable[..., Answer], net: Path, model: str, dtype: str
) -> None:
    options = ("--batch", "4x8", "--dtype", dtype, "--json")
    answer = profile(command, f"net.py:{model}", *options, code=0)
    assert json.loads(answer.out)["step"]["batch"] == f"4x8 {dtype}"


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (None, "has no config.json"),
        ("", "cannot be used"),
        ("[1, 2]", "cannot be used"),
        ('{"model_type": "no-such-type"}', "cannot be used"),
        ('{"model_type": "gpt2", "architectures": ["AutoConfig"]}', "no model 'AutoConfig'"),
        ('{"model_type": "gpt2", "architectures": ["Gone"]}', "no model 'Gone'"),
        ('{"model_type": "gpt2", "n_head": 7}', "cannot be"),
        ('{"model_type": "gpt2", "n_embd": -4}', "cannot be"),
    ],
)
def test_a_configuration_that_cannot_be_used(
    command: Callable[..., Answer],
    folder: Path,
    write: Callable[[str, str], Path],
    config: str | None,
    error: str,
) -> None:
    pytest.importorskip("transformers")
    (folder / "gpt").mkdir()
    if config is not None:
        write("gpt/config.json", config)
    assert error in profile(command, "gpt", "--batch", "2x8").refusal[0]


@pytest.mark.parametrize("name", ["org/no-such-model", "not a name!!", "a/b/c/d", "gpt2-absent"])
def test_a_name_that_is_not_in_the_cache(command: Callable[..., Answer], name: str) -> None:
    pytest.importorskip("transformers")
    error, hint = profile(command, name, "--batch", "2x8").refusal
    assert "no model of that name is in the local cache" in error
    assert "nothing is downloaded" in hint


def test_a_step_that_fails_is_told_once_though_torch_would_log_it(
    write: Callable[[str, str], Path],
) -> None:
    pytest.importorskip("transformers")
    config = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 8,
    }
    path = write("bert/config.json", json.dumps(config))
    options = ("--batch", "2x16", "--machine", "h100")
    done = subprocess.run(
        [sys.executable, "-m", "shoestring", "profile", "bert", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=path.parents[1],
        env=ENVIRONMENT,
    )
    assert done.returncode == 2
    note, error, hint = done.stderr.splitlines()
    assert note == "note: 16 tokens are more than the 8 this model is configured for"
    assert error.startswith("error: the step raised RuntimeError")
    assert "input_ids, attention_mask, labels" in hint


def test_a_dtype_without_effect_is_an_error(
    command: Callable[..., Answer], write: Callable[[str, str], Path]
) -> None:
    write("own.py", MODELS + "\n\n    def batch(*sizes):\n        return torch.zeros(sizes)\n")
    options = ("--batch", "4x8", "--dtype", "float32")
    assert "no effect" in profile(command, "own.py:Net", *options).refusal[0]
    assert "no effect" in profile(command, "some/model", *options).refusal[0]


SMALL = """
    import torch


    def model():
        return torch.nn.Linear(8, 8)


    def loss(output, batch):
        return output.square().mean()
"""


SMALL_OPTIONS = ("--batch", "4x8", "--machine", "h100")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_leaves_the_older_plan(write: Callable[[str, str], Path]) -> None:
    """The limit on the size of files fails in the middle of a write, as a full disk does."""
    old = write("plan.json", "older")
    write("small.py", SMALL)
    before = contents(old.parent)
    code = """
        import resource, sys
        from shoestring.cli.app import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        sys.exit(main(sys.argv[1:]))
    """
    options = (*SMALL_OPTIONS, "--memory", "1GiB", "--out", "plan.json")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), "plan", "small.py", *options],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error == "error: plan.json cannot be written (file too large)."
    assert hint.startswith("hint: ")
    assert contents(old.parent) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("options", [("--json",), ()])
def test_a_full_disk_behind_stdout(
    write: Callable[[str, str], Path], options: tuple[str, ...]
) -> None:
    write("small.py", SMALL)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "shoestring", "profile", "small.py", *SMALL_OPTIONS, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=ENVIRONMENT,
        )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error == "error: the output cannot be written (no space left on device)."
    assert hint.startswith("hint: ")


# --- anything at all -------------------------------------------------------------------------

QUANTITY = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[0-9]{0,20}\.?[0-9]{0,12} ?[a-zA-Z%]{0,4}", fullmatch=True),
)


@given(QUANTITY)
def test_any_size_is_read_or_refused(text: str) -> None:
    try:
        size = parse_bytes(text)
    except InputError as error:
        assert error.hint
    else:
        assert 1 <= size <= 2**60


@given(QUANTITY)
def test_any_budget_is_read_or_refused(text: str) -> None:
    try:
        budget = Budget(memory=text)
    except InputError as error:
        assert error.hint
    else:
        found = budget.memory_bytes(plain_peak=10**9, free=10**9)
        assert found is not None
        assert 0 <= found <= 2**60


@given(st.one_of(st.text(max_size=30), st.from_regex(r"[0-9]{0,11}([xX*][0-9]{0,11}){0,8}")))
def test_any_batch_is_read_or_refused(text: str) -> None:
    try:
        sizes = parse_batch(text)
    except InputError as error:
        assert error.hint
    else:
        assert 1 <= len(sizes) <= 6
        assert min(sizes) >= 1


@given(st.text(max_size=30))
def test_any_model_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        models.find(f"shoestring-has-no-{text}.py", (2, 8))
    assert "\n" not in caught.value.message
