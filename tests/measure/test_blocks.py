"""Repeated blocks are found from structure."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from torch import nn

from shoestring.measure.tracing.blocks import repeated_blocks
from tests.zoo import ZOO, Case

SMALL = {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 64}
HEADS = {"num_attention_heads": 2, "vocab_size": 99}


def _paths(model: nn.Module) -> list[str]:
    return [path for path, _ in repeated_blocks(model)]


def _bert() -> nn.Module:
    config = transformers.BertConfig(**SMALL, **HEADS)
    return transformers.BertForSequenceClassification(config)


def _gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2))


def _t5() -> nn.Module:
    config = transformers.T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return transformers.T5ForConditionalGeneration(config)


def _llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, **HEADS))


def _swin() -> nn.Module:
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 1], num_heads=[2, 2], window_size=4
    )
    return transformers.SwinForImageClassification(config)


def _resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"
    )
    return transformers.ResNetForImageClassification(config)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (_bert, [f"bert.encoder.layer.{i}" for i in range(3)]),
        (_gpt2, [f"transformer.h.{i}" for i in range(2)]),
        (_t5, [f"{side}.block.{i}" for side in ("encoder", "decoder") for i in range(2)]),
        (_llama, [f"model.layers.{i}" for i in range(3)]),
        (_swin, [f"swin.encoder.layers.{i}.blocks.{j}" for i, j in ((0, 0), (0, 1), (1, 0))]),
        (
            _resnet,
            [f"resnet.encoder.stages.{i}.layers.{j}" for i in range(2) for j in range(2)],
        ),
    ],
    ids=["bert", "gpt2", "t5", "llama", "swin", "resnet"],
)
def test_blocks_of_transformers_models(build: Callable[[], nn.Module], expected: list[str]) -> None:
    with torch.device("meta"):
        model = build()
    assert _paths(model) == expected
    assert all(module is model.get_submodule(path) for path, module in repeated_blocks(model))


class _Block(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, width), nn.Linear(width, width))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(x + self.attention(x))


class _Experts(_Block):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(_Block(8) for _ in range(4))


def test_blocks_as_attributes() -> None:
    model = nn.Module()
    model.stem, model.first, model.second = nn.Linear(8, 8), _Block(), _Block()
    assert _paths(model) == ["first", "second"]


def test_what_a_block_holds_is_not_reported_again() -> None:
    assert _paths(nn.Sequential(_Experts(), _Experts(), _Experts())) == ["0", "1", "2"]


def test_stages_of_other_widths_give_way_to_their_blocks() -> None:
    stages = nn.Sequential(
        nn.Sequential(_Block(8), _Block(8)), nn.Sequential(_Block(16)), nn.Sequential(_Block(32))
    )
    assert _paths(stages) == ["0.0", "0.1", "1.0", "2.0"]


def test_layers_of_a_perceptron_are_no_blocks() -> None:
    assert _paths(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))) == []


def test_a_single_block_does_not_repeat() -> None:
    assert _paths(nn.Sequential(nn.Linear(8, 8), _Block())) == []


def test_the_one_layer_of_another_class_in_a_list_of_layers_counts() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([_Block(), _Experts(), _Block()])
    assert _paths(model) == ["layers.0", "layers.1", "layers.2"]


def test_a_module_of_two_names_is_reported_once() -> None:
    block = _Block()
    assert _paths(nn.Sequential(block, block)) == ["0"]


def test_a_parametrisation_is_no_part() -> None:
    def layer() -> nn.Module:
        return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))

    assert _paths(nn.Sequential(layer(), layer())) == []


@pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)
def test_blocks_of_the_zoo_can_be_called_and_are_not_nested(case: Case) -> None:
    blocks = repeated_blocks(case.build())
    assert len({id(module) for _, module in blocks}) == len(blocks)
    for path, module in blocks:
        assert type(module).forward is not nn.Module.forward
        inside = {id(m) for m in module.modules()} - {id(module)}
        assert not any(id(other) in inside for _, other in blocks), path
    if case.name not in {"fno", "lstm", "seq2seq"}:
        assert len(blocks) >= 2
