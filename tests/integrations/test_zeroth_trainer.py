"""The Trainer by forward passes alone steps as a plain loop does, and goes on bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.integrations.checkpoints import checkpoints
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.zeroth import ZOSGD, Log, ZOAdam, ZOSign, replay
from shoestring.zeroth.engine import NoFiniteLossError, ZerothOrder

transformers = pytest.importorskip("transformers")

from shoestring.integrations.zeroth import LOG, ZerothTrainer  # noqa: E402  # needs the package
from tests.integrations.planned import language_model, tokens  # noqa: E402
from tests.integrations.test_planned_trainer import Rows, arguments, bert, same  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STEPS = 8


class Order(torch.utils.data.Sampler[list[int]]):
    """Batches of eight rows in their order."""

    batch_size, drop_last = 8, False

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(range(k, k + 8)) for k in range(0, 160, 8)])

    def __len__(self) -> int:
        return 20


def trainer_of(
    out: Path, make: Callable[..., ZerothOrder] = ZOSGD, **options: object
) -> ZerothTrainer:
    model = bert()
    opt = make(model.parameters(), lr=1e-3)
    args = arguments(out, **options)
    return ZerothTrainer(model, args, optimizer=opt, train_dataset=Rows(), batches=Order())


def weights(trainer: ZerothTrainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


@pytest.mark.parametrize(("make", "parts"), [(ZOSGD, 2), (ZOAdam, 1)])
def test_it_steps_as_a_plain_loop(
    tmp_path: Path, make: Callable[..., ZerothOrder], parts: int
) -> None:
    trainer = trainer_of(tmp_path, make, gradient_accumulation_steps=parts)
    trainer.train()
    model = bert().eval()
    opt = make(model.parameters(), lr=1e-3)
    rows, order = Rows(), list(Order())
    for step in range(STEPS):
        for group in opt.param_groups:  # as the Trainer's schedule has it
            group["lr"] = 1e-3 * (STEPS - step) / STEPS
        for part in range(parts):
            index = (step * parts + part) % len(order)
            batch = torch.utils.data.default_collate([rows[i] for i in order[index]])
            opt.estimate(lambda b=batch: model(**b).loss, weight=8)
        opt.step()
    assert same(weights(trainer), list(model.parameters()))
    assert trainer.evaluations == 2 * parts * STEPS
    assert all(p.grad is None for p in trainer.model.parameters())
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == STEPS
    assert all(0.9 < loss < 1.3 for loss in losses)  # the mean of the parts, not their sum
    assert not any("grad_norm" in entry for entry in trainer.state.log_history)


def test_it_goes_on_bit_for_bit_and_its_log_has_all_steps(tmp_path: Path) -> None:
    make = ZOAdam
    whole = trainer_of(tmp_path, make)
    whole.train()
    assert [p.name for p in checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in (3, 6, 8)]
    for step in (3, 6):
        again = trainer_of(tmp_path, make)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert same(weights(again), weights(whole))
        assert len(again.zolog) == STEPS
        model = bert()
        replay(model, again.zolog)
        assert same(list(model.parameters()), weights(whole))
    model = bert()
    replay(model, Log.load(tmp_path / "checkpoint-6" / LOG))
    saved = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "checkpoint-6")
    assert same(list(model.parameters()), list(saved.parameters()))


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    trainer_of(tmp_path).train()
    checkpoint = tmp_path / "checkpoint-3"
    other = trainer_of(tmp_path, ZOSign)
    with pytest.raises(InputError, match="of another run"):
        other.train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"has no optimizer\.pt"):
        trainer_of(tmp_path).train(resume_from_checkpoint=str(checkpoint))


def test_a_step_takes_the_memory_of_inference(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, save_strategy="no")
    batch = torch.utils.data.default_collate([Rows()[i] for i in range(16)])
    model, opt = trainer.model.eval(), trainer.optimizer
    trainer.current_gradient_accumulation_steps = 1

    def inference() -> None:
        with torch.no_grad():
            model(**batch)

    def step() -> None:
        trainer.training_step(model, batch)
        opt.step()

    inference()
    step()
    peaks = [
        measure_step(run, roots=lambda: standing(model, batch, opt)).peak
        for run in (inference, step)
    ]
    assert peaks[1] <= peaks[0] + 64 * 1024  # states of the random numbers, losses


def test_parts_of_a_batch_count_by_their_loss_terms(tmp_path: Path) -> None:
    """The mean over the tokens of a batch is that of its parts only if each counts its tokens."""
    whole = tokens(rows=4)
    whole["labels"][0, 4:] = -100

    def delta(parts: list[slice]) -> float:
        model = language_model()
        opt = ZOSGD(model.parameters(), lr=1e-3, eps=0.05)  # far above the rounding
        trainer = ZerothTrainer(
            model, arguments(tmp_path), optimizer=opt, train_dataset=[whole["input_ids"]]
        )
        trainer.current_gradient_accumulation_steps = len(parts)
        for part in parts:
            trainer.training_step(model, {name: t[part] for name, t in whole.items()})
        opt.step()
        return opt.log.deltas[0][0]

    expected = delta([slice(0, 4)])
    assert delta([slice(0, 1), slice(1, 4)]) == pytest.approx(expected, rel=1e-3)
    assert delta([slice(0, 3), slice(3, 4)]) == pytest.approx(expected, rel=1e-3)


def test_the_accuracy_can_be_the_objective(tmp_path: Path) -> None:
    model = bert()
    opt = ZOSGD(model.parameters(), lr=1e-3, eps=0.1)
    seen: list[torch.Tensor] = []

    def objective(outputs: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(-(outputs.logits.argmax(-1) == batch["labels"]).float())
        return seen[-1]

    trainer = ZerothTrainer(
        model, arguments(tmp_path), optimizer=opt, objective=objective, train_dataset=Rows()
    )
    trainer.train()
    assert len(seen) == 2 * STEPS
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx(
        [float((a.mean() + b.mean()) / 2) for a, b in zip(seen[::2], seen[1::2], strict=True)]
    )


def test_no_finite_loss_ends_the_training_with_the_weights_as_they_were(tmp_path: Path) -> None:
    model = bert()
    trainer = ZerothTrainer(
        model,
        arguments(tmp_path, num_train_epochs=3),
        optimizer=ZOSGD(model.parameters(), lr=0.0),
        objective=lambda outputs, batch: float("nan"),
        train_dataset=Rows(),
    )
    trainer.args.max_steps = 20
    with pytest.raises(NoFiniteLossError), pytest.warns(RuntimeWarning, match="left out"):
        trainer.train()
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"bf16": True}, {}, "rounding of mixed precision"),
        ({"weight_decay": 0.1}, {}, "weight_decay= would have no effect"),
        ({"max_grad_norm": 0.5}, {}, "max_grad_norm= would have no effect"),
        ({"gradient_checkpointing": True}, {}, "gradient_checkpointing= would have no effect"),
        ({}, {"pending": True}, "pending=True"),
    ],
)
def test_what_would_do_nothing_or_harm_is_refused(
    tmp_path: Path, options: dict[str, object], kind: dict[str, bool], words: str
) -> None:
    model = bert()
    opt = ZOSGD(model.parameters(), **kind)
    with pytest.raises(InputError, match=words) as caught:
        ZerothTrainer(model, arguments(tmp_path, **options), optimizer=opt, train_dataset=Rows())
    assert caught.value.hint


def test_other_optimizers_are_refused(tmp_path: Path) -> None:
    model = bert()
    with pytest.raises(InputError, match="AdamW is no zeroth-order optimizer"):
        ZerothTrainer(model, arguments(tmp_path), optimizer=torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize("manual", [True, False])
def test_lightning(tmp_path: Path, manual: bool) -> None:
    """By itself Lightning makes the same steps, and gradients that nobody reads."""
    lightning = pytest.importorskip("lightning")
    rows = Rows(32)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = not manual
            self.model = bert()

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> object:
            self.model.eval()
            if not manual:
                return self.model(**batch).loss
            return self.optimizers().step(lambda: self.model(**batch).loss) and None

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return ZOSGD(self.model.parameters(), lr=1e-3)

    module = Module()
    trainer = lightning.Trainer(
        max_steps=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=8))
    model = bert().eval()
    opt = ZOSGD(model.parameters(), lr=1e-3)
    for batch in torch.utils.data.DataLoader(rows, batch_size=8):
        opt.step(lambda b=batch: model(**b).loss)
    assert same(list(module.model.parameters()), list(model.parameters()))
    made = [p.grad is not None for p in module.model.parameters()]
    assert not any(made) if manual else any(made)
