"""Texts as tokens, in batches of few shapes: a plan made for those shapes holds for every step."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from shoestring.core.errors import InputError
from shoestring.integrations.text_data import Examples, Task

IGNORED: Final = -100  # the label that torch's cross-entropy passes over
_AT_ONCE: Final = 1000  # texts that are tokenised together


class Tokens(Protocol):
    """What a tokenizer makes of texts."""

    def __getitem__(self, key: str, /) -> Sequence[Sequence[int]]: ...

    def __contains__(self, key: object, /) -> bool: ...


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    @property
    def padding_side(self) -> str:
        """``left`` or ``right``."""

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills rows up."""

    @property
    def pad_token_type_id(self) -> int:
        """The type of that token."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""

    def __call__(
        self,
        text: list[str],
        *,
        add_special_tokens: bool = True,
        padding: bool = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_attention_mask: bool | None = None,
        verbose: bool = True,
    ) -> Tokens:
        """Return the tokens of texts by name, ``input_ids`` among them."""


class Item(TypedDict, total=False):
    """One row.

    Attributes:
        input_ids: its tokens, not padded.
        token_type_ids: their types, where the tokenizer makes them.
        label: its class, for classification.
        labels: the tokens to predict, for lm: the same as ``input_ids``.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    label: int
    labels: list[int]


# --- tokens -------------------------------------------------------------------------------------


