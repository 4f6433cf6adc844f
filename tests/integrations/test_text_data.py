"""A user's own data is read as it is, or refused in one sentence that says where."""

from __future__ import annotations

import collections
import csv
import dataclasses
import doctest
import io
import json
import os
import stat
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.core.errors import InputError
from shoestring.integrations import text_data, text_lines
from shoestring.integrations.text_data import Examples, read_examples, split_examples
from shoestring.integrations.text_lines import split_lines

GOOD = "text,label\nfine,yes\npoor,no\n"


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files; return the only one, or the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / next(iter(files)) if len(files) == 1 else folder


def labelled(examples: Examples) -> list[tuple[str, str]]:
    """Return the texts with the names of their classes."""
    assert examples.labels is not None
    named = [examples.names[label] for label in examples.labels]
    return list(zip(examples.texts, named, strict=True))


# --- what is wrong, and where -------------------------------------------------------------------

# name: (files, what the sentence says)
WHOLE_FILES: dict[str, tuple[dict[str, str | bytes], str]] = {
    "empty": ({"a.csv": ""}, r"a\.csv is empty"),
    "blank": ({"a.csv": "\n \n\r\n"}, r"a\.csv is empty"),
    "only a byte order mark": ({"a.csv": b"\xef\xbb\xbf"}, r"a\.csv is empty"),
    "empty JSON lines": ({"a.jsonl": "\n"}, r"a\.jsonl is empty"),
    "only a header": ({"a.csv": "text,label\n"}, r"a\.csv has a header and no rows"),
    "one class": ({"a.csv": "text,label\na,x\nb,x\n"}, r"all 2 rows have the label 'x'"),
    "duplicate columns": (
        {"a.csv": "text,label,text\n1,2,3\n"},
        r"a\.csv has the column 'text' tw",
    ),
    "header without names": ({"a.csv": ",,\na,b,c\n"}, r"line 1, is a header without names"),
    "broken header": ({"a.csv": '"text,label\na,b\n'}, r"line 1, has no usable header: the quote"),
    "header not UTF-8": ({"a.csv": b"text,l\xe9bel\na,b\n"}, r"header: it is not UTF-8: byte 7 "),
    "UTF-16": ({"a.csv": GOOD.encode("utf-16")}, r"is UTF-16 text, not UTF-8"),
    "UTF-16 without a mark": ({"a.csv": GOOD.encode("utf-16-le")}, r"is a binary file, not text"),
    "binary": ({"a.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256))}, r"is a binary file, not text"),
    "compressed": ({"a.csv": b"\x1f\x8b\x08" + b"abc" * 100}, r"is a binary file, not text"),
    "all zero bytes": ({"a.csv": bytes(100_000)}, r"is a binary file, not text"),
    "one JSON array": (
        {"a.json": '[\n{"text": "a"}\n]'},
        r"is one JSON array, not one JSON object",
    ),
    "one JSON array on a line": ({"a.json": '[{"text": "a"}]\n\n'}, r"is one JSON array"),
    "unknown kind": ({"a.parquet": "x"}, r"a\.parquet is of no known kind"),
    "no labels in plain text": ({"a.txt": "some text"}, r"is plain text, which has no labels"),
    "no text column": (
        {"a.csv": "x,label\na,b\n"},
        r"a\.csv: no column is known to hold the texts",
    ),
    "no label column": ({"a.csv": "text,y\na,b\n"}, r"no column is known to hold the labels"),
    "two text columns": (
        {"a.csv": "tweet,review,label\na,b,c\n"},
        r"2 columns may hold the texts",
    ),
    "folder with other files": ({"d/a.md": "x", "d/b": "y"}, r"holds no usable file"),
    "one class of a folder": (
        {"d/x/a.txt": "a", "d/x/b.txt": "b"},
        r"all 2 rows have the label 'x",
    ),
    "unequal columns": (
        {"d/a.csv": GOOD, "d/b.csv": "text,label,more\na,b,c\n"},
        r"b\.csv has other columns than a\.csv: 'text', 'label', 'more' and 'text', 'label'",
    ),
    "empty file among files": ({"d/a.csv": GOOD, "d/b.csv": ""}, r"b\.csv is empty"),
    "tables beside folders": ({"d/a.csv": GOOD, "d/x/b.txt": "b"}, r"holds both tables \(a\.csv\)"),
    "training and test files": (
        {"d/train.csv": GOOD, "d/test.csv": GOOD},
        r"holds both train\.csv and test\.csv, which would be mixed",
    ),
    "training and test folders": (
        {"d/train/pos/a.txt": "a", "d/test/pos/a.txt": "b"},
        r"holds both train and test, which would be mixed",
    ),
}


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("case", WHOLE_FILES)
def test_a_file_that_cannot_be_used_is_refused(case: str, skip_bad: bool, tmp_path: Path) -> None:
    files, message = WHOLE_FILES[case]
    source = write(tmp_path, files)
    source = tmp_path / "d" if source == tmp_path else source
    with pytest.raises(InputError, match=message) as error:
        read_examples(source, task="classification", skip_bad=skip_bad)
    assert error.value.hint
    assert "\n" not in error.value.message


LM_FILES: dict[str, tuple[dict[str, str | bytes], str]] = {
    "empty": ({"a.txt": ""}, r"a\.txt is empty"),
    "blank": ({"a.txt": " \n\n"}, r"a\.txt is empty"),
    "tables beside texts": ({"d/a.csv": GOOD, "d/b.txt": "b"}, r"holds both tables"),
    "training and test texts": (
        {"d/wiki.train.txt": "a", "d/wiki.test.txt": "b"},
        r"holds both wiki\.train\.txt and wiki\.test\.txt, which would be mixed",
    ),
    "no file": ({"d/a.md": "x", "d/b.md": "y"}, r"holds no usable file"),
}


@pytest.mark.parametrize("case", LM_FILES)
def test_a_file_that_cannot_be_used_is_refused_for_lm(case: str, tmp_path: Path) -> None:
    files, message = LM_FILES[case]
    source = write(tmp_path, files)
    with pytest.raises(InputError, match=message) as error:
        read_examples(tmp_path / "d" if source == tmp_path else source, task="lm")
    assert error.value.hint


# name: (the bad row, how many lines after its first the fault is, the reason)
BAD_CSV: dict[str, tuple[str | bytes, int, str]] = {
    "missing label": ("b,", 0, "the label is missing"),
    "blank label": ("b,  ", 0, "the label is missing"),
    "missing text": (",1", 0, "the text is missing"),
    "blank text": ('" \t",1', 0, "the text is blank"),
    "too few fields": ("b", 0, "the row has 1 field, the header has 2"),
    "too many fields": ("b,b,1", 0, "the row has 3 fields, the header has 2"),
    "text after a quote": ('"b "x" b",1', 0, "text follows a closing quote"),
    "quote not closed": ('"b,1', 0, "the quote opened here is not closed"),
    "bare carriage return": ("b\rb,1", 0, "a carriage return stands alone"),
    "fraction": ("b,1.5", 0, "the label is the fraction 1.5"),
    "NaN": ("b,NaN", 0, "the label is NaN"),
    "zero byte": ("b\0b,1", 0, "it holds a zero byte, as character 2"),
    "not UTF-8": (b"caf\xe9,1", 0, "it is not UTF-8: byte 4 of the line is 0xe9"),
    "not UTF-8 within quotes": (b'"b\ncaf\xe9\nb",1', 1, "byte 4 of the line is 0xe9"),
}
BAD_JSON: dict[str, tuple[str | bytes, int, str]] = {
    "no JSON": ('{"text": "b", label: 1}', 0, "it is not JSON: expecting property name"),
    "cut short": ('{"text": "b', 0, "it is not JSON: unterminated string starting at column 10"),
    "no object": ('["b", 1]', 0, "it is JSON, but no object"),
    "key missing": ('{"text": "b"}', 0, "there is no 'label'"),
    "null label": ('{"text": "b", "label": null}', 0, "the label is missing"),
    "null text": ('{"text": null, "label": 1}', 0, "the text is missing"),
    "number as text": ('{"text": 5, "label": 1}', 0, "the text is a number, not text"),
    "list as label": ('{"text": "b", "label": [1]}', 0, "the label is a list"),
    "fraction": ('{"text": "b", "label": 0.5}', 0, "the label is the fraction 0.5"),
    "NaN": ('{"text": "b", "label": NaN}', 0, "the label is NaN"),
    "infinity": ('{"text": "b", "label": 1e999}', 0, "the label is the fraction inf"),
    "key twice": ('{"text": "b", "text": "b", "label": 1}', 0, "the key 'text' is there twice"),
    "half a character": ('{"text": "b\\ud800", "label": 1}', 0, "half of a surrogate pair"),
    "deep": ('{"text": ' + "[" * 100_000, 0, "nested too deeply"),
    "endless number": ('{"text": "b", "label": ' + "9" * 5000 + "}", 0, "number that is too large"),
    "not UTF-8": (b'{"text": "caf\xe9"}', 0, "byte 14 of the line is 0xe9"),
}
BAD_ROWS = [
    *((f"{kind}: {case}", kind, row) for kind in ("csv", "tsv") for case, row in BAD_CSV.items()),
    *((f"jsonl: {case}", "jsonl", row) for case, row in BAD_JSON.items()),
]
AROUND = {
    "csv": (b"text,label\na,1\n", b"\nc,2\n", 3),
    "tsv": (b"text\tlabel\na\t1\n", b"\nc\t2\n", 3),
    "jsonl": (b'{"text": "a", "label": 1}\n', b'\n{"text": "c", "label": 2}\n', 2),
}


@pytest.mark.parametrize(
    ("kind", "row"), [case[1:] for case in BAD_ROWS], ids=[c[0] for c in BAD_ROWS]
)
def test_a_bad_row_is_named_or_left_out_and_listed(
    kind: str, row: tuple[str | bytes, int, str], tmp_path: Path
) -> None:
    content, further, reason = row
    before, after, line = AROUND[kind]
    content = content if isinstance(content, bytes) else content.encode()
    if kind == "tsv":
        content = content.replace(b"\t", b" ").replace(b",", b"\t")
    name = f"a.{kind}"
    source = write(tmp_path, {name: before + content + after})
    with pytest.raises(InputError) as error:
        read_examples(source, task="classification")
    assert error.value.message.startswith(f"{name}, line {line + further}: ")
    assert reason in error.value.message
    assert "\n" not in error.value.message
    assert error.value.hint.endswith("; --skip-bad leaves such rows out.")

    found = read_examples(source, task="classification", skip_bad=True)
    assert labelled(found) == [("a", "1"), ("c", "2")]
    assert [skipped.place for skipped in found.skipped] == [f"{name}, line {line + further}"]
    assert reason in found.skipped[0].reason


def test_rows_are_told_by_their_first_line(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": 'text,label\n"a\nb\n\nc",1\n"b\nb",\nc,2\n'})
    with pytest.raises(InputError, match=r"a\.csv, line 6: the label is missing"):
        read_examples(source, task="classification")


def test_a_row_of_json_that_is_an_array_is_not_taken_for_an_array_of_rows(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.jsonl": '["b", 1]\n{"text": "a"}\n'})
    with pytest.raises(InputError, match=r"a\.jsonl, line 1: it is JSON, but no object"):
        read_examples(source, task="lm")
    assert read_examples(source, task="lm", skip_bad=True).texts == ("a",)


def test_where_nothing_is_left_it_is_an_error_all_the_same(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "text,label\na,\nb,\n"})
    with pytest.raises(InputError, match=r"no row can be used: 2 were left out, .*, line 2") as e:
        read_examples(source, task="classification", skip_bad=True)
    assert e.value.hint
    source = write(tmp_path, {"a.jsonl": "nonsense\n"})
    with pytest.raises(InputError, match=r"no row can be used: 1 was left out"):
        read_examples(source, task="lm", skip_bad=True)


def test_one_class_that_is_left_is_an_error_all_the_same(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "text,label\na,x\nb,x\nc,\n"})
    with pytest.raises(InputError, match="all 2 rows have the label 'x'"):
        read_examples(source, task="classification", skip_bad=True)


def test_a_label_unseen_in_training_is_named_with_its_row(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "text,label\na,no\nb,maybe\nc,yes\n"})
    with pytest.raises(InputError, match=r"a\.csv, line 3: the label 'maybe' was not") as error:
        read_examples(source, task="classification", names=["yes", "no"])
    assert "'yes', 'no'" in error.value.hint
    found = read_examples(source, task="classification", names=["yes", "no"], skip_bad=True)
    assert (found.names, found.labels) == (("yes", "no"), (1, 0))
    assert [s.place for s in found.skipped] == ["a.csv, line 3"]


def test_names_of_training_allow_data_of_one_class(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "text,label\na,no\n"})
    assert read_examples(source, task="classification", names=["no", "yes"]).labels == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_column": "txt"}, "has no column 'txt'"),
        ({"label_column": "lable"}, "has no column 'lable'"),
        ({"text_column": "label"}, "the column 'label' is both text and label"),
        ({"names": ["a"]}, "fewer than two classes"),
        ({"names": ["a", "a"]}, "not distinct"),
        ({"names": "ab"}, "not distinct"),
        ({"task": "translation"}, "the task 'translation' is unknown"),
        ({"task": "lm", "label_column": "label"}, "without labels"),
        ({"task": "lm", "names": ["a", "b"]}, "without labels"),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    source = write(tmp_path, {"a.csv": GOOD})
    with pytest.raises(InputError, match=message) as error:
        read_examples(source, **{"task": "classification", **options})  # type: ignore[arg-type]
    assert error.value.hint


