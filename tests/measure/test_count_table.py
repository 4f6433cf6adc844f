"""A count as a table: what its lines say, and that nothing is left out."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given

from shoestring.core.errors import InputError
from shoestring.core.trace import Phase
from shoestring.core.units import format_bytes, format_count
from shoestring.measure.counting.counts import Count, Counted, Totals
from shoestring.measure.counting.lines import added, guides, module_lines, op_lines, phase_lines
from shoestring.measure.counting.table import count_table, drawn, print_count
from tests.measure.counted_models import COUNTED, WIDTH, count_of, counted_step, row

ESCAPES = re.compile(r"\x1b")


def labels(count: Count, depth: int | None = None) -> list[str]:
    return [line.name for line in module_lines(count, depth)]


def test_like_numbered_siblings_are_one_line_with_their_sum() -> None:
    c = counted_step(*[2 * WIDTH] * 5)
    lines = {line.path: line for line in module_lines(c, None)}
    folded = lines["body.layers.0 … 4"]
    assert (folded.number, folded.name) == (5, "body.layers.0 … 4 (5)")
    assert folded.cost == added(c.by_module()[f"body.layers.{i}"] for i in range(5))
    up = lines["body.layers.0 … 4.up"]
    assert up.cost == added(c.by_module()[f"body.layers.{i}.up"] for i in range(5))
    assert up.name == "up"


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ([8, 8], ["0", "1"]),
        ([8, 8, 8], ["0 … 2 (3)"]),
        ([16, 8, 8, 8, 16], ["0", "1 … 3 (3)", "4"]),
        ([8, 8, 8, 16, 16, 16], ["0 … 2 (3)", "3 … 5 (3)"]),
        ([8, 16, 8, 16], ["0", "1", "2", "3"]),
    ],
)
def test_only_neighbours_of_one_shape_are_like(widths: list[int], expected: list[str]) -> None:
    lines = module_lines(counted_step(*widths), None)
    depth = "body.layers.0".count(".")
    shown = [line.name for line in lines if line.path.count(".") == depth and "body" in line.path]
    assert [name.removeprefix("body.layers.") for name in shown] == expected


def test_the_first_layer_s_shorter_backward_does_not_part_it_from_the_others() -> None:
    c = count_of(
        *(row(f"h.{i}", flops=100, bytes_read=7) for i in range(4)),
        *(row(f"h.{i}", flops=200, phase=Phase.BACKWARD) for i in range(1, 4)),
    )
    (line,) = [line for line in module_lines(c, None) if line.number > 1]
    assert (line.label, line.cost.flops) == ("h.0 … 3", 4 * 100 + 3 * 200)


def test_a_module_that_only_holds_another_shares_its_line() -> None:
    c = counted_step(8, 8, 8)
    assert labels(c, 1) == ["total", "first", "body.layers.0 … 2 (3)", "head", "(no module)"]
    assert labels(c, 0) == ["total"]


def test_the_lines_of_one_level_sum_to_the_whole() -> None:
    c = counted_step(8, 8, 16)
    lines = module_lines(c, None)
    assert lines[0].cost == c.total
    assert added(line.cost for line in lines if line.level == 1) == c.total
    assert added(line.cost for line in phase_lines(c)) == c.total
    assert added(line.cost for line in op_lines(c)) == c.total
    for most in (1, 2, 3, 100):
        few = op_lines(c, most)
        assert len(few) <= most
        assert added(line.cost for line in few) == c.total


@given(COUNTED)
def test_any_count_can_be_shown_and_nothing_is_lost(counted: Counted) -> None:
    c = Count(lambda: counted)
    lines = module_lines(c, None)
    assert lines[0].cost == c.by_module()[""] == c.total
    assert added(line.cost for line in lines if line.level == 1) in (c.total, Totals())
    assert len(guides(lines)) == len(lines)
    assert added(line.cost for line in phase_lines(c)) == c.total
    text = count_table(c, 2, width=100)
    assert all(line.isprintable() for line in text.splitlines())
    assert c._repr_html_()


def test_the_tree_is_drawn() -> None:
    c = counted_step(8, 16)
    lines = module_lines(c, None)
    shown = [stem + line.name for stem, line in zip(guides(lines), lines, strict=True)]
    assert shown == [
        "total",
        "├─ first",
        "├─ body.layers",
        "│  ├─ 0",
        "│  │  ├─ up",
        "│  │  └─ down",
        "│  └─ 1",
        "│     ├─ up",
        "│     └─ down",
        "├─ head",
        "└─ (no module)",
    ]
    text = count_table(c, None, by="module").splitlines()[3 : 3 + len(shown)]
    assert all(line.startswith(start + " ") for line, start in zip(text, shown, strict=True))


def test_the_table_says_what_the_count_says() -> None:
    c = counted_step(8, 8)
    text = c.table()
    assert str(c) == text
    (total,) = [line for line in text.splitlines() if line.startswith("total")]
    for figure in (c.flops, c.macs, c.elementwise_flops, c.total.calls):
        assert format_count(figure) in total
    assert format_bytes(c.total.bytes) in total
    for phase, cost in c.by_phase().items():
        found = [line for line in text.splitlines() if line.startswith(phase)]
        assert len(found) == (1 if cost.calls else 0)
    assert f"{c.params:,}" in text
    assert format_bytes(c.activation_bytes) in text
    assert f"at least {format_bytes(c.fused_bytes)}" in text
    assert "aten.mm" in text
    assert "NOT COUNTED" not in text


@pytest.mark.parametrize("by", ["module", "phase", "op"])
def test_one_kind_of_line_alone_is_shown_whole(by: str) -> None:
    c = count_of(*(row("a", f"aten.op{i}", flops=i + 1) for i in range(30)))
    text = count_table(c, by=by)  # type: ignore[arg-type]
    heads = {"module": "module ", "phase": "phase ", "op": "operator "}
    for kind, head in heads.items():
        assert any(line.startswith(head) for line in text.splitlines()) == (kind == by)
    assert (len(re.findall(r"aten\.op\d+", text)) == 30) == (by == "op")


def test_an_operator_without_a_formula_is_told_loudly() -> None:
    c = count_of(row(flops=10), row(op="mylib.mine", known=False, calls=3, bytes_read=8))
    last = " ".join(c.table().splitlines()[-2:])
    assert "NOT COUNTED: 1 operator has no formula" in last
    assert "mylib.mine (3 calls)" in last
    page = c.to_html()
    assert page.index("NOT COUNTED") < page.index("<table")


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_a_table_keeps_to_its_width(width: int) -> None:
    long = "encoder.layers.attention_with_a_long_name.projection_of_the_output"
    c = count_of(
        row(
            long,
            "aten._scaled_dot_product_flash_attention_for_cpu_backward",
            flops=10**15,
            macs=10**14,
            elementwise=999_000_000,
            bytes_read=2**45,
            calls=999,
        ),
        row(f"{long}.0.模型", flops=5),
    )
    lines = count_table(c, None, width=width).splitlines()
    assert max(map(len, lines)) <= max(width, 40)
    (total,) = [line for line in lines if line.startswith("total")]
    assert format_count(c.flops) in total
    assert format_bytes(c.total.bytes) in total


def test_names_are_shown_as_they_are_and_not_as_markup() -> None:
    c = count_of(row("[red]x[/red]", flops=1))
    assert "[red]x[/red]" in c.table()


def test_an_empty_count_is_no_error() -> None:
    c = count_of()
    assert "total" in c.table()
    assert "<table" in c.to_html()


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(InputError, match="depth of -1"):
        count_of(row(flops=1)).table(-1)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "    "), (1e-9, "▏   "), (0.5, "██  "), (0.25, "█   "), (1, "████"), (7, "████")],
)
def test_bars(share: float, text: str) -> None:
    assert drawn(share, 4) == text


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [True, False])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_color: bool
) -> None:
    c = count_of(row("a", flops=1), title="net")
    print_count(c)
    assert not ESCAPES.search(capsys.readouterr().out)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    print_count(c)
    colours = re.findall(r"\x1b\[3[0-9]m", terminal.text)
    assert bool(colours) is not no_color
    assert "total" in terminal.text


def test_totals_add() -> None:
    assert added([]) == Totals()
    assert added([Totals(1, 2, 3, 4, 5, 6)] * 2) == Totals(2, 4, 6, 8, 10, 12)
