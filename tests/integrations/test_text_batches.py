"""Tokens in batches of few shapes: every row once, the least padding, the same on resuming."""

from __future__ import annotations

import doctest
import itertools
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from shoestring.core.errors import InputError
from shoestring.integrations import text_batches
from shoestring.integrations.text_batches import (
    BucketBatches,
    Collator,
    Encoded,
    Item,
    choose_lengths,
    encode,
    shapes,
)
from shoestring.integrations.text_data import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "log", "and", "then", "slept"]
SENTENCES = tuple(" ".join(WORDS[i % 7 :] + WORDS[: i % 5]) for i in range(60))


def tokenizer_of(
    *, special: bool = True, pad: str | None = "[PAD]", eos: str | None = None, side: str = "right"
) -> PreTrainedTokenizerFast:
    """Return a real tokenizer, made here: one token a word, or [CLS] words [SEP]."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    names = ["[UNK]", *(name for name in (pad, eos) if name), "[CLS]", "[SEP]", *WORDS]
    core = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if special:
        core.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:1",
            special_tokens=[("[CLS]", names.index("[CLS]")), ("[SEP]", names.index("[SEP]"))],
        )
    # As in files that are published: both must not have a say in what is encoded.
    core.enable_truncation(3)
    core.enable_padding(length=40)
    made: PreTrainedTokenizerFast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token=pad,
        eos_token=eos,
        padding_side=side,
        model_max_length=12,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if special
        else ["input_ids", "attention_mask"],
    )
    return made


def examples_of(texts: Sequence[str], *, lm: bool = False) -> Examples:
    labels = None if lm else tuple(i % 3 for i in range(len(texts)))
    return Examples(tuple(texts), labels, () if lm else ("x", "y", "z"), ())


def rows_of(sizes: Sequence[int]) -> Encoded:
    """Return rows of these sizes, each token of which is 1 + the row's index."""
    ids = [torch.full((size,), 1 + i, dtype=torch.int32) for i, size in enumerate(sizes)]
    return Encoded(
        torch.cat(ids) if ids else torch.zeros(0, dtype=torch.int32),
        torch.tensor(sizes, dtype=torch.int64).cumsum(0),
        labels=[i % 2 for i in range(len(sizes))],
    )


# --- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, 9, 64])
def test_rows_are_what_the_tokenizer_makes_of_single_texts(length: int) -> None:
    tokenizer = tokenizer_of()
    texts = SENTENCES * 40  # more than are tokenised at once
    encoded = encode(examples_of(texts), tokenizer, task="classification", length=length)
    assert len(encoded) == len(texts)
    cut = 0
    for i in (*range(60), 999, 1000, 1001, len(texts) - 1):
        words = texts[i].split()
        cut += i < 60 and len(words) > length - 2
        kept = ["[CLS]", *words[: length - 2], "[SEP]"]
        ids = tokenizer.convert_tokens_to_ids(kept)
        types = [0] * (len(kept) - 1) + [1]
        assert encoded[i] == {"input_ids": ids, "token_type_ids": types, "label": i % 3}
        assert encoded.sizes[i] == len(ids)
    assert encoded.truncated == 40 * cut
    assert (length == 64) == (encoded.truncated == 0)
    assert encoded[-1] == encoded[len(encoded) - 1]
    with pytest.raises(IndexError):
        encoded[len(encoded)]


def test_lm_rows_are_blocks_of_the_joined_texts() -> None:
    tokenizer = tokenizer_of(eos="[EOS]")
    encoded = encode(examples_of(SENTENCES, lm=True), tokenizer, task="lm", length=16)
    stream = [
        token
        for text in SENTENCES
        for token in tokenizer.convert_tokens_to_ids([*text.split(), "[EOS]"])
    ]
    assert [token for i in range(len(encoded)) for token in encoded[i]["input_ids"]] == stream[
        : len(stream) // 16 * 16
    ]
    assert encoded.dropped == len(stream) % 16
    assert set(encoded.sizes) == {16}
    assert all(encoded[i]["labels"] == encoded[i]["input_ids"] for i in range(len(encoded)))
    assert encoded.truncated == 0


def test_too_little_text_for_a_block_gives_no_row() -> None:
    tokenizer = tokenizer_of(eos="[EOS]")
    encoded = encode(examples_of(["the cat"], lm=True), tokenizer, task="lm", length=8)
    assert (len(encoded), encoded.sizes, encoded.dropped) == (0, (), 3)
    with pytest.raises(IndexError):
        encoded[0]


