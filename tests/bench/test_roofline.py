"""The bench of the roofline: one model for real, the table and the bars on made-up results."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from bench import roofline as scenario
from bench.harness import source_hash
from bench.roofline_table import SCHEMA, read_steps, roofline, summarise
from tests.zoo import ZOO


def row(batch, measured, predicted):
    return {
        "batch": batch,
        "samples": [measured, measured, 9 * measured],
        "predicted": predicted,
        "unfused": predicted / 2,
        "fused": predicted / 4,
        "bound": {"compute": 0.2, "memory": 0.7, "cost": 0.1},
        "calls": 3,
        "unknown": 0,
    }


def write(results, model, rows, **more):
    document = {
        "schema": SCHEMA,
        "scenario": "roofline",
        "model": model,
        "rows": rows,
        "rooms": list(scenario.ROOMS),
        "source_hash": source_hash(scenario.ROOMS),
        "torch": torch.__version__,
        **more,
    }
    path = results / "roofline" / f"{model}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")


def test_a_table_of_two_models(tmp_path):
    write(tmp_path, "bert", [row(4, 0.010, 0.020), row(24, 0.100, 0.080)])
    write(tmp_path, "gpt2", [row(4, 0.010, 0.004)], source_hash="another")
    write(tmp_path, "opt", [], error="it broke")
    text = roofline(tmp_path)
    assert "| bert | 4 | 2.00 | 1.00 | 0.50 | memory |" in text
    assert "| bert | 24 | 0.80 |" in text
    assert "| 0.40† |" in text
    # (2 x 1.25 x 2.5) ** (1 / 3) = 1.842
    assert "**1.84** of at most 1.3 (**missed**)" in text
    assert "**1 of 3 models**, of at least 27 (**missed**)" in text
    assert "gpt2 with 4 rows (0.40)" in text
    assert "opt (it broke)" in text


def test_bars_that_are_met(tmp_path):
    for i in range(27):
        write(tmp_path, f"model{i}", [row(1, 1.0, 1.1)])
    text = summarise(*read_steps(tmp_path))
    assert "**1.10** of at most 1.3 (met)" in text
    assert "**27 of 27 models**, of at least 27 (met)" in text
    assert text.endswith("None missed.")


def test_without_results(tmp_path):
    assert roofline(tmp_path) == "*not run yet*"


def test_what_stands(tmp_path):
    assert not scenario.stands("bert", tmp_path)
    write(tmp_path, "bert", [row(4, 1.0, 1.0)])
    assert scenario.stands("bert", tmp_path)
    write(tmp_path, "bert", [row(4, 1.0, 1.0)], torch="0.4")
    assert not scenario.stands("bert", tmp_path)
    write(tmp_path, "bert", [row(4, 1.0, 1.0)], source_hash="another")
    assert not scenario.stands("bert", tmp_path)
    write(tmp_path, "bert", [], error="it broke")
    assert not scenario.stands("bert", tmp_path)


def test_a_step_is_measured_and_estimated(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    monkeypatch.setattr(scenario, "MOST_SECONDS", 0.0)
    case = next(case for case in ZOO if case.name == "tabular")
    found = scenario.measure_row(case, 16)
    assert len(found["samples"]) == scenario.FEWEST
    assert all(sample > 0 for sample in found["samples"])
    assert 0 < found["fused"] <= found["unfused"] < found["predicted"]
    assert sum(found["bound"].values()) == pytest.approx(1)
    assert found["calls"] > 300
    json.dumps(found)


def test_a_model_that_fails_is_a_result(tmp_path, monkeypatch):
    def fail(words, cache):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(scenario, "run_child", fail)
    document = scenario.make("bert", "", {}, results=tmp_path)
    assert document["error"] == "no such thing"
    assert read_steps(tmp_path) == ([], {"bert": "no such thing"})


def test_a_drawn_model_that_fails_is_passed_over(tmp_path, monkeypatch):
    def slow(words, cache):
        raise subprocess.TimeoutExpired("python", 1.0)

    monkeypatch.setattr(scenario, "run_child", slow)
    document = scenario.make("CAUSAL_LM/none", "", {}, drawn=True, results=tmp_path)
    assert "timed out" in document["error"]
    assert read_steps(tmp_path) == ([], {})


def test_drawn_models_are_held_against_no_bar(tmp_path):
    write(tmp_path, "bert", [row(4, 1.0, 1.1)])
    write(tmp_path, "CAUSAL_LM-none", [row(2, 1.0, 1.2), row(8, 1.0, 3.0)], drawn=True)
    text = roofline(tmp_path)
    assert "**1 of 1 models**" in text
    # (1.2 x 3) ** (1 / 2) = 1.897
    assert "2 steps are wrong by **1.90** in the geometric mean" in text
    assert "0 of 1 are within a factor of 2, not CAUSAL_LM-none." in text


def test_an_unknown_model_is_refused(capsys):
    with pytest.raises(SystemExit):
        scenario.main(["nobody"])
    assert "no model 'nobody'" in capsys.readouterr().err