def test_columns_that_cannot_be_told_are_listed_with_the_option(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "id,words,label\n1,a,x\n2,b,y\n"})
    with pytest.raises(InputError) as error:
        read_examples(source, task="classification")
    assert "'id', 'words', 'label'" in error.value.hint
    assert "--text-column" in error.value.hint
    found = read_examples(source, task="classification", text_column="words")
    assert labelled(found) == [("a", "x"), ("b", "y")]


def test_a_header_that_is_a_row_is_not_taken_for_data(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "what a day,positive\nno good,negative\n"})
    with pytest.raises(InputError, match="no column is known to hold the texts") as error:
        read_examples(source, task="classification")
    assert "'what a day', 'positive'" in error.value.hint


# --- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.csv", "there is no file or folder"),
        ("a.csv/b.csv", "cannot be read"),
        ("x\0y.csv", "cannot be read"),
        ("n" * 300 + ".csv", "cannot be read"),
    ],
)
def test_paths_that_cannot_be_read_are_refused(path: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": GOOD})
    with pytest.raises(InputError, match=message) as error:
        read_examples(f"{tmp_path}/{path}", task="lm")
    assert error.value.hint


def test_no_path_is_not_this_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": GOOD})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the path of the data is empty"):
        read_examples("", task="lm")


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.txt"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is not a file") as error:
        read_examples(tmp_path / name, task="lm")
    assert error.value.hint