class Encoded(Dataset[Item]):
    """Tokenised texts, four bytes a token.

    Args:
        tokens: of all rows one after the other, int32 [all tokens].
        ends: where each row ends in them, int64 [rows].
        types: of the tokens, int8 [all tokens], or None.
        labels: the class of each row, or None for lm.
        truncated: how many texts were cut at the longest length.
        dropped: how many tokens at the end filled no block.
    """

    def __init__(
        self,
        tokens: torch.Tensor,
        ends: torch.Tensor,
        *,
        types: torch.Tensor | None = None,
        labels: Sequence[int] | None = None,
        truncated: int = 0,
        dropped: int = 0,
    ) -> None:
        self.truncated = truncated
        self.dropped = dropped
        self.labels = None if labels is None else tuple(labels)
        self._tokens, self._types = tokens, types
        self._ends = ends.tolist()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The tokens of each row."""
        return tuple(end - start for start, end in itertools.pairwise([0, *self._ends]))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        row = slice(self._ends[index - 1] if index else 0, self._ends[index])
        ids = self._tokens[row].tolist()
        item: Item = {"input_ids": ids}
        if self._types is not None:
            item["token_type_ids"] = self._types[row].tolist()
        if self.labels is None:
            item["labels"] = list(ids)
        else:
            item["label"] = self.labels[index]
        return item


def encode(examples: Examples, tokenizer: Tokenizer, *, task: Task, length: int) -> Encoded:
    """Tokenise texts.

    For classification each text becomes a row of at most ``length`` tokens, the tokenizer's
    special ones included. For lm the texts are joined, each ended by the tokenizer's
    end-of-text token, and cut into rows of exactly ``length`` tokens; what is left over at the
    end is dropped, and there may be no row at all.

    Args:
        examples: the texts; with labels for classification.
        tokenizer: of transformers.
        task: ``classification`` or ``lm``.
        length: most tokens of a row.

    Raises:
        InputError: the length is not positive, labels or an end-of-text token are missing, or
            a text has no tokens.
    """
    if length < 1:
        raise InputError(f"rows of {length} tokens cannot be made.", hint="use a length from 1 up.")
    if task == "lm":
        return _blocks(examples, tokenizer, length)
    if examples.labels is None:
        raise InputError("the texts have no labels.", hint="read them for classification.")
    rows: list[np.ndarray] = []
    types: list[np.ndarray] = []
    truncated = 0
    for texts in _chunks(examples.texts):
        # One token more than may be kept tells which texts are too long.
        found = _tokenised(tokenizer, texts, length + 1)
        long = [i for i, ids in enumerate(found["input_ids"]) if len(ids) > length]
        if long:
            truncated += len(long)
            found = _tokenised(tokenizer, texts, length)
        for ids in found["input_ids"]:
            if not ids:
                text = examples.texts[len(rows)]
                raise InputError(
                    f"the tokenizer makes no tokens of text {len(rows) + 1}, {text[:40]!r}.",
                    hint="take it out of the data.",
                )
            rows.append(np.asarray(ids, dtype=np.int32))
        if "token_type_ids" in found:
            types += [np.asarray(kinds, dtype=np.int8) for kinds in found["token_type_ids"]]
    return Encoded(
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.cumsum([len(row) for row in rows])),
        types=torch.from_numpy(np.concatenate(types)) if types else None,
        labels=examples.labels,
        truncated=truncated,
    )


def _tokenised(tokenizer: Tokenizer, texts: list[str], most: int) -> Tokens:
    # Said in full: a tokenizer's file may ask for padding and another length.
    return tokenizer(
        texts, padding=False, truncation=True, max_length=most, return_attention_mask=False
    )


def _blocks(examples: Examples, tokenizer: Tokenizer, length: int) -> Encoded:
    end = tokenizer.eos_token_id
    if end is None:
        raise InputError(
            "the tokenizer has no end-of-text token to join texts with.",
            hint="use the tokenizer of a causal language model.",
        )
    parts: list[np.ndarray] = []
    for texts in _chunks(examples.texts):
        found = tokenizer(
            texts,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,  # rows are cut below, whatever the model takes at once
        )
        parts += [np.asarray([*ids, end], dtype=np.int32) for ids in found["input_ids"]]
    tokens = torch.from_numpy(np.concatenate(parts))
    count = len(tokens) // length
    return Encoded(
        tokens[: count * length],
        torch.arange(1, count + 1) * length,
        dropped=len(tokens) - count * length,
    )


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _AT_ONCE):
        yield list(texts[start : start + _AT_ONCE])


# --- shapes -------------------------------------------------------------------------------------


def choose_lengths(
    lengths: Sequence[int], *, most: int = 4, multiple: int = 8, longest: int
) -> tuple[int, ...]:
    """Return the padded lengths that add the least padding.

    Each row is padded to the shortest of them that holds it. The choice is exact: with ``v``
    the distinct lengths after rounding up, ascending, and ``n`` the rows of each, it is the
    least ``cost[k][j] = min over i < j of cost[k-1][i] + v[j] * (n[i+1] + ... + n[j])``.

    Args:
        lengths: tokens of the rows.
        most: how many padded lengths there may be; fewer are returned where they do as well.
        multiple: what they are multiples of, as kernels like; ``longest`` need not be one.
        longest: tokens at which longer rows are cut.

    Returns:
        The padded lengths, ascending; the last holds the longest row.

    Raises:
        InputError: there are no rows, or a number is not positive.

    Example:
        >>> choose_lengths([3, 5, 12, 13, 30, 31], most=2, longest=64)
        (16, 32)
    """
    if not len(lengths):
        raise InputError("there are no rows to choose lengths for.", hint="give some rows.")
    if min(most, multiple, longest) < 1 or min(lengths) < 0:
        raise InputError("a length or number below 1 was given.", hint="use numbers from 1 up.")
    rounded = [min(max(-(-n // multiple), 1) * multiple, longest) for n in lengths]
    values, counts = np.unique(np.asarray(rounded, dtype=np.int64), return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])  # rows among the first j values
    # cost[j]: tokens of those rows when padded to k lengths, the last of them values[j - 1]
    cost = np.concatenate([[0], values * below[1:]])
    cuts: list[np.ndarray] = []
    costs = [int(cost[-1])]
    for _ in range(min(most, len(values)) - 1):
        better, cut = cost.copy(), np.zeros(len(cost), dtype=np.int64)
        for j in range(1, len(cost)):
            sums = cost[:j] + values[j - 1] * (below[j] - below[:j])
            cut[j] = sums.argmin()
            better[j] = sums[cut[j]]
        cost = better
        cuts.append(cut)
        costs.append(int(cost[-1]))
    chosen: list[int] = []
    j = len(values)
    for cut in reversed(cuts[: costs.index(min(costs))]):
        chosen.append(int(values[j - 1]))
        j = int(cut[j])
        if j == 0:
            break
    if j:
        chosen.append(int(values[j - 1]))
    return tuple(reversed(chosen))


class BucketBatches(Sampler[list[int]]):
    """Batches of rows of like length.

    A row belongs to the shortest padded length that holds it. Each length's rows make full
    batches; those left over join the rows of the next longer one, so that only the last batch
    of all is partial, if any is. How many batches there are of each shape is the same in every
    epoch; which rows they hold, and their order, follow from the seed and the epoch alone, and
    the global random numbers are left alone.

    Args:
        encoded: the rows.
        lengths: the padded lengths, as from `choose_lengths`.
        rows: of a batch.
        seed: of the order.
        shuffle: False for the rows in their order, shorter padded lengths first.

    Raises:
        InputError: a row is longer than the longest length, or there are no rows.
    """

    def __init__(
        self,
        encoded: Encoded,
        lengths: Sequence[int],
        *,
        rows: int,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        if rows < 1:
            raise InputError(f"batches of {rows} rows cannot be made.", hint="use 1 or more.")
        self.batch_size = rows  # by this name accelerate looks for it
        self.drop_last = False
        self.seed = seed
        self.epoch = 0
        self.shuffle = shuffle
        self._buckets = _buckets(encoded.sizes, lengths)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next.

        Args:
            epoch: from 0 on.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        count = sum(len(rows) for rows in self._buckets.values())
        return (count + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        text = f"{self.seed} {self.epoch}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
        generator = torch.Generator().manual_seed(number)
        batches: list[list[int]] = []
        left: list[int] = []
        for own in self._buckets.values():
            # The shorter rows come first: the batch that they are in then has a row of this
            # length too, and what is left over are rows of this length.
            pool = left + [own[i] for i in self._order(len(own), generator)]
            full = len(pool) // self.batch_size * self.batch_size
            batches += [pool[i : i + self.batch_size] for i in range(0, full, self.batch_size)]
            left = pool[full:]
        if left:
            batches.append(left)
        for i in self._order(len(batches), generator):
            yield batches[i]

    def _order(self, count: int, generator: torch.Generator) -> list[int]:
        if not self.shuffle:
            return list(range(count))
        order: list[int] = torch.randperm(count, generator=generator).tolist()
        return order


def shapes(encoded: Encoded, lengths: Sequence[int], rows: int) -> tuple[tuple[int, int], ...]:
    """Return the distinct shapes of an epoch's batches.

    Args:
        encoded: the rows.
        lengths: the padded lengths, as from `choose_lengths`.
        rows: of a batch.

    Returns:
        (rows, padded length) of each, the one with the most tokens first.

    Raises:
        InputError: a row is longer than the longest length, or there are no rows.
    """
    found: set[tuple[int, int]] = set()
    left = 0
    for length, own in _buckets(encoded.sizes, lengths).items():
        full, left = divmod(left + len(own), rows)
        if full:
            found.add((rows, length))
    if left:
        found.add((left, length))
    return tuple(sorted(found, key=lambda shape: (shape[0] * shape[1], shape[1]), reverse=True))


def _buckets(sizes: Sequence[int], lengths: Sequence[int]) -> dict[int, list[int]]:
    """Return by padded length the rows that it is the shortest for; none is empty."""
    if not sizes:
        raise InputError("there are no rows to make batches of.", hint="give some rows.")
    ordered = sorted(lengths)
    where = np.searchsorted(np.asarray(ordered), np.asarray(sizes))
    found: dict[int, list[int]] = {}
    for bucket in range(len(ordered)):
        rows = np.flatnonzero(where == bucket).tolist()
        if rows:
            found[ordered[bucket]] = rows
    if (where == len(ordered)).any():
        raise _too_long(max(sizes), ordered)
    return found


def _too_long(size: int, lengths: Sequence[int]) -> InputError:
    longest = max(lengths, default=0)
    return InputError(
        f"a row has {size} tokens, more than the longest padded length of {longest}.",
        hint="choose the lengths from all rows, those for evaluation too.",
    )


# --- tensors ------------------------------------------------------------------------------------


class Collator:
    """Makes a batch of rows, padded to the shortest of a few lengths that holds all of them.

    Without a pad token rows are filled up with the end-of-text token; the attention mask counts
    tokens, so that a real one stays visible. It holds plain numbers, and goes to workers.

    Args:
        tokenizer: whose padding token and side are used.
        lengths: the padded lengths, as from `choose_lengths`.
        task: ``classification`` or ``lm``.

    Attributes:
        pad_id: the token that fills rows up; a model that finds a row's last token by it needs
            it as ``config.pad_token_id``.

    Raises:
        InputError: there are no lengths, or the tokenizer has neither token.
    """

    def __init__(self, tokenizer: Tokenizer, lengths: Sequence[int], *, task: Task) -> None:
        pad = tokenizer.pad_token_id
        pad = tokenizer.eos_token_id if pad is None else pad
        if pad is None:
            raise InputError(
                "the tokenizer has neither a padding nor an end-of-text token.",
                hint="set its pad_token.",
            )
        if not lengths:
            raise InputError("no padded length was given.", hint="see choose_lengths.")
        self.pad_id = pad
        self.lengths = tuple(sorted(lengths))
        self.task: Task = task
        self._type = tokenizer.pad_token_type_id
        self._left = tokenizer.padding_side == "left"

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Args:
            items: rows of an `Encoded`.

        Returns:
            int64 tensors ``input_ids``, ``attention_mask`` (not where rows of lm are full) and,
            where the rows have them, ``token_type_ids``, each [rows, padded length]; ``labels``
            is [rows] for classification, and [rows, padded length] for lm, -100 where there is
            padding.

        Raises:
            InputError: a row is longer than the longest length.
        """
        longest = max(len(item["input_ids"]) for item in items)
        length = next((n for n in self.lengths if n >= longest), None)
        if length is None:
            raise _too_long(longest, self.lengths)
        ids = [item["input_ids"] for item in items]
        batch = {"input_ids": self._padded(ids, length, self.pad_id)}
        # Rows of lm are full. Without a mask models take the faster attention, which keeps less.
        if self.task != "lm" or min(map(len, ids)) < length:
            batch["attention_mask"] = self._padded([[1] * len(row) for row in ids], length, 0)
        if "token_type_ids" in items[0]:
            types = [item["token_type_ids"] for item in items]
            batch["token_type_ids"] = self._padded(types, length, self._type)
        if self.task == "lm":
            batch["labels"] = self._padded(ids, length, IGNORED)
        elif "label" in items[0]:
            batch["labels"] = torch.tensor([item["label"] for item in items])
        return batch

    def _padded(self, rows: Sequence[Sequence[int]], length: int, value: int) -> torch.Tensor:
        padded = np.full((len(rows), length), value, dtype=np.int64)
        for i, row in enumerate(rows):
            start = length - len(row) if self._left else 0
            padded[i, start : start + len(row)] = row
        return torch.from_numpy(padded)
