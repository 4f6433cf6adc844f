"""``shoestring train``, from a user's file to a trained model, and through what may happen."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.core.run_folder import RunFolder
from shoestring.integrations.checkpoints import checkpoints, latest
from tests.integrations.tiny import write_model, write_texts

transformers = pytest.importorskip("transformers")

from shoestring.integrations.text_training import Outcome, train  # noqa: E402  # needs the package
from shoestring.integrations.training_settings import TextTraining  # noqa: E402
from shoestring.measure.counting.counts import Count  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
SOURCE = os.environ.get("SHOESTRING_FAULT_SOURCE", str(ROOT / "src"))
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([SOURCE, str(ROOT)]),
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model of each task and a file of texts."""
    folder = tmp_path_factory.mktemp("brought")
    for task in ("classification", "lm"):
        write_model(folder / task, task)
    write_texts(folder / "texts.csv", 300)
    return folder


def settings(brought: Path, out: Path, task: str = "classification") -> TextTraining:
    return TextTraining(
        model=str(brought / task),
        data=brought / "texts.csv",
        task=task,
        out=out,
        memory="95%",
        rows=16,
        steps=40,
        lr=3e-3,
        text_column="text",
    )


def run(chosen: TextTraining, *, resume: bool = False) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    outcome = train(
        chosen, resume=resume, tell=said.append, show=lambda entry: None, began=lambda a, b: None
    )
    return outcome, said


def test_classification(brought: Path, tmp_path: Path) -> None:
    chosen = dataclasses.replace(settings(brought, tmp_path / "run"), steps=100, save_every=20)
    outcome, said = run(chosen)
    assert outcome.run.status == "finished"
    assert outcome.metrics["accuracy"] >= 0.9
    assert any(line.startswith("predicted") for line in said)
    folder = RunFolder(tmp_path / "run")
    kept = folder.read()
    assert kept.measured["peak"] <= kept.budget
    assert kept.measured["peak"] == pytest.approx(kept.plan["predicted"]["peak"], rel=0.05)
    assert kept.measured["seconds"] > 0
    log = folder.log()
    assert [e.step for e in log if e.kind == "train"] == list(range(1, 101))
    assert log[-1].values["accuracy"] == outcome.metrics["accuracy"]
    timeline = folder.timeline()
    assert timeline.plain.peak == kept.plan["plain"]["peak"]
    columns = zip(*timeline.planned.kinds.values(), strict=True)
    assert max(map(sum, columns)) == timeline.planned.peak == kept.plan["predicted"]["peak"]
    count = Count.load(folder.count)
    assert count.flops >= timeline.modules[0]["flops"]
    assert not count.unknown_ops
    assert [p.name for p in checkpoints(folder.checkpoints)] == ["checkpoint-80", "checkpoint-100"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.model)
    words = tokenizer(["the day was lovely", "the film was awful"], return_tensors="pt")
    found = model.eval()(**words).logits.argmax(-1)
    assert [model.config.id2label[int(i)] for i in found] == ["good", "bad"]


def test_language_model(brought: Path, tmp_path: Path) -> None:
    outcome, _ = run(settings(brought, tmp_path / "run", "lm"))
    first = RunFolder(tmp_path / "run").log()[0].values["loss"]
    assert outcome.metrics["loss"] < first - 0.1
    assert outcome.metrics["perplexity"] > 1


@pytest.mark.parametrize("quantise", [None, "nf4", "int8"])
def test_adapters(brought: Path, tmp_path: Path, quantise: str | None) -> None:
    pytest.importorskip("peft")
    if quantise:
        pytest.importorskip("bitsandbytes")
    chosen = dataclasses.replace(
        settings(brought, tmp_path / "run"), lora=4, quantise=quantise, steps=4, memory="100%"
    )
    outcome, _ = run(chosen)
    kept = outcome.run
    assert kept.measured["peak"] == pytest.approx(kept.plan["predicted"]["peak"], rel=0.05)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()


def test_evaluation_stays_within_the_budget(brought: Path, tmp_path: Path) -> None:
    """A budget that training meets by splitting batches lets no whole batch be evaluated."""
    chosen = dataclasses.replace(
        settings(brought, tmp_path / "run"), memory="1.6MiB", steps=2, allow=("micro-batches",)
    )
    outcome, _ = run(chosen)
    assert int(outcome.run.data["rows in an evaluation"]) <= 16


def test_killed_at_any_moment_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.killed", str(tmp_path), "0"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 20
    assert all(line["second"] == 0 and line["same"] and not line["left"] for line in lines)
    inside = [line for line in lines if any(name.startswith(".") for name in line["found"])]
    assert len(inside) >= 3
    assert sum(line["first"] == -signal.SIGKILL for line in lines) >= 15