def test_a_device_is_refused() -> None:
    with pytest.raises(InputError, match="/dev/zero is not a file"):
        read_examples("/dev/zero", task="lm")


@pytest.mark.parametrize("folder", [False, True])
def test_what_may_not_be_read_is_refused(folder: bool, tmp_path: Path) -> None:
    """In a process without root's right to read everything, where this one has it."""
    source = write(tmp_path, {"d/a.csv": GOOD})
    source = source.parent if folder else source
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    source.chmod(0)
    code = f"""
        import os
        from shoestring.integrations.text_data import InputError, read_examples
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            read_examples({str(source)!r}, task="classification")
        except InputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    source.chmod(0o700)
    assert "cannot be read (permission denied)" in done.stdout, done.stderr
    assert "hint: " in done.stdout


def test_a_disk_that_fails_while_it_is_read_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Failing(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    source = write(tmp_path, {"a.csv": GOOD})
    monkeypatch.setattr(text_lines, "open_text", lambda path: Failing())
    with pytest.raises(InputError, match=r"cannot be read \(input/output error\)"):
        read_examples(source, task="lm")


# --- lines without an end -----------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A line of one letter, made as it is read; counts the bytes taken."""

    def __init__(self, size: int, tail: bytes = b"") -> None:
        self.left, self.tail, self.taken = size, tail, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        count = min(len(buffer), self.left)
        if not count:
            part, self.tail = self.tail[: len(buffer)], self.tail[len(buffer) :]
            buffer[: len(part)] = part
            return len(part)
        buffer[:count] = b"x" * count
        self.left -= count
        self.taken += count
        return count


