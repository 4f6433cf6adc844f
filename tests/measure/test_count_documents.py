"""A count as a document: what was written reads back, and nothing else does."""

from __future__ import annotations

import csv
import io
import json
import pickle
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.errors import InputError
from shoestring.core.trace import Phase
from shoestring.measure.counting.counts import Count, Counted
from tests.measure.counted_models import COUNTED, count_of, counted_step, row


@given(COUNTED)
def test_what_was_written_reads_back(counted: Counted) -> None:
    c = Count(lambda: counted)
    again = Count.from_json(c.to_json())
    assert again.counted == counted
    assert again.to_json() == c.to_json()


def test_a_real_count_reads_back_from_its_file(tmp_path: Path) -> None:
    c = counted_step(8, 8, 8)
    path = tmp_path / "count.json"
    c.save(path)
    again = Count.load(path)
    assert again.counted == c.counted
    assert again.by_module() == c.by_module()
    assert str(again) == str(c)
    data = json.loads(path.read_text())
    assert data["schema"] == "shoestring/count/1"
    assert data["total"]["flops"] == c.flops
    assert len(data["names"]["op"]) == len(set(data["names"]["op"]))


def test_a_document_of_many_layers_is_small() -> None:
    c = count_of(*(row(f"layers.{i}.mlp.up", flops=2**40, calls=2) for i in range(10_000)))
    assert len(c.to_json()) < 90 * 10_000


GOOD = json.loads(count_of(row("a", flops=4, macs=2), row("b", known=False), params=3).to_json())


def changed(*path: object, value: object) -> str:
    data = json.loads(json.dumps(GOOD))
    part = data
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (json.dumps(GOOD)[:-40], "is cut short"),
        (changed("schema", value="shoestring/count/2"), "has schema 'shoestring/count/2'"),
        (changed("rows", value=None), "lacks 'rows'"),
        (changed("title", value=None), "lacks 'title'"),
        (changed("title", value=3), "'title' must be a text"),
        (changed("title", value="x" * 10_001), "'title' must be a text"),
        (changed("params", value=-1), "'params' must be a whole number"),
        (changed("params", value=True), "'params' must be a whole number"),
        (changed("params", value=1.5), "'params' must be a whole number"),
        (changed("bytes_in", value=2**63), "too large"),
        (changed("more", value=1), "unknown key 'more'"),
        (changed("names", value=[]), "'names' is no object"),
        (changed("names", "phase", value=["sideways"]), "the phase 'sideways' is unknown"),
        (changed("names", "op", value=[]), "'op' names what is not in its list"),
        (changed("names", "op", value="aten.mm"), "'op' is no list"),
        (changed("names", "colour", value=[]), "unknown key 'colour'"),
        (changed("rows", "flops", value=None), "lacks 'flops'"),
        (changed("rows", "flops", value=[4]), "differ in length"),
        (changed("rows", "flops", value=[4, 1]), "do not sum to its total"),
        (changed("rows", "flops", value=[4, "0"]), "'flops' must be a whole number"),
        (changed("rows", "known", value=[1, 0]), "'known' must be true or false"),
        (changed("rows", "known", value=[False, False]), "not those of its rows"),
        (changed("rows", "module", value=[0, -1]), "'module' must be a whole number"),
        (changed("unknown_ops", value={}), "not those of its rows"),
        (changed("total", "flops", value=5), "do not sum to its total"),
    ],
)
def test_a_damaged_document_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Count.from_json(text)
    assert sentence in caught.value.message
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    assert caught.value.hint


@given(st.data())
def test_a_document_with_one_part_changed_is_refused_or_still_a_count(data: st.DataObject) -> None:
    text = json.dumps(GOOD)
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 6))
    middle = data.draw(st.text(alphabet='0123456789"[]{},:truefals -', max_size=4))
    try:
        found = Count.from_json(text[:start] + middle + text[start + length :])
    except InputError as error:
        assert error.hint
    else:
        assert found.table()


def test_rows_that_are_gone_are_noticed() -> None:
    data = json.loads(counted_step(8, 8).to_json())
    for column in data["rows"].values():
        del column[-1]
    with pytest.raises(InputError, match="do not sum to its total"):
        Count.from_json(json.dumps(data))


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "count.json"
    path.write_bytes(pickle.dumps({"schema": "shoestring/count/1"}))
    with pytest.raises(InputError, match="is not JSON"):
        Count.load(path)
    with pytest.raises(InputError, match="there is no file"):
        Count.load(tmp_path / "none.json")


# --- CSV and HTML ----------------------------------------------------------------------------


@given(COUNTED)
def test_the_csv_has_every_row(counted: Counted) -> None:
    c = Count(lambda: counted)
    lines = list(csv.DictReader(io.StringIO(c.to_csv(), newline="")))
    assert len(lines) == len(counted.rows)
    total = {name: sum(int(line[name]) for line in lines) for name in ("calls", "flops")}
    assert total == {"calls": c.total.calls, "flops": c.flops}
    # The csv module reads a lone \r as the end of a line outside of quotes only.
    assert [line["op"] for line in lines] == [r.op for r in counted.rows]


@pytest.mark.parametrize("by", ["module", "phase", "op"])
def test_the_csv_of_one_kind_says_what_the_count_says(by: str) -> None:
    c = counted_step(8, 8)
    text = c.to_csv(by)  # type: ignore[arg-type]
    lines = list(csv.DictReader(io.StringIO(text)))
    expected = {"module": c.by_module(), "phase": c.by_phase(), "op": c.by_op()}[by]
    assert {line[by]: int(line["bytes_read"]) for line in lines} == {
        name: cost.bytes_read for name, cost in expected.items()
    }


def test_the_depth_of_the_csv_of_modules() -> None:
    lines = counted_step(8).to_csv("module", depth=1).splitlines()
    assert [line.split(",")[0] for line in lines] == ["module", "", "first", "body", "head"]
    with pytest.raises(InputError, match="by='layer'"):
        count_of().to_csv("layer")  # type: ignore[arg-type]


class Nesting(HTMLParser):
    """Checks that elements nest, and collects what a page would ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.words = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.asked += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    c = counted_step(8, 8, 8)
    found = Nesting(c.to_html())
    assert found.asked == []
    assert "script" not in c.to_html()
    assert "body.layers.0 … 2 (3)" in found.words
    assert f"{c.params:,}" in found.words
    for phase in ("forward", "backward", "optimizer"):
        assert phase in found.words
    Nesting(c._repr_html_())


@pytest.mark.parametrize("kind", ["html", "notebook"])
def test_texts_are_escaped(kind: str) -> None:
    evil = "<script>alert('x')</script>\"&"
    c = count_of(row(evil, evil, flops=1, known=False, phase=Phase.BACKWARD), title=evil, params=1)
    page = c.to_html() if kind == "html" else c._repr_html_()
    assert "<script>" not in page
    assert evil in Nesting(page).words
