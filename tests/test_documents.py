"""Documents are written whole or not at all, and read with limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core import InputError
from shoestring.core.documents import check_replaced, parse_document, read_document, write_text

SCHEMA = "shoestring/plan/1"
HEAD = '{"schema": "shoestring/plan/1", "value": '


def read(path: Path, content: str | bytes) -> dict[str, object]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_document(path, SCHEMA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


def test_what_was_written_reads_back(path: Path) -> None:
    write_text(path, json.dumps({"schema": SCHEMA, "name": "Größe", "sizes": [1, 2.5, None, True]}))
    assert read_document(path, SCHEMA) == {
        "schema": SCHEMA,
        "name": "Größe",
        "sizes": [1, 2.5, None, True],
    }
    assert os.listdir(path.parent) == ["plan.json"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "is cut short"),
        (HEAD + "[1, 2", "is cut short"),
        (HEAD + '"half a te', "is cut short"),
        ("not json", "is not JSON"),
        (HEAD + "1} }", "is not JSON"),
        (b"\x80\x04\x95\x00", "is not JSON: it is not text"),
        ("[]", "has no .schema."),
        ("{}", "has no .schema."),
        ('{"schema": 1}', "has no .schema."),
        ('{"schema": "shoestring/plan/2"}', "has schema 'shoestring/plan/2'"),
        (HEAD + "1, " + '"value": 2}', "the key 'value' twice"),
        (HEAD + "NaN}", "the number NaN"),
        (HEAD + "-Infinity}", "the number -Infinity"),
        (HEAD + "1e999}", "the number 1e999"),
        (HEAD + "9223372036854775808}", "the number 9223372036854775808"),
        (HEAD + "-" + "9" * 1_000_000 + "}", "the number -99999999999..."),
        (HEAD + "0." + "9" * 1_000_000 + "}", "the number 0.9999999999..."),
        (HEAD + "[" * 80 + "]" * 80 + "}", "nested more than 64 deep"),
        (HEAD + "[" * 200_000 + "]" * 200_000 + "}", "nested more than 64 deep"),
        (HEAD + '{"a":' * 200_000, "nested more than 64 deep"),
        (HEAD + '"\\ud800"}', "text that is not Unicode"),
        (HEAD + '{"\\ud800": 1}}', "text that is not Unicode"),
    ],
)
def test_a_broken_document_is_refused_in_a_clear_sentence(
    path: Path, content: str | bytes, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read(path, content)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert len(str(caught.value)) < 400 + len(str(path))


def test_the_largest_numbers_and_depths_allowed_are_read(path: Path) -> None:
    assert read(path, HEAD + "9223372036854775807}")["value"] == 2**63 - 1
    assert read(path, HEAD + "-1.7976931348623157e308}")["value"] == -sys.float_info.max
    read(path, HEAD + "[" * 63 + "]" * 63 + "}")


def test_a_large_file_is_refused(path: Path) -> None:
    content = json.dumps({"schema": SCHEMA, "text": "x" * 1000})
    path.write_text(content)
    assert read_document(path, SCHEMA, most_bytes=len(content))
    with pytest.raises(InputError, match=f"more than {len(content) - 1} bytes"):
        read_document(path, SCHEMA, most_bytes=len(content) - 1)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_document(tmp_path / "absent.json", SCHEMA)
    with pytest.raises(InputError, match="is not a file"):
        read_document(tmp_path, SCHEMA)
    with pytest.raises(InputError, match="cannot be read"):
        read_document("a\0b", SCHEMA)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be read"):
        read_document(tmp_path / "file" / "plan.json", SCHEMA)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(20)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a file"):
        read_document(tmp_path / "pipe", SCHEMA)


def test_a_device_is_left_alone() -> None:
    with pytest.raises(InputError, match="no regular file"):
        write_text(os.devnull, "text")
    assert not Path(os.devnull).is_file()


def test_an_unwritable_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for target in (tmp_path / "absent" / "plan.json", tmp_path / "file" / "plan.json"):
        with pytest.raises(InputError, match="cannot be written") as caught:
            write_text(target, "text")
        assert caught.value.hint
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_way_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "plan.json", "text")
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_full_disk_leaves_the_old_file_and_no_other(path: Path) -> None:
    """The limit on the size of files fails in the middle of a write, as a full disk does."""
    pytest.importorskip("resource")
    path.write_text("old")
    code = """
        import resource, sys
        from shoestring.core import InputError
        from shoestring.core.documents import write_text
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_text(sys.argv[1], "x" * 1_000_000)
        except InputError as error:
            print(error.message)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot be written (file too large)" in done.stdout, done.stderr
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["plan.json"]


def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    path.write_text("old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["plan.json"]


def test_text_that_cannot_be_encoded_leaves_nothing(path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert os.listdir(path.parent) == []


def test_a_written_file_has_the_rights_of_any_new_file(path: Path) -> None:
    write_text(path, "text")
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda below: (
        st.lists(below) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), below)
    ),
    max_leaves=20,
)
DOCUMENTS = st.builds(lambda value: {"schema": SCHEMA, "value": value}, JSON)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], dict[str, object]]:
    path = tmp_path_factory.mktemp("fuzz") / "plan.json"
    return lambda content: read(path, content)


@given(DOCUMENTS)
def test_every_document_within_the_limits_reads_back(
    fuzzed: Callable[[bytes], dict[str, object]], document: dict[str, object]
) -> None:
    assert fuzzed(json.dumps(document).encode()) == document
    assert fuzzed(json.dumps(document, ensure_ascii=False).encode()) == document


@given(DOCUMENTS, st.data())
def test_every_document_cut_short_is_refused(
    fuzzed: Callable[[bytes], dict[str, object]], document: dict[str, object], data: st.DataObject
) -> None:
    content = json.dumps(document).encode()
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(InputError):
        fuzzed(content[:cut])


@given(DOCUMENTS, st.data())
def test_a_damaged_document_is_read_or_refused(
    fuzzed: Callable[[bytes], dict[str, object]], document: dict[str, object], data: st.DataObject
) -> None:
    content = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert fuzzed(bytes(content))["schema"] == SCHEMA
    except InputError as error:
        assert error.hint


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]",:0123456789eE+-.truefalsn\\u ').map(str.encode)
)
def test_any_bytes_are_refused(
    fuzzed: Callable[[bytes], dict[str, object]], content: bytes
) -> None:
    with pytest.raises(InputError):
        fuzzed(content)


def test_text_is_read_as_a_file_is(path: Path) -> None:
    good = '{"schema": "shoestring/plan/1", "value": 1}'
    assert parse_document(good, SCHEMA) == read(path, good)
    for text, sentence in (
        ("", "the text is empty"),
        (good[:-3], "the text is cut short"),
        (good.replace("plan", "run"), "the text has schema"),
        (HEAD + '"\ud800"}', "is not JSON: it is not text"),
    ):
        with pytest.raises(InputError, match=sentence):
            parse_document(text, SCHEMA)
    with pytest.raises(InputError, match="message has more than 8 bytes"):
        parse_document(good, SCHEMA, name="message", most_bytes=8)


def test_only_our_own_files_are_replaced(path: Path) -> None:
    def check() -> None:
        check_replaced(path, "<ours>", "no page", hint="name another.")

    check()
    for content in ("", "<head><ours>"):
        path.write_text(content)
        check()
    path.write_text("notes")
    with pytest.raises(InputError, match="is there already, and is no page"):
        check()
    path.write_text(" " * 2000 + "<ours>")
    with pytest.raises(InputError, match="no page"):
        check()