def peak_of(call: Callable[[], object]) -> tuple[int, float]:
    """Return the most bytes that Python held meanwhile, and the seconds."""
    began = time.perf_counter()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1], time.perf_counter() - began
    finally:
        tracemalloc.stop()


def test_a_line_of_a_gigabyte_is_refused_without_reading_it() -> None:
    stream = Endless(10**9)
    lines = split_lines(io.BufferedReader(stream, 2**20))
    found: list[text_lines.Line] = []
    peak, seconds = peak_of(lambda: found.append(next(lines)))
    assert found[0].fault is not None
    assert found[0].fault.reason == "the line is longer than 16 MiB"
    assert stream.taken <= 18 * 2**20
    assert peak < 200 * 2**20
    assert seconds < 10


def test_a_line_of_a_gigabyte_is_passed_over_in_bounded_memory() -> None:
    stream = Endless(10**9, tail=b"\nnext\n")
    found: list[text_lines.Line] = []
    peak, seconds = peak_of(lambda: found.extend(split_lines(io.BufferedReader(stream, 2**20))))
    assert [(line.number, line.text) for line in found] == [(1, ""), (2, "next\n")]
    assert peak < 200 * 2**20
    assert seconds < 10


@pytest.mark.parametrize(
    ("name", "head", "tail"),
    [
        ("a.csv", "text,label\na,1\n", ",1\nc,2\n"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "', '"}\n{"text": "c", "label": 2}\n'),
    ],
)
def test_a_long_line_of_a_file_is_named_and_can_be_left_out(
    name: str, head: str, tail: str, tmp_path: Path
) -> None:
    source = tmp_path / name
    with source.open("w") as file:
        file.write(head)
        for _ in range(40):
            file.write("word " * (2**20 // 5))
        file.write(tail)
    bad = head.count("\n") + 1

    def refuse() -> None:
        with pytest.raises(InputError, match=f"{name}, line {bad}: the line is longer than 16 MiB"):
            read_examples(source, task="classification")

    peak, seconds = peak_of(refuse)
    assert peak < 100 * 2**20
    assert seconds < 10
    found = read_examples(source, task="classification", skip_bad=True)
    assert labelled(found) == [("a", "1"), ("c", "2")]
    assert [s.place for s in found.skipped] == [f"{name}, line {bad}"]


def test_a_line_of_just_the_most_bytes_is_read() -> None:
    lines = list(split_lines(io.BytesIO(b"1234567\n12345678\n12345678"), most_bytes=8))
    assert [line.text for line in lines] == ["1234567\n", "", "12345678"]
    assert [line.fault is None for line in lines] == [True, False, True]


def test_a_quote_that_is_never_closed_costs_bounded_memory_and_one_row(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    rows = 600_000
    with source.open("w") as file:
        file.write('text,label\n"open,1\n')
        file.writelines(f"a text of some thirty letters {i % 7},{i % 2}\n" for i in range(rows))
    with pytest.raises(InputError, match=r"line 2: the quote .* is not closed within 16 MiB"):
        read_examples(source, task="classification")
    found = read_examples(source, task="classification", skip_bad=True)
    assert len(found) == rows
    assert len(found.skipped) == 1


def test_a_quote_that_is_closed_by_another_rows_costs_only_its_own_row(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": 'text,label\n"open,1\nplain,2\n"quoted",1\n"last\none",2\n'})
    with pytest.raises(InputError, match=r"a\.csv, line 2: text follows .* quote on line 4"):
        read_examples(source, task="classification")
    found = read_examples(source, task="classification", skip_bad=True)
    assert labelled(found) == [("plain", "2"), ("quoted", "1"), ("last\none", "2")]
    assert [s.place for s in found.skipped] == ["a.csv, line 2"]


# --- what is read is what was written -----------------------------------------------------------

TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
).filter(lambda text: not text.isspace())
PIECES = st.lists(
    st.sampled_from(['"', '""', ",", ";", "\t", "|", "\n", "\r\n", "\r", "é", "\u2028", "a", " "]),
    max_size=12,
).map(lambda parts: "x" + "".join(parts))
ROWS = st.lists(st.tuples(TEXTS | PIECES, st.integers(-3, 12).map(str)), min_size=2, max_size=12)


def written(rows: Sequence[tuple[str, str]], delimiter: str, end: str, quoting: int) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    return stream.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@given(
    rows=ROWS,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    form=st.sampled_from(
        [("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]
    ),
    mark=st.booleans(),
)
@example(rows=[('"', "1"), ('a\n"', "2")], delimiter=",", form=("\n", csv.QUOTE_ALL), mark=True)
def test_what_a_csv_writer_wrote_is_read_back(
    rows: list[tuple[str, str]], delimiter: str, form: tuple[str, int], mark: bool, place: Path
) -> None:
    content = written(rows, delimiter, *form).encode("utf-8-sig" if mark else "utf-8")
    for name in ("a.tsv", "a.csv") if delimiter == "\t" else ("a.csv",):
        source = write(place, {name: content})
        found = read_examples(source, task="classification", names=[str(n) for n in range(-3, 13)])
        assert labelled(found) == rows
        assert list(read_examples(source, task="lm").texts) == [text for text, _ in rows]


@given(rows=ROWS, ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_what_json_wrote_is_read_back(
    rows: list[tuple[str, str]], ascii_only: bool, end: str, place: Path
) -> None:
    objects = [{"more": [text], "text": text, "label": int(label)} for text, label in rows]
    lines = [json.dumps(line, ensure_ascii=ascii_only) for line in objects]
    source = write(place, {"a.jsonl": end.join(lines)})
    found = read_examples(source, task="classification", names=[str(n) for n in range(-3, 13)])
    assert labelled(found) == rows


@given(content=st.binary(max_size=200) | st.text('ab,;"\n\r\t', max_size=80).map(str.encode))
@example(content=b'text,label\n"a"b,1\n"c\n')
@example(content=b"\xef\xbb\xbftext\n\xff\n")
def test_any_bytes_are_read_or_refused_in_a_sentence(content: bytes, place: Path) -> None:
    for name in ("any.csv", "any.jsonl", "any.txt", "any.tsv"):
        for head in (b"", b"text,label\n", b'{"text": "a", "label": 1}\n'):
            source = write(place, {name: head + content})
            for skip_bad in (False, True):
                try:
                    found = read_examples(source, task="lm", skip_bad=skip_bad)
                except InputError as error:
                    assert error.hint
                    assert "\n" not in error.message
                else:
                    assert len(found) > 0
                    assert all(text.strip() and text.encode() for text in found.texts)
                    assert skip_bad or not found.skipped


@given(rows=ROWS)
@example(rows=[("\x08", "0"), ("\x1f\x08", "0")])
def test_rows_that_are_good_survive_those_that_are_bad(
    rows: list[tuple[str, str]], place: Path
) -> None:
    lines = written(rows, ",", "\r\n", csv.QUOTE_ALL)
    content = lines + 'bad,row,here\r\n"bad" row,1\r\n' + lines.split("\r\n", 1)[1]
    source = write(place, {"mixed.csv": content})
    names = [str(n) for n in range(-3, 13)]
    found = read_examples(source, task="classification", names=names, skip_bad=True)
    assert labelled(found) == rows + rows
    assert len(found.skipped) == 2


# --- the rest of the formats --------------------------------------------------------------------


def test_the_delimiter_is_the_one_that_fits_the_rows(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "text;label\na, b, c;x\nd, e;y\n"})
    assert labelled(read_examples(source, task="classification")) == [
        ("a, b, c", "x"),
        ("d, e", "y"),
    ]


def test_a_header_that_holds_another_delimiter_does_not_mislead(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "text;label, as told\na;x\nb;y\n"})
    found = read_examples(source, task="classification", label_column="label, as told")
    assert labelled(found) == [("a", "x"), ("b", "y")]


def test_blank_lines_between_rows_do_not_count_but_are_numbered(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": "\n\ntext,label\n\na,x\r\n\r\nb,y\nc,\n"})
    with pytest.raises(InputError, match=r"a\.csv, line 8: the label is missing"):
        read_examples(source, task="classification")


def test_a_column_without_a_name_is_no_duplicate(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": ",text,label,\n0,a,x,\n1,b,y,\n"})
    assert labelled(read_examples(source, task="classification")) == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1.0", "0.0", "2.0"], ("0", "1", "2")),
        ([" b", "a ", "b"], ("a", "b")),
    ],
)
def test_classes_are_sorted(labels: list[str], names: tuple[str, ...], tmp_path: Path) -> None:
    rows = "".join(f"text,{label}\n" for label in labels)
    source = write(tmp_path, {"a.csv": f"text,label\n{rows}"})
    assert read_examples(source, task="classification").names == names


def test_numbers_of_json_that_are_equal_are_one_class(tmp_path: Path) -> None:
    values = ["1", "1.0", '"1"', "0", "true"]
    rows = "\n".join(f'{{"text": "a", "label": {value}}}' for value in values)
    found = read_examples(write(tmp_path, {"a.jsonl": rows}), task="classification")
    assert found.names == ("0", "1", "true")
    assert found.labels == (1, 1, 1, 0, 2)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("one\ntwo\n\n\nthree\r\n \r\nfour", ("one\ntwo", "three", "four")),
        ("one\ntwo\nthree\n\n", ("one", "two", "three")),
        ("\n\none", ("one",)),
        ("a\u2028b\x0cc\nd", ("a\u2028b\x0cc", "d")),
    ],
)
def test_plain_text_is_paragraphs_or_lines(
    content: str, texts: tuple[str, ...], tmp_path: Path
) -> None:
    source = write(tmp_path, {"a.txt": content})
    found = read_examples(source, task="lm")
    assert found == Examples(texts, None, (), ())
    assert read_examples(source, task="lm", names=found.names) == found


def test_a_bad_line_of_plain_text_spoils_its_paragraph(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.txt": b"one\ntwo\n\nthree\n\xff\n\nfour\n"})
    with pytest.raises(InputError, match=r"a\.txt, line 5: it is not UTF-8"):
        read_examples(source, task="lm")
    found = read_examples(source, task="lm", skip_bad=True)
    assert found.texts == ("one\ntwo", "four")
    assert [s.place for s in found.skipped] == ["a.txt, line 5"]


def test_a_folder_of_tables_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    lines = '{"label": "no", "text": "c"}\n'
    write(tmp_path, {"b.jsonl": lines, "a.csv": GOOD, "notes.md": "x", ".hidden.csv": "junk"})
    found = read_examples(tmp_path, task="classification")
    assert labelled(found) == [("fine", "yes"), ("poor", "no"), ("c", "no")]


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    files = {"pos/1.txt": "good\r\nfilm\n", "pos/0.txt": "fine", "neg/0.txt": "bad", "x.txt": "?"}
    write(tmp_path, {**files, "neg/notes.md": "x", "empty/notes.md": "x"})
    found = read_examples(tmp_path, task="classification")
    assert labelled(found) == [("bad", "neg"), ("fine", "pos"), ("good\nfilm", "pos")]


def test_a_bad_file_of_a_class_is_a_bad_row(tmp_path: Path) -> None:
    files = {"pos/1.txt": "", "pos/0.txt": "fine", "neg/0.txt": "bad", "neg/1.txt": b"a\n\xff"}
    write(tmp_path, {**files, "neg/2.txt": bytes(100)})
    with pytest.raises(InputError, match=r"neg/1\.txt, line 2: it is not UTF-8"):
        read_examples(tmp_path, task="classification")
    found = read_examples(tmp_path, task="classification", skip_bad=True)
    assert labelled(found) == [("bad", "neg"), ("fine", "pos")]
    assert [s.place for s in found.skipped] == ["neg/1.txt, line 2", "neg/2.txt", "pos/1.txt"]
    assert "binary" in found.skipped[1].reason
    assert found.skipped[2].reason == "the text is missing"


def test_a_folder_of_texts_is_read_to_its_depths_for_lm(tmp_path: Path) -> None:
    write(tmp_path, {"b.txt": "b", "a/c/d.txt": "d1\n\nd2", "a/x.md": "x", ".git/e.txt": "e"})
    assert read_examples(tmp_path, task="lm").texts == ("d1", "d2", "b")


# --- objects with columns -----------------------------------------------------------------------


@dataclasses.dataclass
class Feature:
    names: list[str]


class Data:
    """What is used of a Dataset of the library datasets."""

    def __init__(self, columns: dict[str, list[object]], **features: Feature) -> None:
        self.columns = columns
        self.features = features

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, object]:
        return {name: values[index] for name, values in self.columns.items()}


def test_an_object_with_columns_is_read() -> None:
    data = Data({"text": ["a", "b", "c"], "label": [2, np.int64(0), np.float64(2.0)]})
    found = read_examples(data, task="classification")
    assert labelled(found) == [("a", "2"), ("b", "0"), ("c", "2")]
    assert read_examples(data, task="lm").labels is None


def test_classes_that_an_object_names_are_called_so() -> None:
    columns = {"text": ["a", "b", "c"], "label": [1, np.int64(0), -1]}
    data = Data(columns, label=Feature(["world", "arts"]))
    with pytest.raises(InputError, match=r"Data, row 3 \(index 2\): the label is missing"):
        read_examples(data, task="classification")
    found = read_examples(data, task="classification", skip_bad=True)
    assert labelled(found) == [("a", "arts"), ("b", "world")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Data({"text": []}), "the Data is empty"),
        (Data({"text": ["a"], "label": [np.zeros(2)]}), "row 1 .*: the label is of another type"),
        (Data({"text": [None], "label": [0]}), "row 1 .*: the text is missing"),
        ([1, 2], "cannot be read from an object of type list"),
        (None, "cannot be read from an object of type NoneType"),
        (3, "cannot be read from an object of type int"),
    ],
)
def test_objects_that_cannot_be_read_are_refused(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_examples(source, task="classification")  # type: ignore[arg-type]
    assert error.value.hint


def test_several_data_sets_at_once_are_refused() -> None:
    class Several(dict[str, object]):
        column_names = {"train": ["text"], "test": ["text"]}  # noqa: RUF012

    with pytest.raises(InputError, match=r"holds several data sets \(train, test\)"):
        read_examples(Several(), task="lm")  # type: ignore[arg-type]


def test_reading_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": GOOD})
    code = (
        "import sys\nfrom shoestring.integrations.text_data import read_examples\n"
        f"read_examples({str(source)!r}, task='classification')\n"
        "print([n for n in ('torch', 'pandas', 'datasets') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- what is held out ---------------------------------------------------------------------------


def made(texts: Sequence[str], labels: Sequence[int] | None) -> Examples:
    names = () if labels is None else tuple(f"c{i}" for i in range(max(labels) + 1))
    return Examples(tuple(texts), None if labels is None else tuple(labels), names, ())


@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["a", "A ", "b", "c", "d", "e", "f", "g"]), st.integers(0, 2)),
        min_size=2,
        max_size=40,
    ),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
    lm=st.booleans(),
)
def test_a_split_loses_nothing_and_leaks_nothing(
    rows: list[tuple[str, int]], share: float, seed: int, lm: bool
) -> None:
    whole = made([text for text, _ in rows], None if lm else [label for _, label in rows])
    try:
        train, held = split_examples(whole, share=share, seed=seed)
    except InputError as error:
        assert "can be held out" in error.message
        # True only where taking any text would empty a class.
        for text in {text.strip().lower() for text in whole.texts}:
            rest = {label for t, label in rows if t.strip().lower() != text}
            assert not rest if lm else rest != {label for _, label in rows}
        return
    assert (train, held) == split_examples(whole, share=share, seed=seed)
    pairs = [list(zip(p.texts, p.labels or (0,) * len(p), strict=True)) for p in (train, held)]
    everything = list(zip(whole.texts, whole.labels or (0,) * len(whole), strict=True))
    assert collections.Counter(pairs[0] + pairs[1]) == collections.Counter(everything)
    assert len(held) > 0
    assert {t.strip().lower() for t in train.texts}.isdisjoint(
        t.strip().lower() for t in held.texts
    )
    if not lm:
        assert set(train.labels or ()) == set(whole.labels or ())
    assert train.names == held.names == whole.names


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_each_class_is_held_out_by_its_share(share: float) -> None:
    labels = [0] * 600 + [1] * 300 + [2] * 20
    whole = made([f"text {i}" for i in range(len(labels))], labels)
    train, held = split_examples(whole, share=share, seed=3)
    assert len(held) == round(share * len(labels))
    for label, count in ((0, 600), (1, 300), (2, 20)):
        assert abs((held.labels or ()).count(label) - share * count) <= 1
    assert len(train) + len(held) == len(labels)
    assert split_examples(whole, share=share, seed=4)[1] != held


def test_many_small_classes_still_give_their_share_together() -> None:
    labels = [i % 50 for i in range(250)]
    whole = made([f"text {i}" for i in range(250)], labels)
    assert len(split_examples(whole, share=0.1, seed=0)[1]) == 25


def test_the_split_does_not_depend_on_the_order_of_rows() -> None:
    labels = [i % 3 for i in range(90)]
    texts = [f"text {i}" for i in range(90)]
    held = split_examples(made(texts, labels), share=0.2, seed=1)[1]
    back = split_examples(made(texts[::-1], labels[::-1]), share=0.2, seed=1)[1]
    assert back.texts == held.texts[::-1]


def test_what_was_skipped_stays_with_training(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.csv": GOOD + "more,yes\nless,no\nx,\n"})
    whole = read_examples(source, task="classification", skip_bad=True)
    train, held = split_examples(whole, share=0.5, seed=0)
    assert (train.skipped, held.skipped) == (whole.skipped, ())


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_outside_of_nought_and_one_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="cannot be held out"):
        split_examples(made(["a", "b"], None), share=share, seed=0)


def test_the_examples_of_the_docstrings_run() -> None:
    done = doctest.testmod(text_data)
    assert done.attempted > 0
    assert done.failed == 0
