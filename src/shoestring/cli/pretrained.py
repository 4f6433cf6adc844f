"""A model by its transformers configuration, without weights, and a batch that suits it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shoestring.cli.models import Brought
from shoestring.core.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

_CAPTIONS: Final = "rows x length"
_PER_TOKEN: Final = ("ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForTokenClassification")
_PER_ROW: Final = (
    "ForSequenceClassification",
    "ForImageClassification",
    "ForAudioClassification",
    "ForVideoClassification",
    "ForMultipleChoice",
)
_SAMPLES_PER_LABEL: Final = 1600
"""Ten labels for each second of speech at 16 kHz, about as many as letters are spoken."""
_DEFAULTS: Final = (
    "CAUSAL_LM",
    "SPEECH_SEQ_2_SEQ",
    "SEQ_TO_SEQ_CAUSAL_LM",
    "CTC",
    "IMAGE_CLASSIFICATION",
    "SEQUENCE_CLASSIFICATION",
    "AUDIO_CLASSIFICATION",
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Input:
    """One tensor of a batch: below > 0 are integers under it, 1 is a mask, 0 is floating."""

    shape: tuple[int, ...]
    below: int


def builder(text: str, sizes: tuple[int, ...]) -> Callable[[bool], Brought]:
    """Return what builds a model and its batch from a configuration.

    Args:
        text: a folder with a ``config.json``, or a name that is in the local cache.
        sizes: of the batch: rows x length; rows x length x target length for translation;
            rows, or rows x channels x height x width, for images; rows x samples for speech.

    Raises:
        InputError: there is no such configuration, or it cannot be used.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            f"{text!r} is no .py file and no module:factory; a configuration needs the package "
            "transformers.",
            hint="pip install 'shoestring[hf]'.",
        ) from error
    config = _config(text)
    cls, notes = _model_class(config, text)

    def build(meta: bool) -> Brought:
        import torch

        model = _build(cls, config, meta, text)
        inputs, more = _inputs(model, config, sizes)
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        batch: dict[str, object] = {
            name: _tensor(spec, dtype, meta=meta) for name, spec in inputs.items()
        }
        if "return_loss" in _parameters(model):
            batch["return_loss"] = True
        return Brought(
            model,
            batch,
            notes=(*notes, *more),
            hint=f"{cls.__name__} of transformers {transformers.__version__} was called with "
            f"{', '.join(batch)}; change --batch, or write a factory with a function "
            "batch(*sizes).",
            loss_hint="write a .py file with functions model(), batch(*sizes) and "
            "loss(output, batch).",
        )

    return build


# --- the model -------------------------------------------------------------------------------


def _config(text: str) -> PretrainedConfig:
    from transformers import AutoConfig

    folder = Path(text).is_dir() if "\0" not in text else False
    if folder and not (Path(text) / "config.json").is_file():
        raise InputError(
            f"the folder {text} has no config.json.",
            hint="name a folder of a transformers model, or a .py file.",
        )
    try:
        found: PretrainedConfig = AutoConfig.from_pretrained(text, local_files_only=True)
    except Exception as error:
        if folder:
            words = " ".join(str(error).split())[:200]
            raise InputError(
                f"{Path(text) / 'config.json'} cannot be used: {words}",
                hint="it must be the configuration of a model that transformers knows.",
            ) from error
        raise InputError(
            f"{text!r} is no file, no folder and no factory, and no model of that name is in "
            "the local cache of Hugging Face.",
            hint="nothing is downloaded; a folder with the model's config.json is enough.",
        ) from error
    return found


def _model_class(config: PretrainedConfig, text: str) -> tuple[type[nn.Module], tuple[str, ...]]:
    import transformers

    named = list(config.architectures or ())
    name = named[0] if named else _default_class(config)
    found = getattr(transformers, str(name), None)
    base = transformers.PreTrainedModel
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        raise InputError(
            f"transformers {transformers.__version__} has no model {str(name)[:80]!r}, which "
            f"the configuration of {text} names.",
            hint="correct its architectures; code that comes with a model is not run.",
        )
    if named:
        return found, ()
    return found, (f"the configuration names no architecture: {name} is assumed",)


