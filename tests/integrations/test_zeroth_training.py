"""``shoestring train --optimizer zo``: the probe it begins with, its record, and going on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest
import torch

from shoestring.core.errors import InfeasibleError, InputError
from shoestring.core.run_folder import RunFolder
from shoestring.integrations.zeroth_names import ZEROTH, ZerothName
from shoestring.zeroth import Log
from tests.integrations.tiny import write_model, write_texts

transformers = pytest.importorskip("transformers")

from shoestring.integrations import text_training  # noqa: E402  # needs the package
from shoestring.integrations.linear_probe import fit_last_layer  # noqa: E402
from shoestring.integrations.text_training import Outcome, train  # noqa: E402
from shoestring.integrations.training_settings import TextTraining  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # slopes of a model that knows nothing
]


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brought")
    for task in ("classification", "lm"):
        write_model(folder / task, task)
    write_texts(folder / "texts.csv", 120)
    return folder


def settings(brought: Path, out: Path, **options: object) -> TextTraining:
    plain = TextTraining(
        model=str(brought / "classification"),
        data=brought / "texts.csv",
        task="classification",
        out=out,
        rows=16,
        steps=6,
        save_every=2,
        optimizer="zo",
        lr=1e-6,
        eps=1e-3,
        text_column="text",
    )
    return dataclasses.replace(plain, **options)


def run(chosen: TextTraining, *, resume: bool = False) -> tuple[Outcome, list[str]]:
    said: list[str] = []
    outcome = train(
        chosen, resume=resume, tell=said.append, show=lambda entry: None, began=lambda a, b: None
    )
    return outcome, said


def weights(folder: Path) -> dict[str, torch.Tensor]:
    kind = transformers.AutoModelForSequenceClassification
    return dict(kind.from_pretrained(folder).named_parameters())


def test_every_name_is_in_the_table_and_makes_an_optimizer() -> None:
    assert set(ZEROTH) == set(get_args(ZerothName))
    for named in ZEROTH.values():
        opt = named.load()([torch.nn.Parameter(torch.zeros(3))], lr=0.1, eps=0.1, q=2, seed=1)
        assert opt.step(lambda: 1.0) == 1.0


def test_the_record_says_what_it_took(brought: Path, tmp_path: Path) -> None:
    outcome, said = run(settings(brought, tmp_path, probe=True, q=2, directions="gaussian"))
    kept = RunFolder(tmp_path).read()
    assert kept.status == "finished"
    assert kept.options["optimizer"] == "zo"
    assert kept.options["q"] == "2"
    assert kept.measured["evaluations"] == 2 * 2 * 6
    assert kept.measured["seconds"] > 0
    assert kept.measured["peak"] == pytest.approx(kept.plan["predicted"]["peak"], rel=0.05)
    assert any(line.startswith("linear probe: accuracy") for line in said)
    first = RunFolder(tmp_path).log()[0]
    assert (first.step, first.kind) == (0, "eval")
    assert outcome.probe == first.values
    assert outcome.metrics["accuracy"] == RunFolder(tmp_path).log()[-1].values["accuracy"]
    log = Log.load(tmp_path / "model" / "run.zolog")
    assert len(log) == 6
    assert log.options["directions"] == "gaussian"


def test_it_goes_on_bit_for_bit(
    brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was killed before its first checkpoint: then rates are measured again."""
    chosen = settings(brought, tmp_path / "whole", lr=None, eps=None, probe=True)
    whole, said = run(chosen)
    assert any("measured by" in line for line in said)
    for stop in (0, 4):
        again = dataclasses.replace(chosen, out=tmp_path / str(stop))

        def killed(*args: object) -> None:
            raise KeyboardInterrupt

        if stop == 0:
            with monkeypatch.context() as patch:
                patch.setattr(text_training, "_carried_out", killed)
                with pytest.raises(KeyboardInterrupt):
                    run(again)
        else:
            run(again)
            checkpoint = again.out / "checkpoints" / "checkpoint-6"
            (checkpoint / "complete.json").unlink()
        outcome, _ = run(again, resume=True)
        assert outcome.metrics == whole.metrics
        assert outcome.run.measured["evaluations"] == whole.run.measured["evaluations"]
        assert outcome.probe == whole.probe
        ours, theirs = weights(again.out / "model"), weights(chosen.out / "model")
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert Log.load(again.out / "model" / "run.zolog") == Log.load(
            chosen.out / "model" / "run.zolog"
        )


def test_the_head_alone(brought: Path, tmp_path: Path) -> None:
    run(settings(brought, tmp_path, head_only=True, lr=1e-2, steps=2))
    base = transformers.AutoModel.from_pretrained(brought / "classification")
    trained = weights(tmp_path / "model")
    for name, parameter in base.named_parameters():
        assert torch.equal(trained[f"bert.{name}"], parameter)
    log = Log.load(tmp_path / "model" / "run.zolog")
    assert log.shapes == [[2, 32], [2]]


