"""The models of the honesty comparison: the zoo, and architectures drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import torch
from torch import nn

from tests.zoo import ZOO, Case
from tests.zoo.case import integers, labelled_text, normals, seeded, text

if TYPE_CHECKING:
    from transformers import PretrainedConfig

VOCABULARY: Final = 2000
LENGTH: Final = 64
IMAGE: Final = 64
LARGEST: Final = 40_000_000
"""An architecture with more parameters than this after shrinking is passed over."""
ROWS: Final = (2, 8)

EXPERTS: Final = "num_experts num_local_experts n_routed_experts moe_num_experts"

SIZES: Final[dict[int, str]] = {
    2: "num_key_value_heads num_kv_heads num_experts_per_tok num_experts_per_token moe_topk moe_k",
    3: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_decoder_layers num_encoder_layers",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads "
    "decoder_attention_heads " + EXPERTS,
    IMAGE: "image_size head_dim d_kv attention_head_size",
    256: "hidden_size d_model n_embd dim emb_dim embed_dim word_embed_proj_dim embedding_size "
    "max_position_embeddings n_positions n_ctx max_seq_len",
    1024: "intermediate_size d_ff n_inner encoder_ffn_dim decoder_ffn_dim ffn_dim hidden_dim "
    "ffn_hidden_size moe_intermediate_size feed_forward_size",
    VOCABULARY: "vocab_size",
}
"""Options of a configuration, where it has them, by the size that they are set to."""

Maker: TypeAlias = Callable[["PretrainedConfig", int], dict[str, torch.Tensor]]


def _classified(config: PretrainedConfig, rows: int) -> dict[str, torch.Tensor]:
    return {**text(rows, LENGTH, VOCABULARY), "labels": integers(rows, below=2)}


def _tagged(config: PretrainedConfig, rows: int) -> dict[str, torch.Tensor]:
    return {**text(rows, LENGTH, VOCABULARY), "labels": integers(rows, LENGTH, below=2)}


def _continued(config: PretrainedConfig, rows: int) -> dict[str, torch.Tensor]:
    return labelled_text(rows, LENGTH, VOCABULARY)


def _images(config: PretrainedConfig, rows: int) -> dict[str, torch.Tensor]:
    size = getattr(config, "image_size", IMAGE)
    high, wide = (size, size) if isinstance(size, int) else size
    channels = getattr(config, "num_channels", 3)
    return {
        "pixel_values": normals(rows, channels, high, wide),
        "labels": integers(rows, below=2),
    }


TASKS: Final[dict[str, Maker]] = {
    "CAUSAL_LM": _continued,
    "MASKED_LM": _continued,
    "SEQ_TO_SEQ_CAUSAL_LM": _continued,
    "SEQUENCE_CLASSIFICATION": _classified,
    "TOKEN_CLASSIFICATION": _tagged,
    "IMAGE_CLASSIFICATION": _images,
}
"""Tasks of transformers whose batches can be made without knowing the model."""


def find_case(name: str) -> Case:
    """Return the model of a name.

    Args:
        name: a name of the zoo, or one that `draw` returned, as ``CAUSAL_LM/llama``.

    Raises:
        ValueError: there is no such model.
    """
    for case in ZOO:
        if case.name == name:
            return case
    task, slash, model_type = name.partition("/")
    if not slash or task not in TASKS:
        raise ValueError(f"no model is called {name!r}")

    def build() -> nn.Module:
        return _build(task, model_type)

    def batch(rows: int) -> dict[str, torch.Tensor]:
        return TASKS[task](shrunk_config(model_type), rows)

    return Case(name, seeded(build), batch, None, ROWS)


def draw(seed: int) -> list[str]:
    """Return the names of all architectures of `TASKS` in an order given by a seed.

    Every architecture comes once, under one of its tasks.

    Args:
        seed: of the order and the choice of the task.
    """
    from transformers.models.auto import modeling_auto

    tasks: dict[str, list[str]] = {}
    for task in TASKS:
        for model_type in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"):
            tasks.setdefault(model_type, []).append(task)
    order = sorted(tasks)
    source = random.Random(seed)  # noqa: S311 - nothing here is secret
    source.shuffle(order)
    return [f"{source.choice(sorted(tasks[name]))}/{name}" for name in order]


def shrunk_config(model_type: str) -> PretrainedConfig:
    """Return a model type's default configuration with small sizes.

    Args:
        model_type: as transformers names it.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    options: dict[str, int | str] = {}
    default = kind()
    for size, names in SIZES.items():
        for name in names.split():
            value = getattr(default, name, None)
            if type(value) is int and value > size:
                options[name] = size
    if any(hasattr(default, name) for name in EXPERTS.split()):
        # Products in batches take a copy of an expert's weights for every token.
        wide = {name for name in SIZES[1024].split() if name in options}
        options.update(dict.fromkeys(wide, 64))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        value = getattr(default, name, None)
        if type(value) is int and not 0 <= value < VOCABULARY:
            options[name] = 0
    if default.is_encoder_decoder and not hasattr(default, "decoder_start_token_id"):
        options["decoder_start_token_id"] = 0
    # Sequence classifiers find a row's last token by the padding's number.
    if hasattr(default, "pad_token_id") and default.pad_token_id is None:
        options["pad_token_id"] = 0
    return kind(**options, experts_implementation="batched_mm")


def _build(task: str, model_type: str) -> nn.Module:
    import transformers
    from transformers.models.auto import modeling_auto

    name = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")[model_type]
    kind = getattr(transformers, name[0] if isinstance(name, tuple) else name)
    config = shrunk_config(model_type)
    with torch.device("meta"):
        count = sum(p.numel() for p in kind(config).parameters())
    if count > LARGEST:
        raise ValueError(f"{count / 1e6:.0f} M parameters after shrinking")
    model: nn.Module = kind(config)
    return model
