"""Sizes, durations, percentages and batch specifications."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core import Budget, InputError
from shoestring.core.units import (
    format_bytes,
    format_count,
    format_seconds,
    parse_batch,
    parse_bytes,
    parse_percent,
    parse_seconds,
)

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
PARSERS = (parse_bytes, parse_seconds, parse_percent, parse_batch)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("600MiB", 629_145_600),
        ("1.5GiB", 1_610_612_736),
        ("4GB", 4_000_000_000),
        (" 2 tib ", 2 * 2**40),
        (12, 12),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "2 gigs",
        "",
        "12",
        "-1GiB",
        "1e3MiB",
        "0B",
        "0.2B",
        "inf",
        "nanGiB",
        "٣GiB",
        "9" * 400,
        "2000000TiB",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="size") as caught:
        parse_bytes(text)
    assert caught.value.hint


@pytest.mark.parametrize("value", [0, -1, 2**60 + 1, True, None, 1.5, b"1GiB"])
def test_sizes_of_other_types_or_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(InputError):
        parse_bytes(value)


@given(st.integers(1, 10**5), st.sampled_from(sorted(UNITS)))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * UNITS[unit]
    assert parse_bytes(f"{number} {unit.lower()}") == number * UNITS[unit]


@given(st.integers(1, 2**50))
def test_a_written_size_reads_back_within_its_three_digits(size: int) -> None:
    assert abs(parse_bytes(format_bytes(size)) - size) <= 0.006 * size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (747_634_688, "713 MiB"),
        (58_411_555_225, "54.4 GiB"),
        (-2048, "-2.00 KiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("90s", 90.0), ("2min", 120.0), ("1h", 3600.0), (3, 3.0)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "value", ["soon", "1", "0s", "-1s", 0, -2.0, float("nan"), float("inf"), True]
)
def test_what_is_no_duration_is_refused(value: str | float) -> None:
    with pytest.raises(InputError, match="duration"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12.3 ms"), (1.25, "1.25 s"), (200, "3 min 20 s")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_percentages() -> None:
    assert parse_percent("60%") == 0.6
    assert parse_percent(" 12.5 %") == 0.125
    assert parse_percent("60") is None


@pytest.mark.parametrize("text", ["0%", "101%", "-5%", "many%", "%", "1e1%"])
def test_percentages_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="percentage"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (12, "12"),
        (999, "999"),
        (999.6, "1.00 k"),
        (1000, "1.00 k"),
        (9_995, "10.0 k"),
        (99_950, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (1_249_000_000, "1.25 G"),
        (7 * 10**24, "7000 Z"),
        (-1500, "-1.50 k"),
        (0.25, "0.25"),
    ],
)
def test_counts_are_written_with_three_digits(count: float, text: str) -> None:
    assert format_count(count) == text


@given(st.integers(0, 10**21))
def test_a_written_count_is_within_half_a_percent(count: int) -> None:
    number, _, prefix = format_count(count).partition(" ")
    size = float(number) * 1000.0 ** " kMGTPEZ".index(prefix or " ")
    assert abs(size - count) <= 0.00501 * count


def test_batches() -> None:
    assert parse_batch("32x64") == (32, 64)
    assert parse_batch(" 8X3x224x224 ") == (8, 3, 224, 224)


@pytest.mark.parametrize("text", ["", "32x", "x", "0x64", "32x0", "3.5x2", "-1x2", "1x" * 6 + "1"])
def test_what_is_no_batch_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="batch"):
        parse_batch(text)


@given(st.lists(st.integers(1, 10**9 - 1), min_size=1, max_size=6))
def test_a_batch_reads_back(sizes: list[int]) -> None:
    assert parse_batch("x".join(map(str, sizes))) == tuple(sizes)


# Text near the real thing finds more than text at large.
NEAR = st.text(alphabet="0123456789.xX%-+eE gmkibhsnaMGKIB\u0663\n", max_size=24)


@given(st.one_of(NEAR, st.text(max_size=40)))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text)
        except InputError as error:
            assert error.message.endswith(".")
            assert error.hint


@given(st.one_of(NEAR, st.text(max_size=40)))
def test_a_budget_is_built_of_what_reads_and_of_nothing_else(text: str) -> None:
    try:
        budget = Budget(memory=text)
    except InputError:
        return
    assert text == "auto" or 0 <= budget.memory_bytes(plain_peak=10**9) <= 2**60
