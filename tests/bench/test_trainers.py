import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from bench import render, trainers, trainers_jobs, trainers_processes, trainers_results
from bench.harness import ROOT, source_hash
from bench.tables import FOOTNOTE, NOT_RUN, OLDER, RENDERERS
from bench.trainers import Comparison
from bench.trainers_jobs import JOBS, Job
from bench.trainers_processes import FailedError, Processes, reason
from bench.trainers_results import ROOMS, Outcome, path_of, read, read_all, write
from bench.trainers_terms import AUTO_FIND, CHECKPOINTING, LEAST, PLAIN, SECONDS, TITLES, Settings
from recipes.limited import child
from shoestring.core.errors import InputError

MIB = 2**20


def outcome(**changes: object) -> Outcome:
    made = Outcome(
        job="tweets",
        description="A model learns",
        side="plan-60",
        title="plan for 60 %",
        changes=("checkpoint 6 blocks",),
        budget=60 * MIB,
        predicted_peak=55 * MIB,
        predicted_ratio=1.30,
        peak=56 * MIB,
        gradient_error=0.0,
        asked_rows=8,
        rows=8,
        length=16,
        own=((1.4, 1.4), (1.4, 1.4)),
        plain=((1.0, 1.0), (1.0, 1.0)),
        max_grad_norm=1.0,
        optimizer="AdamW, fused",
        threads=1,
        dtype="float32",
        machine={"cpu": "one", "cores": 2},
        torch="2.13.0",
        transformers="5.0",
        accelerate="1.0",
        source_hash=source_hash(ROOMS),
        command="python -m bench.trainers",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


# --- an outcome ------------------------------------------------------------------------------


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = outcome()
    path = write(made, tmp_path)
    assert path == path_of("tweets", "plan-60", tmp_path)
    assert read(path) == made
    assert read_all(tmp_path) == [made]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": "8"},
        {"rows": True},
        {"own": [[1.0, "1"]]},
        {"own": [1.0]},
        {"plain": None},
        {"changes": "all"},
        {"feasible": 1},
        {"peak": 1.5},
        {"title": None},
        {"extra": 1},
    ],
)
def test_a_damaged_outcome_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = write(outcome(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(ValueError, match="plan-60"):
        read(path)
    path.write_text("{", "utf-8")
    with pytest.raises(InputError):
        read(path)


def test_speed_is_by_token_whatever_the_batch() -> None:
    half = outcome(rows=4, own=((0.6, 0.6),), plain=((1.0, 1.0),))
    assert half.time[0] == pytest.approx(1.2)
    assert half.speed[0] == pytest.approx(1 / 1.2)
    assert outcome(own=((1.0, 2.0),)).speed[1] == pytest.approx((0.5, 1.0))


@pytest.mark.parametrize(
    ("own", "predicted", "met"),
    [(1.39, 1.3, True), (1.41, 1.3, False), (1.2, 1.3, True), (1.39, None, None)],
)
def test_a_plan_may_cost_ten_points_more_than_predicted(
    own: float, predicted: float | None, met: bool | None
) -> None:
    assert outcome(own=((own,),), predicted_ratio=predicted).met is met
    assert outcome(own=(), predicted_ratio=predicted).met is None


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"gradient_error": 1e-6}, True),
        ({"gradient_error": 1e-3}, False),
        ({"gradient_error": None}, None),
        ({"gradient_error": 0.0, "rows": 7}, False),
    ],
)
def test_gradients_are_the_same_to_rounding_and_of_the_same_batch(
    changes: dict[str, object], same: bool | None
) -> None:
    assert outcome(**changes).same_gradients is same


@pytest.mark.parametrize(
    ("changes", "stands"),
    [
        ({}, True),
        ({"own": ((1.4,),)}, False),
        ({"peak": None}, False),
        ({"error": "KeyError: 1"}, False),
        ({"source_hash": "0" * 16}, False),
        ({"feasible": False, "own": (), "plain": (), "peak": None}, True),
    ],
)
def test_what_is_whole_and_of_the_same_code_stands(
    changes: dict[str, object], stands: bool
) -> None:
    assert outcome(**changes).stands(2) is stands


# --- a comparison ----------------------------------------------------------------------------

