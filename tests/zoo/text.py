"""Language models by transformers' configurations, with random weights.

Dropout and everything else that is not a size has the configuration's default value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from tests.zoo.case import Case, integers, labelled_text, seeded, text

VOCABULARY = 2000
CLASSES = 3

Maker: TypeAlias = Callable[[int], dict[str, torch.Tensor]]


def _classified(length: int) -> Maker:
    def batch(rows: int) -> dict[str, torch.Tensor]:
        labels = integers(rows, below=CLASSES)
        return {**text(rows, length, VOCABULARY), "labels": labels}

    return batch


def _continued(length: int) -> Maker:
    def batch(rows: int) -> dict[str, torch.Tensor]:
        return labelled_text(rows, length, VOCABULARY)

    return batch


def _translated(length: int, target: int) -> Maker:
    def batch(rows: int) -> dict[str, torch.Tensor]:
        labels = labelled_text(rows, target, VOCABULARY)["labels"]
        return {**text(rows, length, VOCABULARY), "labels": labels}

    return batch


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=768,
            num_labels=CLASSES,
        )
    )


def _distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=192,
            n_layers=3,
            n_heads=6,
            hidden_dim=768,
            num_labels=CLASSES,
        )
    )


def _deberta() -> nn.Module:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    # The position options are those of the published models; without them it is a BERT.
    return DebertaV2ForSequenceClassification(
        DebertaV2Config(
            vocab_size=VOCABULARY,
            hidden_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=768,
            num_labels=CLASSES,
            relative_attention=True,
            position_buckets=32,
            pos_att_type=["p2c", "c2p"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
        )
    )


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=192, n_layer=4, n_head=4)
    )


def _opt() -> nn.Module:
    from transformers import OPTConfig, OPTForCausalLM

    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            num_hidden_layers=4,
            ffn_dim=768,
            max_position_embeddings=128,
            num_attention_heads=4,
            word_embed_proj_dim=192,
        )
    )


_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_DECODER))


def _mistral() -> nn.Module:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**_DECODER, sliding_window=32))


def _qwen() -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_DECODER, head_dim=32))


def _gemma() -> nn.Module:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    return Gemma2ForCausalLM(Gemma2Config(**_DECODER, head_dim=32, sliding_window=32))


def _mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=256,
        output_router_logits=True,
        experts_implementation="batched_mm",
    )
    return MixtralForCausalLM(config)


def _mamba() -> nn.Module:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=192, num_hidden_layers=4, state_size=16)
    )


def _t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=192,
            d_kv=32,
            d_ff=768,
            num_layers=3,
            num_heads=6,
            decoder_start_token_id=0,
        )
    )


def _bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=VOCABULARY,
            d_model=192,
            encoder_layers=3,
            decoder_layers=3,
            encoder_ffn_dim=768,
            decoder_ffn_dim=768,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            max_position_embeddings=128,
        )
    )


TEXT = (
    Case("bert", seeded(_bert), _classified(64), None, (4, 24)),
    Case("distilbert", seeded(_distilbert), _classified(64), None, (4, 24)),
    Case("deberta", seeded(_deberta), _classified(64), None, (4, 16)),
    Case("gpt2", seeded(_gpt2), _continued(64), None, (4, 24)),
    Case("opt", seeded(_opt), _continued(64), None, (4, 24)),
    Case("llama", seeded(_llama), _continued(64), None, (4, 24)),
    Case("mistral", seeded(_mistral), _continued(64), None, (4, 24)),
    Case("qwen", seeded(_qwen), _continued(64), None, (4, 24)),
    Case("gemma", seeded(_gemma), _continued(64), None, (4, 24)),
    Case("mixtral", seeded(_mixtral), _continued(16), None, (1, 4)),
    Case("mamba", seeded(_mamba), _continued(24), None, (2, 12)),
    Case("t5", seeded(_t5), _translated(64, 32), None, (4, 16)),
    Case("bart", seeded(_bart), _translated(64, 32), None, (4, 16)),
)
"""Models of text."""
