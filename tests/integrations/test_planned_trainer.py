"""The Trainer with a plan trains what the Trainer trains, and its checkpoints are whole."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from shoestring.core.budget import Budget
from shoestring.core.errors import InputError
from shoestring.integrations.checkpoints import MARK, checkpoints, fault_of, latest
from shoestring.integrations.nonfinite import NotFiniteError
from shoestring.planner.plan import Plan
from shoestring.planner.planning import explore
from shoestring.planner.planning import plan as make_plan
from shoestring.planner.profiling import profile

transformers = pytest.importorskip("transformers")

from shoestring.integrations import transformers as trainers  # noqa: E402  # needs the package
from shoestring.integrations.transformers import PlannedTrainer  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STEPS = 8
ADAMW = functools.partial(torch.optim.AdamW, fused=True)


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, count: int = 160) -> None:
        torch.manual_seed(1)
        self.words = torch.randint(0, 50, (count, 12))

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        words = self.words[index]
        return {
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
            "labels": words[0] % 3,
        }


def bert() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=3,
    )
    return transformers.BertForSequenceClassification(config)


def arguments(out: Path, **options: object) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=16,
        max_steps=STEPS,
        learning_rate=1e-3,
        save_steps=3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )


def planned(share: str = "75%") -> Plan:
    batch = torch.utils.data.default_collate([Rows()[i] for i in range(16)])
    prof = profile(bert().train(), batch, optimizer=ADAMW, clip_norm=1.0)
    return make_plan(prof, Budget(memory=share))


def trained(trainer: transformers.Trainer, resume: str | None = None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    trainer.train(resume_from_checkpoint=resume)
    return [p.detach().clone() for p in trainer.model.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_bitwise_what_the_trainer_trains(tmp_path: Path) -> None:
    plain = transformers.Trainer(bert(), arguments(tmp_path / "a"), train_dataset=Rows())
    plan = planned()
    assert any(step.name == "remat" for step in plan.steps)
    ours = PlannedTrainer(bert(), arguments(tmp_path / "b"), plan=plan, train_dataset=Rows())
    assert same(trained(ours), trained(plain))
    assert not plan.applied(ours.model)
    assert [p.name for p in checkpoints(tmp_path / "b")] == [
        "checkpoint-3",
        "checkpoint-6",
        "checkpoint-8",
    ]


def test_a_released_step_is_the_trainers_too(tmp_path: Path) -> None:
    options = {"max_grad_norm": 0.0, "optim": "adamw_torch"}
    plain = transformers.Trainer(bert(), arguments(tmp_path / "a", **options), train_dataset=Rows())
    batch = torch.utils.data.default_collate([Rows()[i] for i in range(16)])
    prof = profile(bert().train(), batch, optimizer=torch.optim.AdamW)
    plan, _ = explore(prof, Budget(memory="1KiB"))  # the one that reaches least
    assert any(step.name == "release-gradients" for step in plan.steps)
    ours = PlannedTrainer(
        bert(), arguments(tmp_path / "b", **options), plan=plan, train_dataset=Rows()
    )
    assert same(trained(ours), trained(plain))
    # The norm of gradients that are gone is not made up.
    assert any("grad_norm" in entry for entry in plain.state.log_history)
    assert not any("grad_norm" in entry for entry in ours.state.log_history)


def test_a_plan_for_several_processes_is_refused_in_one(tmp_path: Path) -> None:
    plan = dataclasses.replace(planned(), ddp="copies")
    with pytest.raises(InputError, match="made for processes several, and the training has one"):
        PlannedTrainer(bert(), arguments(tmp_path), plan=plan, train_dataset=Rows())


@pytest.mark.parametrize("fsdp", [None, "full_shard"])
def test_sharded_training_is_no_training_with_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsdp: str | None
) -> None:
    args = arguments(tmp_path)
    monkeypatch.setattr(type(args), "world_size", 2)
    args.fsdp = fsdp
    checked = functools.partial(trainers._check, planned(), args)
    if fsdp is None:
        with pytest.raises(InputError, match="processes one, and the training has several"):
            checked()
    else:
        checked()


def test_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    plan = planned()
    whole = PlannedTrainer(bert(), arguments(tmp_path / "a"), plan=plan, train_dataset=Rows())
    expected = trained(whole)
    found, faults = latest(tmp_path / "a")
    assert found is not None
    assert faults == []
    for step in (3, 6):
        again = PlannedTrainer(bert(), arguments(tmp_path / "a"), plan=plan, train_dataset=Rows())
        assert same(trained(again, str(tmp_path / "a" / f"checkpoint-{step}")), expected)


def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    trained(PlannedTrainer(bert(), arguments(tmp_path), plan=planned(), train_dataset=Rows()))
    (tmp_path / "checkpoint-8" / "optimizer.pt").unlink()
    weights = tmp_path / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found, faults = latest(tmp_path)
    assert found == tmp_path / "checkpoint-3"
    assert "optimizer.pt is missing" in faults[0]
    assert "model.safetensors has another size" in faults[1]
    (tmp_path / "checkpoint-3" / MARK).unlink()
    assert latest(tmp_path)[0] is None
    assert MARK in fault_of(tmp_path / "checkpoint-3")


class Explodes(transformers.TrainerCallback):
    """Spoils a weight after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: object, state: object, control: object, **more: object) -> None:
        if state.global_step == self.step:
            model = more["model"]
            model.bert.encoder.layer[1].output.dense.bias.data[0] = float("nan")


@pytest.mark.parametrize("step", [4, 6])
def test_a_loss_that_is_no_number_stops_before_a_checkpoint(tmp_path: Path, step: int) -> None:
    trainer = PlannedTrainer(
        bert(),
        arguments(tmp_path),
        plan=planned(),
        train_dataset=Rows(),
        callbacks=[Explodes(step)],
    )
    with pytest.raises(NotFiniteError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        trainer.train()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-3"]
    assert latest(tmp_path)[0] == tmp_path / "checkpoint-3"


class Overflows(nn.Module):
    """A layer whose output is infinite from some call on."""

    def __init__(self, layer: nn.Module, calls: int) -> None:
        super().__init__()
        self.layer, self.calls = layer, calls

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls -= 1
        return self.layer(x) * (float("inf") if self.calls < 0 else 1.0)


def test_the_module_where_it_began_is_named(tmp_path: Path) -> None:
    model = bert()
    plan = planned("100%")
    dense = model.bert.encoder.layer[2].intermediate
    dense.dense = Overflows(dense.dense, 2)
    trainer = PlannedTrainer(model, arguments(tmp_path), plan=plan, train_dataset=Rows())
    trainer.plan = type(
        "Unchanged",
        (),
        {
            "applied": lambda self, model: True,
            "context": plan.context,
            "split": plan.split,
            "optimizer": plan.optimizer,
            "optimizer_path": plan.optimizer_path,
        },
    )()
    with pytest.raises(NotFiniteError, match=r"step 3: .*layer\.2\.intermediate\.dense"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_grad_norm": 0.5}, "max_grad_norm 1.0"),
        ({"bf16": True}, "precision float32"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps 1"),
    ],
)
def test_another_kind_of_step_is_refused(
    tmp_path: Path, options: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        PlannedTrainer(bert(), arguments(tmp_path, **options), plan=planned())