PLANS: dict[str, dict[str, object]] = {
    "plan-80": {"feasible": True, "budget": 80, "peak": 75, "ratio": 1.2, "changes": ["two"]},
    "plan-60": {"feasible": True, "budget": 60, "peak": 55, "ratio": 1.3, "changes": ["six"]},
    "plan-50": {"feasible": False, "budget": 50, "peak": 55, "ratio": 1.3, "changes": ["six"]},
    LEAST: {"feasible": True, "budget": 55, "peak": 55, "ratio": 1.3, "changes": ["six"]},
    SECONDS: {"feasible": True, "budget": None, "peak": 90, "ratio": 1.1, "changes": []},
}


class Fake:
    """Stands for the processes: notes what it is asked, and answers from nowhere."""

    def __init__(self, *, fails: str = "", ends_with: int = 3) -> None:
        self.asked: list[Settings] = []
        self._fails = fails
        self._ends_with = ends_with

    def __call__(self, settings: Settings) -> Mapping[str, object]:
        self.asked.append(settings)
        if settings.verb == "plan":
            return {"peak": 100, "plans": PLANS}
        if settings.verb == "find":
            return {"rows": self._ends_with}
        if side(settings) == self._fails:
            raise FailedError("ValueError: no.")
        measured = {"peak": 56, "gradient_error": 0.0} if settings.measure else {}
        return {"seconds": [1.0] * settings.steps, "rows": settings.rows, **measured}

    @property
    def trained(self) -> list[str]:
        return [side(settings) for settings in self.asked if settings.verb == "train"]


def side(settings: Settings) -> str:
    if settings.auto_find:
        return AUTO_FIND
    return settings.plan or (CHECKPOINTING if settings.checkpointing else PLAIN)


def comparison(fake: Callable[[Settings], Mapping[str, object]], results: Path) -> Comparison:
    return Comparison(JOBS["tweets"], ask=fake, rounds=2, steps=3, results=results)


TURN = [PLAIN, "plan-80", "plan-60", SECONDS, CHECKPOINTING, AUTO_FIND]
"""Without the plan for the least memory, which is that for 60 % here."""


def test_sides_take_turns_and_are_measured_once(tmp_path: Path) -> None:
    fake = Fake()
    assert comparison(fake, tmp_path).run()
    assert fake.trained == TURN * 2
    trained = [settings for settings in fake.asked if settings.verb == "train"]
    assert [settings.measure for settings in trained] == [True] * 6 + [False] * 6
    found = {o.side: o for o in read_all(tmp_path)}
    assert set(found) == set(TITLES)
    assert found[LEAST].own == found["plan-60"].own == ((1.0,) * 3,) * 2
    assert (found["plan-50"].feasible, found["plan-50"].own) == (False, ())
    assert found[PLAIN].predicted_peak == 100
    assert found["plan-80"].predicted_ratio == 1.2
    for each in found.values():
        assert each.stands(2)


def test_the_batch_is_found_within_a_plans_memory_and_kept(tmp_path: Path) -> None:
    fake = Fake(ends_with=3)
    comparison(fake, tmp_path).run()
    (find,) = [settings for settings in fake.asked if settings.verb == "find"]
    assert (find.budget, find.auto_find, find.rows) == (60, True, 32)
    auto = [s for s in fake.asked if s.verb == "train" and s.auto_find]
    assert {settings.rows for settings in auto} == {3}
    found = read(path_of("tweets", AUTO_FIND, tmp_path))
    assert (found.rows, found.budget, found.same_gradients) == (3, 60, False)


def test_what_stands_is_not_run_again(tmp_path: Path) -> None:
    comparison(Fake(), tmp_path).run()
    fake = Fake()
    assert comparison(fake, tmp_path).run()
    assert fake.asked == []
    path_of("tweets", "plan-80", tmp_path).unlink()
    assert comparison(fake, tmp_path).run()
    assert fake.trained == [PLAIN, "plan-80"] * 2, "with the plain run beside it"
    assert len(read(path_of("tweets", PLAIN, tmp_path)).own) == 2
    again = Fake()
    comparison(again, tmp_path).run(again=True)
    assert again.trained == TURN * 2


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    comparison(Fake(), tmp_path).run()
    cut = read(path_of("tweets", "plan-60", tmp_path))
    write(dataclasses.replace(cut, own=cut.own[:1], plain=cut.plain[:1]), tmp_path)
    fake = Fake()
    comparison(fake, tmp_path).run()
    assert fake.trained == [PLAIN, "plan-60"]
    assert len(read(path_of("tweets", "plan-60", tmp_path)).own) == 2


