"""The command ``train`` by forward passes alone, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Answer
from tests.integrations.tiny import write_model, write_texts

pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

Run = Callable[..., Answer]


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brought")
    write_model(folder / "classification", "classification")
    write_texts(folder / "texts.csv", 120)
    return folder


def words(brought: Path, *more: str) -> list[str]:
    return [
        "train", str(brought / "classification"), "--data", str(brought / "texts.csv"),
        "--task", "classification", "--rows", "16", "--text-column", "text", *more,
    ]  # fmt: skip


def test_the_gain_over_the_probe_is_said_zero_included(brought: Path, command: Run) -> None:
    zo = ("--optimizer", "zo", "--lr", "1e-30", "--eps", "1e-3")
    answer = command(*words(brought, *zo, "--probe", "--steps", "3"))
    first, second, third = answer.out.splitlines()
    assert first.startswith("finished after 3 of 3 steps, loss ")
    assert second == "gain over the linear probe: accuracy +0.0000, f1 +0.0000"
    assert third == str(Path("run") / "model")
    assert "linear probe: accuracy " in answer.err
    assert "without a backward to change" in answer.err
    assert answer.err.count("not used:") == 1


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_warning_is_a_sentence(brought: Path, command: Run) -> None:
    """A model that knows nothing has slopes below their noise, or lost in rounding."""
    zo = ("--optimizer", "zo", "--lr", "1e-9", "--eps", "1e-7")
    answer = command(*words(brought, *zo, "--steps", "60", "--save-every", "60"))
    notes = [line for line in answer.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "differences of losses are lost" in notes[0]
    assert "Warning" not in answer.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--optimizer", "zo", "--clip", "1"), "--clip has no effect with --optimizer zo"),
        (("--eps", "1e-3"), "--eps has no effect with --optimizer adamw"),
        (("--optimizer", "zo", "--bf16"), "drown in the rounding"),
        (("--maximise", "accuracy"), "accuracy has no gradient"),
        (("--optimizer", "zoo"), 'invalid value "zoo" for --optimizer'),
        (("--optimizer", "zo", "--lr", "fast"), "invalid value for --lr"),
    ],
)
def test_failures_are_one_sentence_with_a_hint(
    brought: Path, command: Run, more: tuple[str, ...], said: str
) -> None:
    message, hint = command(*words(brought, *more), code=2).refusal
    assert said in message
    assert hint


def test_profile_and_plan_know_the_step(brought: Path, command: Run) -> None:
    model = (str(brought / "classification"), "--batch", "8x16")
    peaks = {}
    for name in ("zo", "zo-adam", "adamw"):
        shown = json.loads(command("profile", *model, "--optimizer", name, "--json").out)
        peaks[name] = shown["peak"]
        assert (shown["peak_by_kind"]["gradients"] > 0) == (name == "adamw")
        assert (shown["peak_by_kind"]["optimizer state"] > 0) == (name != "zo")
    assert peaks["zo"] < peaks["zo-adam"] < peaks["adamw"]
    answer = command("plan", *model, "--optimizer", "zo", "--memory", "1KiB", code=3)
    assert "ZOSGD" in answer.out
    assert "unbiased" in answer.out
    answer = command("plan", *model, "--memory", f"{1.5 * peaks['zo'] / 1024}KiB", code=3)
    assert "zeroth-order (two forward passes)" in answer.err
    message, _ = command(
        "plan", *model, "--optimizer", "zo", "--allow", "micro-batches", code=2
    ).refusal
    assert "have no effect" in message