def command(words: Sequence[str], *, limit: int | None = None) -> subprocess.Popen[str]:
    def preexec() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "shoestring", "train", *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,  # noqa: PLW1509  # no threads are made before
    )


def words_of(brought: Path, out: Path, *more: str) -> list[str]:
    return [
        str(brought / "classification"),
        *("--data", str(brought / "texts.csv"), "--task", "classification", "--out", str(out)),
        *("--memory", "95%", "--rows", "16", *more),
    ]


def test_an_interrupt_leaves_a_checkpoint(brought: Path, tmp_path: Path) -> None:
    words = words_of(brought, tmp_path / "run", "--steps", "4000", "--save-every", "4000")
    with command(words) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 400 "):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out.startswith("stopped after ")
    folder = RunFolder(tmp_path / "run")
    kept = folder.read()
    assert kept.status == "stopped"
    found, faults = latest(folder.checkpoints)
    assert found is not None
    assert found.name == f"checkpoint-{kept.step}"
    assert faults == []


def test_a_full_disk_is_one_sentence_and_earlier_checkpoints_stand(
    brought: Path, tmp_path: Path
) -> None:
    with command(words_of(brought, tmp_path / "run", "--steps", "4", "--save-every", "2")) as good:
        good.communicate(timeout=120)
    whole = {p.name for p in (tmp_path / "run" / "checkpoints").iterdir()}
    words = words_of(brought, tmp_path / "other", "--steps", "8", "--save-every", "2")
    with command(words, limit=150_000) as process:
        out, err = process.communicate(timeout=120)
    assert good.returncode == 0
    assert whole == {"checkpoint-2", "checkpoint-4"}
    assert process.returncode == 2
    *_, message, hint = err.splitlines()
    assert message.startswith("error: checkpoint-2 cannot be written"), err
    assert hint.startswith("hint: free some space")
    assert list((tmp_path / "other" / "checkpoints").iterdir()) == []
    assert RunFolder(tmp_path / "other").read().status == "failed"
    assert out == ""


def test_a_run_is_not_overwritten_and_not_mixed_up(brought: Path, tmp_path: Path) -> None:
    chosen = dataclasses.replace(settings(brought, tmp_path / "run"), steps=2)
    run(chosen)
    with pytest.raises(InputError, match="holds a run already"):
        run(chosen)
    with pytest.raises(InputError, match="has seed 0, not 1"):
        run(dataclasses.replace(chosen, seed=1), resume=True)
    for change, words in (
        ({"lr": 1e-3}, "has lr .*, not 0.001"),
        ({"steps": 3}, "has length of training 2 steps, not 3 steps"),
        ({"memory": "70%"}, "has memory .*, not 70%"),
    ):
        with pytest.raises(InputError, match=words):
            run(dataclasses.replace(chosen, **change), resume=True)
    with pytest.raises(InputError, match="rows in a batch 16, and has 8 now"):
        run(dataclasses.replace(chosen, rows=8), resume=True)
    write_texts(tmp_path / "others.csv", 299)
    with pytest.raises(InputError, match="begun with train"):
        run(dataclasses.replace(chosen, data=tmp_path / "others.csv"), resume=True)
    again, said = run(chosen, resume=True)
    assert again.run.status == "finished"
    assert "going on from checkpoint-2" in said


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"length": 3}, "length must be at least 8"),
        ({"epochs": 0.0}, "epochs and lr"),
        ({"lr": float("nan")}, "epochs and lr"),
        ({"clip": -1.0}, "clip"),
        ({"quantise": "nf4"}, "quantised weights cannot be trained"),
        ({"model": "nowhere"}, "no folder nowhere"),
        ({"data": Path("nowhere.csv")}, "nowhere.csv"),
        ({"eval_data": Path("nowhere.csv")}, "nowhere.csv"),
    ],
)
def test_what_cannot_be_used_is_said(
    brought: Path, tmp_path: Path, change: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError, match=word) as caught:
        run(dataclasses.replace(settings(brought, tmp_path / "run"), **change))
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_the_command_line(brought: Path, tmp_path: Path) -> None:
    with command(words_of(brought, tmp_path / "run", "--steps", "2")) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.splitlines()[0].startswith("finished after 2 of 2 steps, loss ")
    assert out.splitlines()[1] == str(tmp_path / "run" / "model")
    assert "plan: " in err
    with command([*words_of(brought, tmp_path / "b"), "--lora", "many"]) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith("error: --lora 'many' is no rank.")
    assert torch.get_num_threads() > 0