@pytest.mark.parametrize("change", [{"source_hash": "0" * 16}, {"error": "KeyError: 1"}])
def test_another_code_and_failures_are_run_again(change: dict[str, object], tmp_path: Path) -> None:
    comparison(Fake(), tmp_path).run()
    before = read(path_of("tweets", "plan-80", tmp_path))
    write(dataclasses.replace(before, **change), tmp_path)  # type: ignore[arg-type]
    fake = Fake()
    comparison(fake, tmp_path).run()
    assert fake.trained == [PLAIN, "plan-80"] * 2


def test_a_failure_is_kept_and_the_others_go_on(tmp_path: Path) -> None:
    fake = Fake(fails="plan-80")
    assert not comparison(fake, tmp_path).run()
    assert fake.trained.count("plan-80") == 1
    assert fake.trained.count("plan-60") == 2
    found = read(path_of("tweets", "plan-80", tmp_path))
    assert (found.error, found.own) == ("ValueError: no.", ())
    with pytest.raises(FailedError):
        comparison(Fake(fails=PLAIN), tmp_path / "other").run()


# --- processes -------------------------------------------------------------------------------


def test_a_process_ends_with_the_block() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        open("/dev/null", "wb") as sink,
        pytest.raises(KeyboardInterrupt),
        child(command, {}, sink) as process,
    ):
        raise KeyboardInterrupt
    assert process.returncode is not None


def test_the_reason_is_one_line_without_folders() -> None:
    text = f'Traceback:\n  File "{ROOT}/x.py"\nOSError: no {ROOT}/file\nhint: yes\n'
    assert reason(text) == "OSError: no /file"
    assert reason("") == ""


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    settings = Settings(verb="train", job="no-such-job", folder="")
    with pytest.raises(FailedError, match="KeyError: 'no-such-job'"):
        Processes(tmp_path)(settings)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers_processes, "PATIENCE", 0.2)
    began = time.monotonic()
    with pytest.raises(FailedError, match="more than 0 s"):
        Processes(tmp_path)(Settings(verb="plan", job="tweets", folder=""))
    assert time.monotonic() - began < 30


def test_a_missing_package_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainers_jobs, "LIBRARIES", ("no_such_package",))
    assert trainers.main([]) == 2
    said = capsys.readouterr().err
    assert said == "trainers: the package no_such_package is not installed: run `make demo`.\n"


# --- a training ------------------------------------------------------------------------------


def tiny() -> Job:
    """A language model that trains in a moment."""
    import torch
    import transformers

    def build(small: bool) -> transformers.PreTrainedModel:
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
                num_attention_heads=2, num_key_value_heads=2, use_cache=False,
            )
        )  # fmt: skip

    def load(count: int) -> list[trainers_jobs.Row]:
        rows = torch.randint(50, (64, 32), generator=torch.Generator().manual_seed(1))
        return [{"input_ids": row, "labels": row.clone()} for row in rows[:count]]

    return Job(name="tiny", description="", rows=8, length=32, build=build, load=load)


@pytest.mark.filterwarnings("ignore")  # of transformers, on what it deprecates
def test_every_way_is_timed_measured_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from bench import trainers_child

    monkeypatch.setattr(trainers_child, "SHARES", ())  # one budget is enough here

    job = tiny()

    def run(name: str, **changes: object) -> dict[str, object]:
        (tmp_path / name).mkdir()
        settings = Settings(verb="train", job="", folder=str(tmp_path / name), rows=8, steps=2)
        settings = dataclasses.replace(settings, measure=True, **changes)  # type: ignore[arg-type]
        return trainers_child.run(job, settings)

    (tmp_path / "plans").mkdir()
    settings = Settings(verb="plan", job="", folder=str(tmp_path / "plans"), rows=8)
    plans = trainers_child.make_plans(job, settings)["plans"]
    assert isinstance(plans, dict)
    plain = run("plain")
    ours = run("ours", plan=LEAST)
    theirs = run("theirs", checkpointing=True)
    fewer = run("fewer", auto_find=True, rows=4)

    for answer in (plain, ours, theirs, fewer):
        seconds = answer["seconds"]
        assert isinstance(seconds, list)
        assert len(seconds) == 2
        assert all(0 < s < 60 for s in seconds)
    assert [a["rows"] for a in (plain, ours, theirs, fewer)] == [8, 8, 8, 4]
    assert plain["gradient_error"] == 0
    assert ours["gradient_error"] < trainers_results.SAME
    assert theirs["gradient_error"] < trainers_results.SAME
    assert fewer["gradient_error"] > 0.1
    assert ours["peak"] < plain["peak"]
    assert theirs["peak"] < plain["peak"]
    assert ours["peak"] == pytest.approx(plans[LEAST]["peak"], rel=0.1)


