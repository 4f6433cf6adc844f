"""The long tables of zeroth-order training: what is tried, what a result hangs on, what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("sklearn")

from bench.zeroth import sources
from bench.zeroth.finetune import search
from bench.zeroth.finetune.methods import METHODS
from bench.zeroth.finetune.runs import Run
from bench.zeroth.suggested import table as suggested
from bench.zeroth.suggested.tasks import GRID, TASKS


def test_methods_hang_on_modules_of_their_own() -> None:
    hashes = {sources.sources(method.module) for method in METHODS.values()}
    assert len(hashes) == len({method.module for method in METHODS.values()})


def test_rates_are_thinned_as_runs_trail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight for a while, the best three of them for longer, and the best with every seed."""
    ran: list[Run] = []

    def result(run: Run) -> dict[str, object]:
        ran.append(run)
        # The order of the first stage is not that of the second.
        loss = abs(run.lr - (3.0 if run.steps == search.STAGES[0][0] else 4.0))
        finished = run.lr < 7
        return {"finished": finished, "curve": [[run.steps, 1.0, loss, 0.5]], "test": None}

    monkeypatch.setattr(search, "result", result)
    monkeypatch.setattr(search, "rates", lambda *_: [float(k) for k in range(8)])
    monkeypatch.setattr(search, "Task", lambda *_: None)
    search.search("zosgd", "head")
    steps = [run.steps for run in ran]
    assert steps == [150] * 8 + [600] * 3 + [3000] * 3
    assert [run.lr for run in ran[8:11]] == [3.0, 2.0, 4.0]
    assert {run.lr for run in ran[11:]} == {4.0}
    assert [run.seed for run in ran[11:]] == list(search.SEEDS)


def test_a_suggested_rate_is_held_against_the_best_of_the_mean(tmp_path: Path) -> None:
    folder = tmp_path / suggested.FOLDER
    folder.mkdir()
    for seed, ours in enumerate((0.90, 0.80)):
        grid = {"1.00e-03": 0.5, "3.16e-03": 0.9 - 0.1 * seed, "1.00e-02": 0.2 + 0.6 * seed}
        document = {
            "schema": suggested.SCHEMA,
            "seed": seed,
            "start": 0.1,
            "rate": 2e-3,
            "suggested": ours,
            "grid": grid,
            "source_hash": "old",
        }
        (folder / f"digits-{seed}.json").write_text(json.dumps(document))
    found = suggested.suggested(tmp_path)
    assert "| 85.0 | 3.2e-03 | 85.0 | -0.0 | met |" in found.replace("+0.0", "-0.0")
    assert "older code" in found
    assert suggested.suggested(tmp_path / "none") == "*not run yet*"


def test_every_task_begins_and_is_named() -> None:
    assert TASKS.keys() == suggested.TITLES.keys()
    assert GRID == 9
    for name in ("digits", "cancer", "inverted"):
        begun = TASKS[name].begin(0)
        index = next(begun.batches(TASKS[name].rows, 0))
        assert begun.losses(index).shape == (TASKS[name].rows,)
        assert 0 <= begun.accuracy() <= 1