def test_adapters(brought: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    outcome, _ = run(settings(brought, tmp_path, lora=4, lr=1e-4, steps=2))
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    kept = outcome.run
    assert kept.measured["peak"] == pytest.approx(kept.plan["predicted"]["peak"], rel=0.05)


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_a_metric_is_maximised(brought: Path, tmp_path: Path, metric: str) -> None:
    outcome, _ = run(settings(brought, tmp_path, maximise=metric, eps=0.1, steps=2))
    losses = [e.values["loss"] for e in RunFolder(tmp_path).log() if e.kind == "train"]
    assert all(-1 <= loss <= 0 for loss in losses)
    assert outcome.metrics["loss"] > 0  # an evaluation's is the model's


def test_a_language_model(brought: Path, tmp_path: Path) -> None:
    chosen = settings(
        brought, tmp_path, model=str(brought / "lm"), task="lm", rows=8, lr=None, steps=2
    )
    outcome, _ = run(chosen)
    assert outcome.metrics["perplexity"] > 1
    assert float(outcome.run.data["learning rate"]) > 0


def test_a_budget_below_inference_cannot_be_met(brought: Path, tmp_path: Path) -> None:
    with pytest.raises(InfeasibleError, match="least reachable"):
        run(settings(brought, tmp_path, memory="100KiB"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clip": 1.0}, "clip has no effect"),
        ({"allow": ("micro-batches",)}, "allow has no effect"),
        ({"without": ("remat",)}, "without has no effect"),
        ({"bf16": True}, "mixed precision"),
        ({"q": 0}, "q must be at least 1"),
        ({"eps": float("inf")}, "eps must be a positive number"),
        ({"lr": float("nan")}, "epochs and lr"),
        ({"optimizer": "zo-muon", "lr": None}, "no learning rate can be measured"),
        ({"directions": "sideways"}, "no directions called 'sideways'"),
        ({"optimizer": "adamw"}, "eps has no effect with --optimizer adamw"),
        ({"optimizer": "adamw", "eps": None, "q": 2}, "q has no effect"),
        ({"optimizer": "adamw", "eps": None, "maximise": "f1"}, "f1 has no gradient"),
        ({"task": "lm", "probe": True}, "--task lm has none"),
        ({"task": "lm", "maximise": "f1"}, "--task lm has none"),
        ({"head_only": True, "lora": 4}, "the head alone"),
    ],
)
def test_what_has_no_effect_is_refused(
    brought: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run(settings(brought, tmp_path / "run", **change))
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


# --- the probe -----------------------------------------------------------------------------------


def classifier(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "llama":
        config = transformers.LlamaConfig(
            vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, num_labels=3, pad_token_id=0,
        )  # fmt: skip
        return transformers.LlamaForSequenceClassification(config)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(4):
        ids = torch.randint(1, 30, (16, 6), generator=generator)
        found.append({"input_ids": ids, "labels": ids[:, -1] % 3})
    return found


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_probe_is_the_optimum_of_its_objective(name: str) -> None:
    """There the gradient of the mean cross-entropy is that of the penalty: s^2 W / n."""
    model = classifier(name).train()
    head = model.score if name == "llama" else model.classifier
    others = {n: p.clone() for n, p in model.named_parameters() if p is not head.weight}
    accuracy, rows = fit_last_layer(model, batches())
    assert model.training
    assert (model.score if name == "llama" else model.classifier) is head
    for path, parameter in model.named_parameters():
        if parameter is not head.weight and parameter is not head.bias:
            assert torch.equal(parameter, others[path])
    model.eval()
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    logits = torch.cat([model(input_ids=b["input_ids"]).logits for b in batches()])
    handle.remove()
    labels = torch.cat([b["labels"] for b in batches()])
    assert rows == len(labels) == 64
    assert accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    features = torch.cat([h[:, -1] if name == "llama" else h for h in seen])
    scale = features.var(0, correction=0).mean()
    loss = torch.nn.functional.cross_entropy(logits, labels)
    (slope,) = torch.autograd.grad(loss, head.weight)
    penalty = scale * head.weight / rows
    assert (slope + penalty).norm() < 1e-2 * penalty.norm()
    again = classifier(name)
    fit_last_layer(again, batches())
    assert torch.equal((again.score if name == "llama" else again.classifier).weight, head.weight)


def test_a_model_without_such_a_layer_has_no_probe() -> None:
    model = classifier("bert")
    model.classifier = torch.nn.Sequential(torch.nn.Bilinear(1, 1, 3))
    with pytest.raises(InputError, match="no linear layer"):
        fit_last_layer(model, batches())