@pytest.mark.parametrize(
    ("texts", "task", "length", "eos", "message"),
    [
        (["a"], "lm", 8, None, "no end-of-text token"),
        (["a"], "lm", 0, "[EOS]", "rows of 0 tokens"),
        (["a", " "], "classification", 8, "[EOS]", r"no tokens of text 2, ' '"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    texts: list[str], task: str, length: int, eos: str | None, message: str
) -> None:
    tokenizer = tokenizer_of(special=False, eos=eos)
    examples = examples_of(texts, lm=task == "lm")
    with pytest.raises(InputError, match=message) as error:
        encode(examples, tokenizer, task=task, length=length)  # type: ignore[arg-type]
    assert error.value.hint


def test_texts_without_labels_are_refused_for_classification() -> None:
    with pytest.raises(InputError, match="no labels"):
        encode(examples_of(["a"], lm=True), tokenizer_of(), task="classification", length=8)


# --- lengths ------------------------------------------------------------------------------------


def padding(sizes: Sequence[int], lengths: Sequence[int], longest: int) -> int:
    cut = [min(size, longest) for size in sizes]
    return sum(min(n for n in lengths if n >= size) - size for size in cut)


@given(
    sizes=st.lists(st.integers(0, 70), min_size=1, max_size=25),
    most=st.integers(1, 5),
    multiple=st.sampled_from([1, 8, 16]),
    longest=st.integers(1, 64),
)
@example(sizes=[1, 2], most=2, multiple=1, longest=8)
def test_no_other_lengths_add_less_padding(
    sizes: list[int], most: int, multiple: int, longest: int
) -> None:
    chosen = choose_lengths(sizes, most=most, multiple=multiple, longest=longest)
    assert list(chosen) == sorted(set(chosen))
    assert 1 <= len(chosen) <= most
    assert all(n % multiple == 0 or n == longest for n in chosen)
    assert chosen[-1] <= longest
    allowed = sorted({*range(multiple, longest, multiple), longest})
    if len(allowed) > 10:  # only those that some row needs can be of use
        needed = [min(n for n in allowed if n >= min(size, longest)) for size in sizes]
        allowed = sorted(set(needed))[-12:]
        if len(allowed) == 12:
            return
    biggest = min(max(sizes), longest)
    found = {
        count: min(
            padding(sizes, lengths, longest)
            for lengths in itertools.combinations(allowed, count)
            if lengths[-1] >= biggest
        )
        for count in range(1, min(most, len(allowed)) + 1)
    }
    least = min(found.values())
    assert padding(sizes, chosen, longest) == least
    assert len(chosen) == min(count for count, cost in found.items() if cost == least)


def test_a_long_table_of_lengths_takes_no_time() -> None:
    chosen = choose_lengths(range(1, 8193), most=8, longest=8192)
    assert chosen == tuple(range(1024, 8193, 1024))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ([], {"longest": 8}),
        ([1], {"longest": 0}),
        ([1], {"longest": 8, "most": 0}),
        ([1], {"longest": 8, "multiple": 0}),
        ([-1], {"longest": 8}),
    ],
)
def test_lengths_that_cannot_be_chosen_are_refused(
    sizes: list[int], options: dict[str, int]
) -> None:
    with pytest.raises(InputError) as error:
        choose_lengths(sizes, **options)  # type: ignore[arg-type]
    assert error.value.hint


# --- batches ------------------------------------------------------------------------------------

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=60)
LENGTHS = (8, 16, 24, 40)


