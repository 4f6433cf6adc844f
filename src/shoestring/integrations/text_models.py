"""A user's text model and tokenizer, with adapters and quantised weights where asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import torch
import transformers

from shoestring.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    from shoestring.integrations.training_settings import TextTraining


_PACKS: Final = "support_avx512bf16_for_cpu"
"""Whether a layer of bitsandbytes packs its weights anew, on processors that have what it takes."""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model.

    Args:
        name: of the model: a folder, or what is in the local cache.

    Raises:
        InputError: it has none that can be loaded.
    """
    try:
        found: PreTrainedTokenizerBase = transformers.AutoTokenizer.from_pretrained(
            name, local_files_only=True
        )
    except Exception as error:
        if not Path(name).is_dir():
            raise InputError(
                f"there is no folder {name}, and no model of that name in the local cache.",
                hint="name a folder with a model and its tokenizer; nothing is downloaded.",
            ) from error
        raise InputError(
            f"{name!r} has no tokenizer that transformers can load: {_words(error)}",
            hint="save the tokenizer into the model's folder.",
        ) from error
    return found


def load_model(
    settings: TextTraining, tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> PreTrainedModel:
    """Return the model, before `trained_in_part`.

    Args:
        settings: of the training.
        tokenizer: whose padding token the model learns of.
        names: of the classes.

    Raises:
        InputError: it cannot be loaded, or a package is missing.
    """
    kind: type[_BaseAutoModelClass] = transformers.AutoModelForCausalLM
    options: dict[str, object] = {"local_files_only": True}
    if settings.task == "classification":
        kind = transformers.AutoModelForSequenceClassification
        options["num_labels"] = len(names)
        options["id2label"] = dict(enumerate(names))
        options["label2id"] = {name: i for i, name in enumerate(names)}
    try:
        if settings.quantise is not None:
            options["quantization_config"] = _quantisation(settings, _heads(kind, settings.model))
        model = cast("PreTrainedModel", kind.from_pretrained(settings.model, **options))
    except Exception as error:
        raise InputError(
            f"{settings.model!r} cannot be loaded for {settings.task}: {_words(error)}",
            hint="name a folder with config.json and model.safetensors of a text model.",
        ) from error
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
    model.config.use_cache = False
    for module in model.modules():
        if hasattr(module, _PACKS):  # in evaluation, and only rows of 64 and more
            setattr(module, _PACKS, False)
    return model


def trained_in_part(model: PreTrainedModel, settings: TextTraining) -> PreTrainedModel:
    """Return the model of which only what the settings say is trained.

    Args:
        model: as it was loaded; its base is frozen where the head alone is trained.
        settings: of the training.

    Raises:
        InputError: a package is missing, or the model has no head.
    """
    if settings.head_only:
        for parameter in model.base_model.parameters():
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in model.parameters()):
            raise InputError(
                f"{settings.model!r} has nothing on top of its base to train.",
                hint="leave out --head-only.",
            )
    return model if settings.lora is None else _with_adapters(model, settings)


def _heads(kind: type[_BaseAutoModelClass], name: str) -> list[str]:
    """Return the modules on top of the base, which are trained and so are not quantised."""
    config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
    build: Callable[..., PreTrainedModel] = kind.from_config
    with torch.device("meta"):
        model = build(config)
    return [child for child, _ in model.named_children() if child != model.base_model_prefix]


def _quantisation(settings: TextTraining, heads: list[str]) -> transformers.BitsAndBytesConfig:
    build: Callable[..., transformers.BitsAndBytesConfig] = transformers.BitsAndBytesConfig
    if settings.quantise == "int8":
        return build(load_in_8bit=True, llm_int8_skip_modules=heads)
    return build(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if settings.bf16 else torch.float32,
        llm_int8_skip_modules=heads,
    )


def _with_adapters(model: PreTrainedModel, settings: TextTraining) -> PreTrainedModel:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise InputError(
            "adapters need the package peft.", hint="pip install 'shoestring[adapters]'."
        ) from error
    assert settings.lora is not None
    config = peft.LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        target_modules="all-linear",
        task_type="SEQ_CLS" if settings.task == "classification" else "CAUSAL_LM",
    )
    return cast("PreTrainedModel", peft.get_peft_model(model, config))


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
