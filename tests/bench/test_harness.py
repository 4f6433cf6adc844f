import dataclasses
import json
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import roofline_table, run, tables, techniques_table, trainers_results
from bench.attacks import records as attacks_records
from bench.counters import flopco, records
from bench.harness import (
    RESULTS,
    SCHEMA,
    Result,
    files_of,
    interleave,
    is_older,
    make_result,
    ratio_and_spread,
    read_result,
    source_hash,
    write_result,
)
from bench.remat import records as remat_records
from bench.zeroth.finetune import table as finetune_table
from bench.zeroth.suggested import table as suggested_table
from shoestring.core.errors import InputError

FOREIGN = {
    tables.HONESTY,
    tables.DEMO,
    tables.FORWARDED,
    techniques_table.SCHEMA,
    trainers_results.SCHEMA,
    records.SCHEMA,
    flopco.SCHEMA,
    roofline_table.SCHEMA,
    remat_records.SCHEMA,
    attacks_records.SCHEMA,
    finetune_table.SCHEMA,
    suggested_table.SCHEMA,
}
"""Schemas of results that have a format of their own."""


def result(**changes: object) -> Result:
    made = make_result(
        "room/thing",
        ours="ours",
        peer="theirs",
        samples={"ours": [1.0, 2.0, 3.0], "peer": [4.0, 4.0]},
        unit="CPU s",
        rooms=("core",),
        command=("bench.thing", "a b"),
        limit=1.0,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_sides_take_turns_and_warm_ups_do_not_count() -> None:
    calls: list[str] = []
    now = 0.0

    def side(name: str, seconds: list[float]) -> Callable[[], None]:
        def function() -> None:
            nonlocal now
            now += seconds[calls.count(name)]
            calls.append(name)

        return function

    samples = interleave(
        side("A", [9.0, 1.0, 2.0]), side("B", [9.0, 3.0, 4.0]), rounds=2, clock=lambda: now
    )
    assert calls == ["A", "B", "A", "B", "A", "B"]
    assert samples == {"ours": [1.0, 2.0], "peer": [3.0, 4.0]}


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="round"):
        interleave(lambda: None, lambda: None, rounds=0)


def test_ratio_is_of_medians_and_spread_of_all_pairs() -> None:
    ratio, spread = ratio_and_spread([1.0, 2.0, 30.0], [4.0])
    assert ratio == 0.5
    # Pairs 0.25, 0.5 and 7.5: a fifth of the way into each outer gap.
    assert spread == pytest.approx((0.3, 6.1))
    assert ratio_and_spread([3.0], [3.0]) == (1.0, (1.0, 1.0))


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = result()
    path = write_result(made, tmp_path)
    assert path == tmp_path / "room" / "thing.json"
    assert read_result(path) == made
    assert json.loads(path.read_text("utf-8"))["schema"] == SCHEMA
    assert made.command == "python -m bench.thing 'a b'"
    assert [p.name for p in path.parent.iterdir()] == ["thing.json"]


def test_without_one_side_there_is_no_ratio(tmp_path: Path) -> None:
    made = make_result(
        "failed",
        ours="ours",
        peer="theirs",
        samples={"ours": [1.0], "peer": []},
        unit="bytes",
        rooms=("core",),
        command=("bench.thing",),
        limit=1.0,
    )
    assert (made.ratio, made.spread, made.met) == (None, None, False)
    assert read_result(write_result(made, tmp_path)) == made


@pytest.mark.parametrize(("limit", "met"), [(None, None), (0.5, True), (0.49, False)])
def test_a_bar_is_the_largest_ratio(limit: float | None, met: bool | None) -> None:
    assert result(limit=limit).met is met


