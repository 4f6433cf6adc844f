"""MODEL and --batch: what is built and what it is called with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shoestring.cli import models
from shoestring.core import InputError
from tests.cli.conftest import ENVIRONMENT, contents

NET = """
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(x)


    def _hidden():
        return Net()
"""

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def shapes(found: models.Brought) -> dict[str, tuple[int, ...]]:
    assert isinstance(found.batch, dict)
    return {k: tuple(v.shape) for k, v in found.batch.items() if isinstance(v, torch.Tensor)}


# --- factories -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["net.py", "net.py:Net", "net:Net", "sub/net.py", "sub.net:Net"])
def test_a_factory_is_found_in_a_file_or_a_module(
    folder: Path, write: Callable[[str, str], Path], text: str
) -> None:
    write("net.py", NET)
    write("sub/net.py", NET)
    before = contents(folder)
    found = models.find(text, (4, 8)).build(True)
    assert all(p.is_meta for p in found.model.parameters())
    assert isinstance(found.batch, torch.Tensor)
    assert (found.batch.is_meta, found.batch.shape) == (True, (4, 8))
    assert contents(folder) == before, "compiled files were left behind"


def test_an_installed_module_is_found(folder: Path) -> None:
    found = models.find("torch.nn:Flatten", (4, 8)).build(True)
    assert isinstance(found.model, torch.nn.Flatten)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("model = nn.ReLU()", "ReLU"),
        ("def model(): return nn.ReLU()\ndef other(): return nn.GELU()", "ReLU"),
        ("def other(): return nn.GELU()\ndef batch(*s): return torch.zeros(s)", "GELU"),
        ("from torch.nn import Linear\nclass Own(nn.Tanh): pass", "Own"),
    ],
)
def test_a_file_without_a_name_has_one_model(
    write: Callable[[str, str], Path], text: str, kind: str
) -> None:
    write("net.py", f"import torch\nfrom torch import nn\n{text}\n")
    assert type(models.find("net.py", (4, 8)).build(True).model).__name__ == kind


def test_a_file_finds_its_neighbours(write: Callable[[str, str], Path]) -> None:
    write(
        "sub/net.py",
        "from sizes_of_net import WIDTH\nimport torch\n"
        "def model(): return torch.nn.Linear(WIDTH, 1)\n",
    )
    write("sub/sizes_of_net.py", "WIDTH = 7\n")
    model = models.find("sub/net.py", (4, 7)).build(True).model
    assert isinstance(model, torch.nn.Linear)
    assert model.in_features == 7


def test_batch_and_loss_of_the_module_are_used(write: Callable[[str, str], Path]) -> None:
    write(
        "net.py",
        NET
        + """
    def batch(rows, width):
        return {"x": torch.randn(rows, width)}


    def loss(output, batch):
        return output.square().mean()
    """,
    )
    found = models.find("net.py:Net", (4, 8)).build(True)
    assert isinstance(found.batch, dict)
    assert found.batch["x"].shape == (4, 8)
    assert found.loss is not None
    assert found.loss(torch.full((2,), 3.0), {}) == 9


def test_a_factory_that_needs_data_gets_it(write: Callable[[str, str], Path]) -> None:
    write(
        "net.py",
        """
        import torch


        def model():
            rate = torch.full((2,), 0.25).sum().item()
            return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(rate))
        """,
    )
    model = models.find("net.py", (2, 4)).build(True).model
    assert not any(p.is_meta for p in model.parameters())


def test_with_data_nothing_is_on_the_meta_device(write: Callable[[str, str], Path]) -> None:
    write("net.py", NET)
    found = models.find("net.py:Net", (4, 8)).build(False)
    assert not any(p.is_meta for p in found.model.parameters())
    assert isinstance(found.batch, torch.Tensor)
    assert not found.batch.is_meta


# --- configurations --------------------------------------------------------------------------


def configured(
    write: Callable[[str, str], Path], batch: tuple[int, ...], **config: object
) -> models.Brought:
    pytest.importorskip("transformers")
    write("some-model/config.json", json.dumps(config))
    return models.find("some-model", batch).build(True)


@pytest.mark.parametrize(
    ("architecture", "config", "batch", "expected"),
    [
        (
            "LlamaForCausalLM",
            {"model_type": "llama"},
            (2, 8),
            {"input_ids": (2, 8), "labels": (2, 8)},
        ),
        (
            "BertForSequenceClassification",
            {"model_type": "bert"},
            (2, 8),
            {"input_ids": (2, 8), "attention_mask": (2, 8), "labels": (2,)},
        ),
        (
            "BertForMaskedLM",
            {"model_type": "bert"},
            (2, 8),
            {"input_ids": (2, 8), "attention_mask": (2, 8), "labels": (2, 8)},
        ),
        (
            "BertForPreTraining",
            {"model_type": "bert"},
            (2, 8),
            {
                "input_ids": (2, 8),
                "attention_mask": (2, 8),
                "labels": (2, 8),
                "next_sentence_label": (2,),
            },
        ),
        (
            "BertForQuestionAnswering",
            {"model_type": "bert"},
            (2, 8),
            {
                "input_ids": (2, 8),
                "attention_mask": (2, 8),
                "start_positions": (2,),
                "end_positions": (2,),
            },
        ),
        (
            "BertForMultipleChoice",
            {"model_type": "bert"},
            (2, 3, 8),
            {"input_ids": (2, 3, 8), "attention_mask": (2, 3, 8), "labels": (2,)},
        ),
        (
            "BertModel",
            {"model_type": "bert"},
            (2, 8),
            {"input_ids": (2, 8), "attention_mask": (2, 8)},
        ),
        (
            "T5ForConditionalGeneration",
            {
                "model_type": "t5",
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 32,
                "num_layers": 1,
                "num_heads": 2,
                "decoder_start_token_id": 0,
            },
            (2, 8, 4),
            {"input_ids": (2, 8), "attention_mask": (2, 8), "labels": (2, 4)},
        ),
        (
            "ViTForImageClassification",
            {"model_type": "vit", "image_size": 32, "patch_size": 8},
            (2,),
            {"pixel_values": (2, 3, 32, 32), "labels": (2,)},
        ),
        (
            "WhisperForConditionalGeneration",
            {
                "model_type": "whisper",
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
                "num_mel_bins": 20,
                "max_source_positions": 25,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            (2, 6),
            {"input_features": (2, 20, 50), "labels": (2, 6)},
        ),
        (
            "Wav2Vec2ForSequenceClassification",
            {"model_type": "wav2vec2", "num_feat_extract_layers": 7},
            (2, 4000),
            {"input_values": (2, 4000), "labels": (2,)},
        ),
        (
            "ASTForAudioClassification",
            {"model_type": "audio-spectrogram-transformer", "max_length": 64, "num_mel_bins": 32},
            (2,),
            {"input_values": (2, 64, 32), "labels": (2,)},
        ),
        (
            "CLIPModel",
            {
                "model_type": "clip",
                "projection_dim": 16,
                "text_config": {**TINY, "max_position_embeddings": 16},
                "vision_config": {**TINY, "image_size": 32, "patch_size": 8},
            },
            (2, 8),
            {"input_ids": (2, 8), "attention_mask": (2, 8), "pixel_values": (2, 3, 32, 32)},
        ),
    ],
)
def test_a_batch_suits_its_model(
    command: Callable[..., object],
    write: Callable[[str, str], Path],
    architecture: str,
    config: dict[str, object],
    batch: tuple[int, ...],
    expected: dict[str, tuple[int, ...]],
) -> None:
    found = configured(write, batch, **{**TINY, **config, "architectures": [architecture]})
    assert type(found.model).__name__ == architecture
    assert shapes(found) == expected
    assert found.model.training
    # Wav2Vec2 makes one small parameter by torch.Tensor(), which no device context reaches.
    real = [p for p in found.model.parameters() if not p.is_meta]
    assert sum(p.numel() for p in real) <= 16
    # The step runs with it, and the loss is the model's own.
    answer = command(
        "profile", "some-model", "--batch", "x".join(map(str, batch)), "--machine", "h100", "--json"
    )
    mean = [a for a in json.loads(answer.out)["assumptions"] if "mean of its output" in a]
    assert bool(mean) == (architecture == "BertModel")
    assert answer.err == ""


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"num_labels": 1}, torch.float32),
        ({"num_labels": 4}, torch.int64),
        ({"num_labels": 4, "problem_type": "multi_label_classification"}, torch.float32),
    ],
)
def test_labels_follow_the_heads_problem(
    write: Callable[[str, str], Path], config: dict[str, object], dtype: torch.dtype
) -> None:
    head = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    found = configured(write, (2, 8), **{**TINY, **head, **config})
    assert isinstance(found.batch, dict)
    assert found.batch["labels"].dtype == dtype
    multi = config.get("problem_type") == "multi_label_classification"
    assert found.batch["labels"].shape == ((2, 4) if multi else (2,))


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_dtype_is_the_configurations(write: Callable[[str, str], Path], key: str) -> None:
    found = configured(write, (2, 8), **TINY, model_type="llama", **{key: "bfloat16"})
    assert {p.dtype for p in found.model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert any("LlamaForCausalLM is assumed" in note for note in found.notes)


def test_more_tokens_than_the_model_is_for_are_noted(write: Callable[[str, str], Path]) -> None:
    llama = {**TINY, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    assert not configured(write, (2, 8), **llama, max_position_embeddings=8).notes
    (note,) = configured(write, (2, 9), **llama, max_position_embeddings=8).notes
    assert note == "9 tokens are more than the 8 this model is configured for"


@pytest.mark.parametrize(
    ("model_type", "batch", "hint"),
    [
        ("llama", (2,), "rows x length"),
        ("llama", (2, 8, 8), "rows x length"),
        ("vit", (2, 8), "rows x channels x height x width"),
        ("resnet", (2,), "rows x channels x height x width"),
        ("wav2vec2", (2,), "rows x samples"),
    ],
)
def test_another_number_of_sizes_is_refused(
    write: Callable[[str, str], Path], model_type: str, batch: tuple[int, ...], hint: str
) -> None:
    with pytest.raises(InputError, match="another number of sizes") as caught:
        configured(write, batch, model_type=model_type)
    assert hint in caught.value.hint


def test_data_for_a_real_step_is_within_the_vocabulary(
    write: Callable[[str, str], Path],
) -> None:
    pytest.importorskip("transformers")
    bert = {**TINY, "model_type": "bert", "architectures": ["BertForMaskedLM"]}
    write("some-model/config.json", json.dumps(bert))
    before = torch.get_rng_state()
    found = models.find("some-model", (2, 8)).build(False)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(found.batch, dict)
    assert int(found.batch["input_ids"].max()) < 50
    assert not any(p.is_meta for p in found.model.parameters())
    assert torch.isfinite(found.model(**found.batch).loss)


def test_a_cached_name_is_found_and_the_network_is_not_asked(
    tmp_path: Path, write: Callable[[str, str], Path]
) -> None:
    pytest.importorskip("transformers")
    home = tmp_path / "hub"
    folder = home / "hub" / "models--some--llama"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    config = {**TINY, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "snapshots" / ("0" * 40) / "config.json").write_text(json.dumps(config))
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from shoestring.cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("HF_")}
    for name, expected in (("some/llama", 0), ("some/other", 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "profile", name, "--batch", "2x8", "--machine", "h100"],
            capture_output=True,
            text=True,
            check=False,
            env={**environment, "HF_HOME": str(home)},
        )
        assert done.returncode == expected, done.stderr
        assert ("LlamaForCausalLM" in done.stdout) == (expected == 0)
        assert done.stderr.count("\n") == expected