@given(sizes=SIZES, rows=st.integers(1, 9), seed=st.integers(0, 3), shuffle=st.booleans())
def test_every_row_comes_once_in_batches_of_the_shapes_announced(
    sizes: list[int], rows: int, seed: int, shuffle: bool
) -> None:
    encoded = rows_of(sizes)
    sampler = BucketBatches(encoded, LENGTHS, rows=rows, seed=seed, shuffle=shuffle)
    collator = Collator(PLAIN, LENGTHS, task="classification")
    counts = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
        assert len(batches) == len(sampler) == -(-len(sizes) // rows)
        assert sum(len(batch) < rows for batch in batches) <= 1
        made = [collator([encoded[i] for i in batch])["input_ids"].shape for batch in batches]
        counts.append(Counter(tuple(shape) for shape in made))
    assert counts[0] == counts[1] == counts[2]
    announced = shapes(encoded, LENGTHS, rows)
    assert set(announced) == set(counts[0])
    tokens = [count * length for count, length in announced]
    assert tokens == sorted(tokens, reverse=True)


@given(sizes=SIZES, rows=st.integers(1, 9))
def test_only_what_is_left_over_is_padded_further(sizes: list[int], rows: int) -> None:
    """Of each length fewer rows than a batch has move to a longer one."""
    encoded = rows_of(sizes)
    moved: Counter[int] = Counter()
    for batch in BucketBatches(encoded, LENGTHS, rows=rows, seed=0):
        own = [min(n for n in LENGTHS if n >= sizes[i]) for i in batch]
        moved.update(length for length in own if length < max(own))
    assert all(count < rows for count in moved.values())


def test_epochs_and_seeds_differ_and_repeat() -> None:
    encoded = rows_of([1 + i % 40 for i in range(200)])

    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = BucketBatches(encoded, LENGTHS, rows=8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    seen = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(a != b for a, b in itertools.combinations(seen, 2))
    assert [order(seed, epoch) for seed in range(3) for epoch in range(3)] == seen
    # Rows meet other rows, and long batches do not come last.
    groups = [{frozenset(batch) for batch in batches} for batches in seen[:2]]
    assert len(groups[0] & groups[1]) < len(groups[0]) / 2


def test_the_order_without_shuffling_is_that_of_the_rows() -> None:
    encoded = rows_of([3, 30, 5, 20, 7])
    sampler = BucketBatches(encoded, LENGTHS, rows=2, seed=0, shuffle=False)
    assert list(sampler) == [[0, 2], [4, 3], [1]]


def test_the_global_random_numbers_are_left_alone() -> None:
    before = torch.get_rng_state()
    list(BucketBatches(rows_of([1, 2, 3, 30]), LENGTHS, rows=2, seed=0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    first = list(BucketBatches(rows_of(range(1, 40)), LENGTHS, rows=2, seed=0))
    torch.manual_seed(2)
    assert list(BucketBatches(rows_of(range(1, 40)), LENGTHS, rows=2, seed=0)) == first


def test_a_fresh_process_sees_the_same_batches() -> None:
    code = """
import torch
from shoestring.integrations.text_batches import BucketBatches, Encoded
sizes = torch.arange(1, 41)
encoded = Encoded(torch.zeros(int(sizes.sum()), dtype=torch.int32), sizes.cumsum(0))
sampler = BucketBatches(encoded, (8, 16, 24, 40), rows=4, seed=7)
sampler.set_epoch(2)
print(list(sampler))
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    sampler = BucketBatches(rows_of(range(1, 41)), LENGTHS, rows=4, seed=7)
    sampler.set_epoch(2)
    assert runs[0].stdout == runs[1].stdout == f"{list(sampler)}\n"


def test_a_resumed_epoch_goes_on_with_its_own_batches() -> None:
    """Through accelerate, in the order in which the Trainer calls it."""
    accelerate = pytest.importorskip("accelerate")
    encoded = rows_of([1 + i % 40 for i in range(50)])
    collator = Collator(PLAIN, LENGTHS, task="classification")

    def loader() -> DataLoader[Item]:
        sampler = BucketBatches(encoded, LENGTHS, rows=4, seed=0)
        made: DataLoader[Item] = accelerate.Accelerator(cpu=True).prepare(
            DataLoader(encoded, batch_sampler=sampler, collate_fn=collator)
        )
        return made

    def ids(batches: object, epoch: int) -> list[list[int]]:
        batches.set_epoch(epoch)  # type: ignore[attr-defined]
        inner = getattr(batches.batch_sampler, "batch_sampler", None)  # type: ignore[attr-defined]
        if hasattr(inner, "set_epoch"):
            inner.set_epoch(epoch)
        return [batch["input_ids"].amax(1).tolist() for batch in batches]  # type: ignore[attr-defined]

    whole = loader()
    first, second = ids(whole, 0), ids(whole, 1)
    assert first != second
    assert len(first) == len(second) == 13
    assert ids(accelerate.skip_first_batches(loader(), 5), 1) == second[5:]


@pytest.mark.parametrize(
    ("sizes", "rows", "message"),
    [
        ([1, 41], 2, "a row has 41 tokens, more than the longest padded length of 40"),
        ([], 2, "there are no rows"),
        ([1], 0, "batches of 0 rows"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(sizes: list[int], rows: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        BucketBatches(rows_of(sizes), LENGTHS, rows=rows, seed=0)
    assert error.value.hint


# --- tensors ------------------------------------------------------------------------------------


class Plain:
    """The properties of a tokenizer that a collator looks at."""

    padding_side = "right"
    pad_token_id: int | None = 0
    pad_token_type_id = 3
    eos_token_id: int | None = None

    def __call__(self, text: list[str], **options: object) -> dict[str, list[list[int]]]:
        raise AssertionError("a collator does not tokenise")


PLAIN = Plain()


def obvious(
    items: Sequence[Item], lengths: Sequence[int], *, pad: int, kind: int, left: bool, lm: bool
) -> dict[str, list[list[int]] | list[int]]:
    """Return a batch as lists, the slow way."""
    length = min(n for n in lengths if n >= max(len(item["input_ids"]) for item in items))

    def fill(row: list[int], value: int) -> list[int]:
        rest = [value] * (length - len(row))
        return rest + row if left else row + rest

    made: dict[str, list[list[int]] | list[int]] = {
        "input_ids": [fill(item["input_ids"], pad) for item in items],
        "attention_mask": [fill([1 for _ in item["input_ids"]], 0) for item in items],
    }
    if all("token_type_ids" in item for item in items):
        made["token_type_ids"] = [fill(item["token_type_ids"], kind) for item in items]
    if lm:
        made["labels"] = [fill(item["labels"], -100) for item in items]
    else:
        made["labels"] = [item["label"] for item in items]
    return made


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    left=st.booleans(),
    lm=st.booleans(),
    types=st.booleans(),
    pad=st.sampled_from([None, 0, 7]),
)
def test_batches_are_what_the_obvious_version_makes(
    sizes: list[int], left: bool, lm: bool, types: bool, pad: int | None
) -> None:
    tokenizer = Plain()
    tokenizer.padding_side = "left" if left else "right"
    tokenizer.pad_token_id, tokenizer.eos_token_id = pad, 9
    items: list[Item] = []
    for i, size in enumerate(sizes):
        # The end-of-text token is in the texts too, where it must not be masked.
        item: Item = {"input_ids": [9, *range(5, 5 + size - 1)]}
        if types:
            item["token_type_ids"] = [j % 2 for j in range(size)]
        if lm:
            item["labels"] = list(item["input_ids"])
        else:
            item["label"] = i
        items.append(item)
    collator = Collator(tokenizer, LENGTHS, task="lm" if lm else "classification")
    batch = collator(items)
    filler = 9 if pad is None else pad
    assert collator.pad_id == filler
    expected = obvious(items, LENGTHS, pad=filler, kind=3, left=left, lm=lm)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_is_what_the_tokenizer_itself_would_pad(side: str) -> None:
    tokenizer = tokenizer_of(side=side)
    encoded = encode(examples_of(SENTENCES), tokenizer, task="classification", length=64)
    batch = Collator(tokenizer, (24,), task="classification")([encoded[i] for i in range(60)])
    own = tokenizer(
        list(SENTENCES), padding="max_length", max_length=24, truncation=True, return_tensors="pt"
    )
    assert {*own} == {"input_ids", "token_type_ids", "attention_mask"}
    assert all(torch.equal(batch[name], own[name]) for name in own)


def test_a_tokenizer_without_a_pad_token_fills_up_with_its_last() -> None:
    tokenizer = tokenizer_of(special=False, pad=None, eos="[EOS]")
    examples = examples_of(["the cat", "a dog sat on"])
    encoded = encode(examples, tokenizer, task="classification", length=8)
    collator = Collator(tokenizer, (8,), task="classification")
    batch = collator([encoded[0], encoded[1]])
    assert collator.pad_id == tokenizer.eos_token_id
    assert batch["input_ids"][0, 2:].tolist() == [tokenizer.eos_token_id] * 6
    assert batch["attention_mask"].sum(1).tolist() == [2, 4]
    assert "token_type_ids" not in batch


def test_a_tokenizer_with_neither_token_is_refused() -> None:
    tokenizer = Plain()
    tokenizer.pad_token_id = None
    with pytest.raises(InputError, match="neither a padding nor an end-of-text token") as error:
        Collator(tokenizer, LENGTHS, task="lm")
    assert error.value.hint


def test_a_row_that_no_length_holds_is_refused() -> None:
    encoded = rows_of([41])
    with pytest.raises(InputError, match="a row has 41 tokens") as error:
        Collator(PLAIN, LENGTHS, task="classification")([encoded[0]])
    assert error.value.hint
    with pytest.raises(InputError, match="no padded length"):
        Collator(PLAIN, (), task="lm")


def test_workers_get_collator_and_rows() -> None:
    collator = Collator(tokenizer_of(), LENGTHS, task="classification")
    encoded = rows_of([3, 9])
    again = pickle.loads(pickle.dumps((collator, encoded)))
    batch = again[0]([again[1][0], again[1][1]])
    assert torch.equal(batch["input_ids"], collator([encoded[0], encoded[1]])["input_ids"])


def test_the_examples_of_the_docstrings_run() -> None:
    done = doctest.testmod(text_batches)
    assert done.attempted > 0
    assert done.failed == 0