def _default_class(config: PretrainedConfig) -> str:
    from transformers.models.auto import modeling_auto as auto

    for head in _DEFAULTS:
        known = getattr(auto, f"MODEL_FOR_{head}_MAPPING_NAMES", {}).get(config.model_type)
        if known:
            return str(known if isinstance(known, str) else known[0])
    known = auto.MODEL_MAPPING_NAMES.get(config.model_type, config.model_type)
    return str(known if isinstance(known, str) else known[0])


def _build(cls: type[nn.Module], config: PretrainedConfig, meta: bool, text: str) -> nn.Module:
    import copy

    import torch

    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    if meta:
        with contextlib.suppress(Exception), _default_dtype(dtype), torch.device("meta"):
            return cls(copy.deepcopy(config)).train()
    try:
        with torch.random.fork_rng(devices=[]), _default_dtype(dtype):
            torch.manual_seed(0)
            return cls(copy.deepcopy(config)).train()
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(
            f"{cls.__name__} cannot be built from the configuration of {text}: {words}",
            hint="check its config.json.",
        ) from error


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- the batch -------------------------------------------------------------------------------


def _inputs(
    model: nn.Module, config: PretrainedConfig, sizes: tuple[int, ...]
) -> tuple[dict[str, _Input], tuple[str, ...]]:
    main = str(getattr(model, "main_input_name", ""))
    makers = {
        "input_ids": _text,
        "pixel_values": _images,
        "input_features": _features,
        "input_values": _waves,
    }
    if main not in makers:
        raise _unknown(model)
    inputs = makers[main](model, config, sizes)
    return inputs, _notes(model, config, inputs)


def _text(model: nn.Module, config: PretrainedConfig, sizes: tuple[int, ...]) -> dict[str, _Input]:
    choices = type(model).__name__.endswith("ForMultipleChoice")
    translates = bool(config.is_encoder_decoder)
    if choices:
        _demand(len(sizes) == 3, "rows x choices x length", "8x4x128")
    elif translates:
        _demand(len(sizes) in (2, 3), "rows x length, or rows x length x target length", "8x512")
    else:
        _demand(len(sizes) == 2, _CAPTIONS, "32x64")
    takes = _parameters(model)
    vocabulary = _vocabulary(config)
    shape = sizes[:2] if translates else sizes
    inputs = {"input_ids": _Input(shape, vocabulary)}
    if "attention_mask" in takes and not _generates(model):
        inputs["attention_mask"] = _Input(shape, 1)
    if "return_loss" in takes and "pixel_values" in takes:
        vision = getattr(config, "vision_config", config)
        inputs["pixel_values"] = _Input((sizes[0], *_image(vision)), 0)
    target = (sizes[0], sizes[-1])
    if translates and "labels" not in takes and "decoder_input_ids" in takes:
        inputs["decoder_input_ids"] = _Input(target, vocabulary)
    inputs.update(_labels(model, config, target if translates else shape))
    return inputs


def _images(
    model: nn.Module, config: PretrainedConfig, sizes: tuple[int, ...]
) -> dict[str, _Input]:
    _demand(len(sizes) in (1, 4), "rows, or rows x channels x height x width", "32x3x224x224")
    shape = sizes if len(sizes) == 4 else (sizes[0], *_image(config))
    inputs = {"pixel_values": _Input(shape, 0)}
    name, takes = type(model).__name__, _parameters(model)
    if name.endswith("ForSemanticSegmentation") and "labels" in takes:
        inputs["labels"] = _Input((shape[0], *shape[2:]), max(config.num_labels or 0, 2))
    if name.endswith(_PER_ROW):
        inputs.update(_labels(model, config, shape[:1]))
    return inputs


def _features(
    model: nn.Module, config: PretrainedConfig, sizes: tuple[int, ...]
) -> dict[str, _Input]:
    bins = getattr(config, "num_mel_bins", None)
    frames = getattr(config, "max_source_positions", None)
    if not config.is_encoder_decoder:
        _demand(len(sizes) == 3, "rows x frames x features", "8x512x80")
        return {"input_features": _Input(sizes, 0), **_labels(model, config, sizes[:1])}
    if not (isinstance(bins, int) and isinstance(frames, int)):
        raise _unknown(model)
    # Whisper's encoder halves the frames once, and takes no other number of them.
    _demand(len(sizes) == 2, "rows x length of the transcript", "8x64")
    heard = _Input((sizes[0], bins, 2 * frames), 0)
    return {"input_features": heard, **_labels(model, config, sizes)}


