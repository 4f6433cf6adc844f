"""The counters' bench: what an answer is worth, peers that fail, files, tables, and the price."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from bench import render
from bench.counters import correctness, environment, flopco, overhead, peers, records, table
from bench.counters.case import BACKWARD, FORWARD, RECOMPUTE, ROWS, Case
from bench.counters.correctness import answers
from bench.counters.environment import Environment
from bench.counters.every import EVERY
from bench.counters.judge import Judgement, Verdict, judge
from bench.counters.models import Call
from bench.counters.peers import PEERS, Peer, answer
from bench.counters.records import NOT_INSTALLED, Record, Said, read, write
from bench.harness import ROOT, make_result, source_hash, write_result
from bench.run import SCENARIOS
from bench.tables import FOOTNOTE, NOT_RUN, OLDER, RENDERERS
from shoestring.core.units import format_seconds

NAMES = ["counters", "counters-speed", "counters-summary", "flopco"]

# --- what an answer is worth -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "added", "terms", "verdict"),
    [
        (100, {}, {}, Verdict.RIGHT),
        (100, {}, {"bias": 5}, Verdict.RIGHT),
        (105, {}, {"bias": 5, "norm": 7}, Verdict.CONVENTION),
        (112, {}, {"bias": 5, "norm": 7}, Verdict.CONVENTION),
        (106, {}, {"bias": 5, "norm": 7}, Verdict.WRONG),
        (103, {"add": 3}, {}, Verdict.CONVENTION),
        (108, {"add": 3}, {"bias": 5}, Verdict.CONVENTION),
        (103, {"add": 2}, {}, Verdict.WRONG),
        # A counter that misses a product does not become right by what it adds.
        (100, {"add": 3}, {}, Verdict.RIGHT),
        (95, {}, {"last sum": -5}, Verdict.CONVENTION),
        (0, {}, {"bias": 5}, Verdict.WRONG),
        (95, {}, {"bias": 5}, Verdict.WRONG),
    ],
)
def test_an_answer_is_judged(
    given: int, added: Mapping[str, int], terms: Mapping[str, int], verdict: Verdict
) -> None:
    assert judge(100, given, added, terms).verdict is verdict


def test_what_explains_an_answer_is_named() -> None:
    judged = judge(100, 110, {"add": 3}, {"norm": 9, "bias": 7, "last sum": -5})
    assert judged == Judgement(Verdict.CONVENTION, ("add", "bias"))
    assert judge(100, 95, {}, {"last sum": -5}).left_out == ("last sum",)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_rules_name_kinds_of_the_cases(peer: Peer) -> None:
    kinds = {kind for case in EVERY.values() for kind in case.beside(ROWS)}
    assert set(peer.rules) <= kinds
    distributions = {environment.name_of(r) for r in environment.requirements()}
    assert not peer.distribution or peer.distribution in distributions


# --- peers -----------------------------------------------------------------------------------


def _case(function: object, **changes: object) -> Case:
    fields = {
        "name": "made-up",
        "title": "made up",
        "formula": "none",
        "build": lambda rows: (Call(function), torch.ones(rows, 3)),  # type: ignore[arg-type]
        "hand": lambda rows: {FORWARD: 12},
    }
    return Case(**{**fields, **changes})  # type: ignore[arg-type]


def _peer(count: object, **changes: object) -> Peer:
    fields = {"name": "p", "title": "P", "distribution": "", "used": "count()", "count": count}
    return Peer(**{**fields, **changes})  # type: ignore[arg-type]


def test_answers_come_in_the_unit_of_the_case() -> None:
    macs, flops = _case(abs), _case(abs, unit="FLOPs")
    mults = _peer(lambda case: (7.0, {"add": 1.0}))
    assert answer(mults, macs) == {"answer": 7, "added": {"add": 1}}
    assert answer(mults, flops)["answer"] == 14
    assert answer(_peer(lambda case: (14, {}), unit=2), macs)["answer"] == 7
    assert answer(_peer(lambda case: (7, {}), unit=2), macs)["answer"] == 3.5
    assert answer(_peer(lambda case: (7, {}), one_row=True), macs)["answer"] == 7 * ROWS


def test_a_peer_that_fails_says_so() -> None:
    def crash(case: Case) -> peers.Answer:
        raise AttributeError("no shape\nat all")

    assert answer(_peer(crash), _case(abs)) == {"error": "AttributeError: no shape"}
    assert answer(_peer(lambda case: (None, {})), _case(abs)) == {"error": "it returned None"}


def test_a_process_that_dies_costs_its_own_case() -> None:
    code = (
        "import sys, os\n"
        "for name in sys.argv[1:]:\n"
        "    if name == 'b': os._exit(3)\n"
        '    print(\'{"answer": 1, "added": {}}\', flush=True)\n'
    )
    found = list(answers([sys.executable, "-c", code], ["a", "b", "c"]))
    good = {"answer": 1, "added": {}}
    assert found == [good, {"error": "the process died (3)"}, good]


def test_a_process_that_hangs_is_ended() -> None:
    code = "import time; time.sleep(60)"
    (found,) = answers([sys.executable, "-c", code], ["a"], patience=0.2)
    assert str(found["error"]).startswith("the process died")


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    torchs = next(peer for peer in PEERS if peer.name == "torch")
    cases = [EVERY["shared"], EVERY["bilinear"]]
    first, second = correctness.asked(torchs, cases, Environment(), "", torch.__version__)
    assert first.judged(cases[0].total()).verdict is Verdict.RIGHT
    assert second.judged(cases[1].total()).verdict is Verdict.WRONG


def test_what_is_not_installed_says_so() -> None:
    thop = next(peer for peer in PEERS if peer.name == "thop")
    (said,) = correctness.asked(thop, [EVERY["shared"]], Environment(), "no such thing", "")
    assert said.error == NOT_INSTALLED + "no such thing"
    assert said.judged(1).verdict is Verdict.MISSING


def test_requirements_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# about\none==1.0\n\ntwo  # why\n", "utf-8")
    assert environment.requirements(path) == ["one==1.0", "two"]
    assert environment.name_of("one==1.0") == "one"


def test_without_torch_nothing_is_installed_and_each_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, ...]] = []

    def refuse(self: Environment, *words: str) -> str:
        tried.append(words)
        return "no network"

    monkeypatch.setattr(Environment, "_install", refuse)
    reasons = Environment(tmp_path / "others").prepare()
    assert reasons == {environment.name_of(r): "no network" for r in environment.requirements()}
    assert len(tried) == 1


def test_why_an_installation_failed(tmp_path: Path) -> None:
    own = Environment(tmp_path / "others")
    own.python = tmp_path / "python"
    own.python.write_text(f"#!/bin/sh\necho 'ERROR: no such thing in {ROOT}/x' >&2\nexit 1\n")
    own.python.chmod(0o755)
    assert own._install("thing") == "no such thing in /x"
    own.python.write_text("#!/bin/sh\nexit 0\n")
    assert own._install("thing") == ""


def test_an_answer_is_kept_where_the_peer_cannot_be_asked(tmp_path: Path) -> None:
    case = EVERY["shared"]
    (first,) = correctness.compare([case], NoEnvironment(), results=tmp_path)
    asked = {**first.peers, "thop": said("thop", 6144)}
    write(dataclasses.replace(first, peers=asked), tmp_path)
    (second,) = correctness.compare([case], NoEnvironment(), results=tmp_path)
    assert second.peers["thop"] == said("thop", 6144)


def test_no_peer_is_installed_beside_ours() -> None:
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert f"{environment.FOLDER.relative_to(ROOT).parts[0]}/" in ignored


class NoEnvironment(Environment):
    """An environment in which nothing could be installed."""

    def prepare(self) -> dict[str, str]:
        return {peer.distribution: "no network" for peer in PEERS if peer.distribution}

    def versions(self, names: list[str]) -> Mapping[str, str]:
        return {}


def test_a_comparison_is_kept_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    really = correctness.ours

    def watch(case: Case) -> dict[str, object]:
        counted.append(case.name)
        return really(case)

    monkeypatch.setattr(correctness, "ours", watch)
    cases = [EVERY["shared"], EVERY["gru"]]
    first = list(correctness.compare(cases, NoEnvironment(), results=tmp_path))
    assert [record.ours_is_right for record in first] == [True, True]
    assert set(first[0].peers) == {peer.name for peer in PEERS}
    assert set(first[1].peers) == {peer.name for peer in PEERS if peer.steps}
    assert first[0].peers["fvcore"].error == NOT_INSTALLED + "no network"
    assert counted == ["shared", "gru"]

    assert list(correctness.compare(cases, NoEnvironment(), results=tmp_path)) == first
    assert counted == ["shared", "gru"]

    path = records.path_of("gru", tmp_path)
    older = {**json.loads(path.read_text("utf-8")), "source_hash": "0" * 16}
    path.write_text(json.dumps(older), "utf-8")
    assert list(correctness.compare(cases, NoEnvironment(), results=tmp_path)) == first
    assert counted == ["shared", "gru", "gru"]
    list(correctness.compare(cases, NoEnvironment(), results=tmp_path, again=True))
    assert len(counted) == 5


# --- files -----------------------------------------------------------------------------------


def said(title: str, number: float | None, **changes: object) -> Said:
    fields = {
        "title": title,
        "version": "1.0",
        "used": "count(model, x)",
        "note": "",
        "answer": number,
        "added": {},
        "terms": {"bias": 8},
    }
    return Said(**{**fields, **changes})  # type: ignore[arg-type]


def record(case: str = "small", **changes: object) -> Record:
    fields = {
        "case": case,
        "title": "a small model",
        "table": records.FORWARD_TABLE,
        "place": 0,
        "unit": "MACs",
        "formula": "by hand",
        "hand": {FORWARD: 100},
        "ours": {FORWARD: 100},
        "unknown": {},
        "error": "",
        "peers": {
            "torch": said("Theirs", 100),
            "flopco": said("FlopCo", 70),
        },
        "inputs": "1",
        "torch": "2.13.0",
        "rooms": ("core",),
        "source_hash": source_hash(["core"]),
        "command": "python -m bench.counters.correctness small",
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    wrote = record(peers={"one": said("One", 3.5, added={"add": 1.5}), "two": said("Two", None)})
    assert read(write(wrote, tmp_path)) == wrote


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "shoestring/bench/counters/0"},
        {"hand": {"forward": "many"}},
        {"peers": []},
        {"peers": {"one": {"title": "One"}}},
        {"rooms": "core"},
        {"more": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_document_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = write(record(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(ValueError, match="small"):
        read(path)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"ours": {FORWARD: 100, RECOMPUTE: 0}}, True),
        ({"ours": {FORWARD: 99}}, False),
        ({"ours": {FORWARD: 60, RECOMPUTE: 40}}, False),
        ({"unknown": {"aten.thing": 1}}, False),
        ({"error": "died", "ours": {}}, False),
    ],
)
def test_ours_is_right_in_every_phase(changes: dict[str, object], right: bool) -> None:
    assert record(**changes).ours_is_right is right


# --- tables ----------------------------------------------------------------------------------


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    assert [RENDERERS[name](tmp_path) for name in NAMES] == [NOT_RUN] * len(NAMES)


def test_every_kind_of_answer_is_shown(tmp_path: Path) -> None:
    write(record("a"), tmp_path)
    other = {
        "torch": said("Theirs", 108),
        "flopco": said("FlopCo", 92, terms={"bias": -8}),
    }
    write(record("b", title="b model", peers=other), tmp_path)
    bad = {
        "torch": said("Theirs", None, error="it returned None"),
        "flopco": said("FlopCo", None, version="", error=NOT_INSTALLED + "no network"),
    }
    write(record("c", title="c model", ours={FORWARD: 99}, peers=bad), tmp_path)
    more = {
        "torch": said("Theirs", 106, added={"add_": 1, "mul": 2, "view": 3}),
        "flopco": said("FlopCo", 103, added={"native_norm": 3}),
    }
    write(record("d", title="d model", ours={}, error="died", peers=more), tmp_path)
    text = table.counters(tmp_path)
    assert "| a small model | 100 | = | = | **70** |" in text
    assert "| b model | 100 | = | 108 (with bias) | 92 (without bias) |" in text
    assert "| c model | 100 | **99** | **crashed** | not installed |" in text
    assert (
        "| d model | 100 | **failed** | 106 (with other operations) | 103 (with native norm) |"
        in text
    )
    assert "| right | of 4 | 2 | 1 | 0 |" in text
    assert "| or by a convention | of 4 | 2 | 3 | 2 |" in text
    assert "FlopCo: not installed: no network." in text
    assert OLDER not in text


def test_steps_are_shown_by_phase(tmp_path: Path) -> None:
    phases = {FORWARD: 10, RECOMPUTE: 5, BACKWARD: 20}
    step = {"table": records.STEP_TABLE, "hand": phases, "unit": "FLOPs"}
    peer = {"torch": said("Theirs", 35)}
    write(record("a", title="a step", ours=phases, peers=peer, **step), tmp_path)
    moved = {FORWARD: 10, BACKWARD: 25}
    write(record("b", title="b step", ours=moved, peers=peer, **step), tmp_path)
    text = table.counters(tmp_path)
    assert "| a step | 10 | 5 | 20 | = | = |" in text
    assert "| b step | 10 | 5 | 20 | **10 + 0 + 25** | = |" in text
    assert "| right | of 2 |  |  | 1 | 2 |" in text


def test_the_summary_is_one_line(tmp_path: Path) -> None:
    write(record("a"), tmp_path)
    write(record("b", table=records.STEP_TABLE), tmp_path)
    text = table.summary(tmp_path)
    assert "\n" not in text
    assert "`count` gets **1** right" in text
    assert "Theirs 1, FlopCo 0" in text


def test_flopco_is_shown_where_it_is_wrong(tmp_path: Path) -> None:
    write(record("a"), tmp_path)
    right = {"torch": said("Theirs", 1), "flopco": said("FlopCo", 100)}
    write(record("b", title="b model", peers=right), tmp_path)
    document = {
        "schema": flopco.SCHEMA,
        "layer": "Linear(10, 3)",
        "hand": flopco.by_hand(),
        "ours": {"flops": 63, "keeps_hooks": True},
        "reference": {"flops": 70, "keeps_hooks": False},
        "rooms": ["core"],
        "source_hash": source_hash(["core"]),
    }
    flopco.path_of(tmp_path).write_text(json.dumps(document), "utf-8")
    text = table.flopco(tmp_path)
    assert "| a small model | multiply-adds | 100 | 100 | 70 |" in text
    assert "| `Linear(10, 3)` | FLOPs with bias | 63 | 63 | 70 |" in text
    assert "b model" not in text
    assert "FlopCo removes the hooks" in text
    assert "`count` leaves the hooks" in text


def test_ours_counts_a_bias_and_leaves_hooks() -> None:
    assert flopco.ours() == {"flops": flopco.by_hand(), "keeps_hooks": True}


def test_older_code_is_marked(tmp_path: Path) -> None:
    write(record("a", source_hash="0" * 16), tmp_path)
    for name in ("counters", "counters-summary", "flopco"):
        assert FOOTNOTE in RENDERERS[name](tmp_path), name
    assert f"| ={OLDER} |" in table.counters(tmp_path)
    assert f"100{OLDER}" in table.flopco(tmp_path)


def test_the_price_is_shown_with_its_bars(tmp_path: Path) -> None:
    ours, peer = [1.2, 1.2, 1.2], [1.0, 1.0, 1.0]
    for name, theirs, limit, options in (
        ("gpt2", "FlopCounterMode", 1.5, {"operations": 4321}),
        ("large-seconds", "bar", 1.0, {}),
    ):
        write_result(
            make_result(
                f"{overhead.FOLDER}/{name}",
                ours="ours",
                peer=theirs,
                peer_options=options,
                samples={"ours": ours, "peer": peer},
                unit="s",
                rooms=("core",),
                command=("bench.counters.overhead",),
                limit=limit,
                note=f"the step of {name}",
            ),
            tmp_path,
        )
    text = table.speed(tmp_path)
    assert "| the step of gpt2 | 4321 | 1.20 | 1.20 to 1.20 | met |" in text
    figures = f"{format_seconds(1.2)} | {format_seconds(1.0)}"
    assert f"| the step of large-seconds | {figures} | **missed** |" in text


def test_the_page_and_the_scenarios_are_there() -> None:
    page = (ROOT / "docs" / "papers" / "flopco.md").read_text("utf-8")
    assert set(render.asked(page)) == {"counters", "counters-speed", "flopco"}
    assert {"counters", "counters-speed"} <= set(SCENARIOS)


# --- the price -------------------------------------------------------------------------------


def test_the_large_model_is_counted_by_its_closed_form() -> None:
    # 6 a parameter of a product and token, and 3.5 times the two products of attention.
    products = 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672) + 8192 * 32000
    attention = 80 * 4 * 4 * 2048**2 * 8192
    assert overhead.large_by_hand() == 6 * products * 4 * 2048 + round(3.5 * attention)


def test_every_deep_model_has_enough_operations() -> None:
    pytest.importorskip("transformers")
    from shoestring.measure.counting.count import count

    model, loss = overhead.DEEP["densenet"].build()
    with count(model) as counted:
        loss().backward()
    assert counted.total.calls >= overhead.LEAST_OPERATIONS


def test_all_figures_are_read() -> None:
    from shoestring.measure.counting.count import count

    model = torch.nn.Linear(3, 4)
    with count(model) as counted:
        model(torch.ones(2, 3)).sum().backward()
    assert overhead.read_everything(counted) > len(counted.to_json())
