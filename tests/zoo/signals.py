"""Models of sound and images by transformers' configurations, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.zoo.case import Batch, Case, integers, labelled_text, normals, seeded, text

VOCABULARY = 1000
CLASSES = 10


def _whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY,
            d_model=192,
            encoder_layers=3,
            decoder_layers=3,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=768,
            decoder_ffn_dim=768,
            max_source_positions=100,
            max_target_positions=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        )
    )


def _whisper_batch(rows: int) -> dict[str, torch.Tensor]:
    labels = labelled_text(rows, 24, VOCABULARY)["labels"]
    return {"input_features": normals(rows, 80, 200), "labels": labels}


def _wav2vec2() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    # A layer that is dropped at random would make the step's own cost a matter of chance.
    return Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=32,
            hidden_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=768,
            conv_dim=(64,) * 7,
            num_conv_pos_embeddings=32,
            num_conv_pos_embedding_groups=8,
            layerdrop=0.0,
        )
    )


def _wav2vec2_batch(rows: int) -> dict[str, torch.Tensor]:
    return {"input_values": normals(rows, 8000), "labels": labelled_text(rows, 12, 32)["labels"]}


def _clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    sizes = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": 128,
    }
    return CLIPModel(
        CLIPConfig(
            text_config=CLIPTextConfig(
                **sizes, vocab_size=VOCABULARY, max_position_embeddings=32, eos_token_id=2
            ).to_dict(),
            vision_config=CLIPVisionConfig(**sizes, image_size=64, patch_size=8).to_dict(),
            projection_dim=128,
        )
    )


def _clip_batch(rows: int) -> dict[str, torch.Tensor]:
    return {**text(rows, 24, VOCABULARY), "pixel_values": normals(rows, 3, 64, 64)}


def _contrastive(output: object, batch: Batch) -> torch.Tensor:
    """Return the loss that matches each text with its own image and the other way round."""
    logits: torch.Tensor = output.logits_per_text  # type: ignore[attr-defined]
    target = torch.arange(logits.shape[0], device=logits.device)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, target) + cross_entropy(logits.t(), target)) / 2


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=768,
            image_size=64,
            patch_size=8,
            num_labels=CLASSES,
        )
    )


def _swin() -> nn.Module:
    from transformers import SwinConfig, SwinForImageClassification

    return SwinForImageClassification(
        SwinConfig(
            image_size=64,
            patch_size=2,
            embed_dim=48,
            depths=[2, 2, 2],
            num_heads=[3, 6, 12],
            window_size=4,
            num_labels=CLASSES,
        )
    )


def _convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(
        ConvNextConfig(
            hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 4, 2], image_size=64, num_labels=CLASSES
        )
    )


def _regnet() -> nn.Module:
    from transformers import RegNetConfig, RegNetForImageClassification

    return RegNetForImageClassification(
        RegNetConfig(
            embedding_size=32,
            hidden_sizes=[48, 96, 240, 320],
            depths=[1, 2, 4, 1],
            groups_width=16,
            num_labels=CLASSES,
        )
    )


def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 3, 4, 3],
            num_labels=CLASSES,
        )
    )


def _images(size: int) -> Callable[[int], dict[str, torch.Tensor]]:
    def batch(rows: int) -> dict[str, torch.Tensor]:
        return {
            "pixel_values": normals(rows, 3, size, size),
            "labels": integers(rows, below=CLASSES),
        }

    return batch


SIGNALS = (
    Case("whisper", seeded(_whisper), _whisper_batch, None, (2, 16)),
    Case("wav2vec2", seeded(_wav2vec2), _wav2vec2_batch, None, (2, 16)),
    Case("clip", seeded(_clip), _clip_batch, _contrastive, (4, 24)),
    Case("vit", seeded(_vit), _images(64), None, (4, 24)),
    Case("swin", seeded(_swin), _images(64), None, (2, 8)),
    Case("convnext", seeded(_convnext), _images(64), None, (4, 24)),
    Case("regnet", seeded(_regnet), _images(96), None, (4, 16)),
    Case("resnet", seeded(_resnet), _images(96), None, (4, 16)),
)
"""Models of sound and images."""
