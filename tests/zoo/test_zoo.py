"""The zoo is what its design says: thirty models, light to import, heavy in activations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from shoestring.measure.tracing.allocator import measure_step, standing, steady_step
from tests.zoo import ZOO, Case

ROOT = Path(__file__).resolve().parents[2]
HUGGING_FACE = {
    "bert", "distilbert", "deberta", "gpt2", "opt", "llama", "mistral", "qwen", "gemma", "mixtral",
    "mamba", "t5", "bart", "whisper", "wav2vec2", "clip", "vit", "swin", "convnext", "regnet",
    "resnet",
}  # fmt: skip
OWN = {
    "unet", "diffusion", "densenet", "mixer", "fno", "lstm", "seq2seq", "gnn", "tabular",
}  # fmt: skip


@pytest.fixture(params=ZOO, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    if request.param.name in HUGGING_FACE:
        pytest.importorskip("transformers")
    return request.param


@pytest.fixture(autouse=True)
def one_thread() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_thirty_models_are_there_once() -> None:
    names = [case.name for case in ZOO]
    assert len(names) == 30
    assert set(names) == HUGGING_FACE | OWN


def test_importing_the_zoo_loads_no_library_of_models() -> None:
    code = "import sys, tests.zoo; print('transformers' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_the_same_model_and_batch_every_time(case: Case) -> None:
    before = torch.get_rng_state()
    first, second = case.build(), case.build()
    assert torch.equal(before, torch.get_rng_state())
    assert first.training
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(_tensors(case.batch(2)), _tensors(case.batch(2)), strict=True):
        assert torch.equal(a, b)


def test_activations_are_half_of_the_larger_step(case: Case) -> None:
    model, batch = case.build(), case.batch(case.rows[1])
    parameters = sum(p.nbytes for p in model.parameters())
    assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 20e6
    optimizer = torch.optim.AdamW(model.parameters())
    step = steady_step(model, batch, optimizer, case.loss)
    step()
    peak = measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak
    assert peak - 4 * parameters >= peak / 2
    assert peak <= 2**30
    assert case.rows[0] < case.rows[1]


def _tensors(batch: object) -> list[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch]
    return list(batch.values() if isinstance(batch, Mapping) else batch)  # type: ignore[call-overload]