@pytest.mark.parametrize(
    "change",
    [
        {"ratio": None},
        {"ratio": True},
        {"spread": None},
        {"samples": {"ours": [1.0], "peer": []}},
        {"samples": {"ours": "1.0", "peer": [1.0]}},
        {"threads": "1"},
        {"rooms": "core"},
        {"extra": 1},
        {"note": None},
    ],
)
def test_a_damaged_result_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "thing.json"
    path.write_text(json.dumps({**json.loads(result().to_json()), **change}), "utf-8")
    with pytest.raises(ValueError, match="thing"):
        read_result(path)


def test_a_result_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thing.json"
    path.write_text(result().to_json().replace(SCHEMA, "shoestring/bench/0"), "utf-8")
    with pytest.raises(InputError, match="schema"):
        read_result(path)


def test_a_result_is_older_once_a_file_of_its_room_changes(tmp_path: Path) -> None:
    for room in ("one", "two"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("x = 1\n")
    made = result(rooms=("one",), source_hash=source_hash(["one"], tmp_path))
    (tmp_path / "two" / "a.py").write_text("x = 2\n")
    assert not is_older(made, tmp_path)
    (tmp_path / "one" / "a.py").write_text("x = 2\n")
    assert is_older(made, tmp_path)
    (tmp_path / "one" / "a.py").write_text("x = 1\n")
    assert not is_older(made, tmp_path)
    (tmp_path / "one" / "b.py").write_text("")
    assert is_older(made, tmp_path)


def test_what_was_edited_during_a_measurement_makes_it_older() -> None:
    made = make_result(
        "thing",
        ours="ours",
        peer="theirs",
        samples={},
        unit="s",
        rooms=("core",),
        command=("bench.thing",),
        made_with="0" * 16,
    )
    assert is_older(made)
    assert not is_older(result())


def test_a_result_of_a_room_that_is_gone_is_older(tmp_path: Path) -> None:
    assert is_older(result(), tmp_path)
    with pytest.raises(ValueError, match="room"):
        source_hash(["core", "nowhere"])


def test_every_result_has_a_schema_and_reads() -> None:
    paths = sorted(RESULTS.rglob("*.json"))
    assert paths, "there are no results"
    for path in paths:
        schema = json.loads(path.read_text("utf-8"))["schema"]
        if schema not in FOREIGN:
            found = read_result(path)
            assert path == RESULTS / f"{found.scenario}.json"
            assert found.machine.keys() == {"cpu", "cores"}


def test_no_result_says_where_it_was_made() -> None:
    folders = re.compile(r'["\s=:](/(?:home|root|tmp|work|opt|mnt|var|Users)/|[A-Z]:\\)')
    for path in sorted(RESULTS.rglob("*.json")):
        text = path.read_text("utf-8")
        assert not folders.search(text), path.name
        assert f'"{platform.node()}"' not in text, path.name


def test_scenarios_run_in_order_and_a_failure_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    drawn: list[list[str]] = []

    def runner(name: str) -> int:
        ran.append(name)
        return int(name == "peers")

    def draw(arguments: list[str]) -> int:
        drawn.append(arguments)
        return 0

    assert run.main([], runner=runner, draw=draw) == 1
    assert ran == list(run.SCENARIOS)
    assert "peers failed" in capsys.readouterr().err
    assert run.main(["demo"], runner=runner, draw=draw) == 0
    assert ran[-1] == "demo"
    assert drawn == [[]]


def test_an_unknown_scenario_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(["nothing"])
    assert stop.value.code == 2
    assert "trace-speed" in capsys.readouterr().err


def test_the_commands_of_scenarios_exist() -> None:
    for words in run.SCENARIOS.values():
        module = words[1].replace(".", "/")
        files = (f"{module}.py", f"{module}/__main__.py") if words[0] == "-m" else (words[0],)
        assert any((RESULTS.parents[1] / file).exists() for file in files)


def test_a_room_within_a_room_is_hashed_by_itself() -> None:
    inner = files_of("activations/remat")
    outer = files_of("activations")
    assert inner
    assert outer
    assert not set(inner) & set(outer)
    assert source_hash(["activations"]) != source_hash(["activations", "activations/remat"])