def _waves(model: nn.Module, config: PretrainedConfig, sizes: tuple[int, ...]) -> dict[str, _Input]:
    bins, frames = (getattr(config, key, None) for key in ("num_mel_bins", "max_length"))
    shape = sizes
    if isinstance(bins, int) and isinstance(frames, int):
        _demand(len(sizes) in (1, 3), "rows, or rows x frames x features", f"8x{frames}x{bins}")
        shape = sizes if len(sizes) == 3 else (sizes[0], frames, bins)
    else:
        _demand(len(sizes) == 2, "rows x samples", "8x16000")
    inputs = {"input_values": _Input(shape, 0)}
    if type(model).__name__.endswith("ForCTC"):
        labels = (sizes[0], max(1, sizes[1] // _SAMPLES_PER_LABEL))
        return {**inputs, "labels": _Input(labels, _vocabulary(config))}
    return {**inputs, **_labels(model, config, shape[:1])}


def _labels(
    model: nn.Module, config: PretrainedConfig, shape: tuple[int, ...]
) -> dict[str, _Input]:
    """Return the labels of a model's head, for inputs of a shape; none where it has no loss."""
    name, takes = type(model).__name__, _parameters(model)
    classes = int(getattr(config, "num_labels", 0) or 0)
    if name.endswith("ForQuestionAnswering"):
        places = _Input(shape[:1], shape[-1])
        return {"start_positions": places, "end_positions": places}
    if "labels" not in takes:
        return {}
    if name.endswith("ForMultipleChoice"):
        return {"labels": _Input(shape[:1], shape[1])}
    if name.endswith(_PER_ROW):
        if getattr(config, "problem_type", None) == "multi_label_classification":
            return {"labels": _Input((shape[0], classes), 0)}
        return {"labels": _Input(shape[:1], 0 if classes == 1 else classes)}
    if name.endswith("ForTokenClassification"):
        return {"labels": _Input(shape, max(classes, 2))}
    labels = {"labels": _Input(shape, _vocabulary(config))}
    if "next_sentence_label" in takes:
        labels["next_sentence_label"] = _Input(shape[:1], 2)
    return labels


def _notes(
    model: nn.Module, config: PretrainedConfig, inputs: dict[str, _Input]
) -> tuple[str, ...]:
    notes = []
    ids = inputs.get("input_ids")
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if ids is not None and isinstance(longest, int) and 0 < longest < ids.shape[-1]:
        notes.append(
            f"{ids.shape[-1]} tokens are more than the {longest} this model is configured for"
        )
    if "pixel_values" in _parameters(model) and "pixel_values" not in inputs:
        notes.append("the batch is text alone; images are not counted")
    return tuple(notes)


def _generates(model: nn.Module) -> bool:
    """Whether it predicts the next token: then texts are packed, and no mask is needed."""
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))


def _parameters(model: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


def _vocabulary(config: PretrainedConfig) -> int:
    size = getattr(config.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) and size > 1 else 2


def _image(config: object) -> tuple[int, int, int]:
    size = getattr(config, "image_size", None)
    channels = getattr(config, "num_channels", 3)
    if isinstance(size, int):
        size = (size, size)
    _demand(isinstance(size, (list, tuple)), "rows x channels x height x width", "32x3x224x224")
    assert isinstance(size, (list, tuple))
    return int(channels), int(size[0]), int(size[-1])


def _demand(right: bool, words: str, example: str) -> None:
    if not right:
        raise InputError(
            "--batch has another number of sizes than this model takes.",
            hint=f"write {words}, like {example}.",
        )


def _unknown(model: nn.Module) -> InputError:
    return InputError(
        f"--batch cannot describe what {type(model).__name__} takes.",
        hint="write a .py file with the functions model() and batch(*sizes).",
    )


def _tensor(spec: _Input, dtype: torch.dtype, *, meta: bool) -> torch.Tensor:
    import torch

    kind = torch.int64 if spec.below else dtype
    if meta:
        return torch.empty(spec.shape, dtype=kind, device="meta")
    if spec.below == 1:
        return torch.ones(spec.shape, dtype=kind)
    generator = torch.Generator().manual_seed(0)
    if spec.below:
        return torch.randint(0, spec.below, spec.shape, generator=generator)
    return torch.randn(spec.shape, generator=generator).to(dtype)