def test_gradients_are_compared_by_their_norms(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from bench.trainers_child import difference

    base = np.array([3.0, 0.0, 4.0], np.float32)
    base.tofile(tmp_path / "base")
    (base + np.array([0.0, 0.5, 0.0], np.float32)).tofile(tmp_path / "other")
    assert difference(tmp_path / "other", tmp_path / "base") == pytest.approx(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_beyond_the_limit_is_refused() -> None:
    pytest.importorskip("transformers")
    code = (
        "import torch; from recipes.limited import enforce, read_status\n"
        "enforce(read_status('VmData') + 2**26)\n"
        "print(torch.zeros(2**22).sum().item())\n"
        "torch.zeros(2**26)\n"
    )
    limited = trainers_processes.ENVIRONMENT | trainers_processes.LIMITED
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=limited, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "0.0\n"
    assert "DefaultCPUAllocator: can't allocate memory" in done.stderr


# --- the table -------------------------------------------------------------------------------


def table(results: Path, *outcomes: Outcome) -> str:
    for each in outcomes:
        write(each, results)
    return RENDERERS["trainers"](results)


def plain(**changes: object) -> Outcome:
    unplanned = {"changes": (), "budget": None, "predicted_ratio": None}
    own = {"side": PLAIN, "title": "plain", "own": ((1.0,),), "plain": ((1.0,),)}
    return outcome(**{**unplanned, **own, **changes})


def test_a_row_holds_both_times_and_the_verdict(tmp_path: Path) -> None:
    text = table(tmp_path, plain(), outcome())
    assert "A model learns: batch 8 x 16 tokens, AdamW, fused, gradients clipped to a norm" in text
    assert "| plain | 8 x 16 | 1.00 | 1.00 to 1.00 | 56.0 MiB | yes |  |  |  |" in text
    assert (
        "| plan for 60 % (60.0 MiB): checkpoint 6 blocks | 8 x 16 | 0.71 | 0.71 to 0.71 "
        "| 56.0 MiB | yes | 1.30 | 1.40 | met |"
    ) in text
    assert FOOTNOTE not in text


def test_a_bar_that_was_missed_is_shown_with_both_figures(tmp_path: Path) -> None:
    text = table(tmp_path, plain(), outcome(own=((1.5,),)))
    assert "| 1.30 | 1.50 | **missed** |" in text


def test_what_was_not_reached_and_what_failed_is_said(tmp_path: Path) -> None:
    unmeasured = {"own": (), "plain": (), "peak": None, "gradient_error": None}
    text = table(
        tmp_path,
        plain(),
        outcome(side="plan-50", title="plan for 50 %", feasible=False, **unmeasured),
        outcome(error="ValueError: no.", **unmeasured),
        outcome(side="plan-80", title="plan for 80 %", **unmeasured),
        plain(
            side=AUTO_FIND, title="auto", rows=3, own=((0.5,),), budget=60 * MIB, gradient_error=1.0
        ),
    )
    assert "| plan for 50 % (60.0 MiB): infeasible: the least is 55.0 MiB |" in text
    assert "| plan for 60 % (60.0 MiB): checkpoint 6 blocks | 8 x 16 | failed |" in text
    assert "ValueError: no." in text
    assert "| plan for 80 % (60.0 MiB): checkpoint 6 blocks | 8 x 16 | not run |" in text
    assert "| auto (60.0 MiB enforced) | 3 x 16 | 0.75 | 0.75 to 0.75 | 56.0 MiB | **no** |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_the_plan_for_a_step_time_is_a_line(tmp_path: Path) -> None:
    own = outcome(side=SECONDS, budget=None, predicted_ratio=1.12, own=((1.25,),), plain=((1.0,),))
    text = table(tmp_path, plain(), own)
    assert (
        "Given 1.15 times the plain step's predicted time, `Budget(seconds=...)` finds checkpoint "
        "6 blocks: 55.0 MiB predicted in 1.12 of that time, 56.0 MiB measured in 1.25 of the "
        "plain step's: **missed**."
    ) in text


def test_older_code_is_marked(tmp_path: Path) -> None:
    text = table(tmp_path, plain(), outcome(source_hash="0" * 16))
    assert f"| 0.71{OLDER} |" in text
    assert FOOTNOTE in text


def test_it_is_on_a_page_and_without_results_says_so(tmp_path: Path) -> None:
    assert RENDERERS["trainers"](tmp_path) == NOT_RUN
    assert "trainers" in render.asked((ROOT / "README.md").read_text("utf-8"))
