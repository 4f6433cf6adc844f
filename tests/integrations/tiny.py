"""A tiny model of each task with its tokenizer in a folder, and texts that it can learn."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import torch

WORDS = {
    "good": ("fine", "great", "lovely", "bright", "kind"),
    "bad": ("poor", "awful", "dull", "grim", "harsh"),
}
OTHERS = ("the", "day", "was", "and", "so", "film", "it", "very", "people", "were")


def write_model(folder: Path, task: str) -> Path:
    """Write a model and its tokenizer."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *OTHERS, *WORDS["good"], *WORDS["bad"]]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **special
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    if task == "lm":
        config = transformers.LlamaConfig(
            vocab_size=len(words), hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    else:
        config = transformers.BertConfig(
            vocab_size=len(words), hidden_size=32, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def write_texts(path: Path, count: int = 120, *, labelled: bool = True) -> Path:
    """Write a CSV of sentences that are good or bad."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"] if labelled else ["text"])
        for _ in range(count):
            label = draw.choice(sorted(WORDS))
            words = draw.choices(OTHERS, k=draw.randint(3, 14))
            words.insert(draw.randrange(len(words)), draw.choice(WORDS[label]))
            writer.writerow([" ".join(words), label] if labelled else [" ".join(words)])
    return path
