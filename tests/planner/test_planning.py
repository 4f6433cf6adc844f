"""Plans: chosen by predicted time under a budget, applied in place, kept as data."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import shoestring
from shoestring.activations import MicroBatches, Rematerialisation
from shoestring.core.errors import InfeasibleError, InputError, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.units import format_bytes
from shoestring.optim import ReleaseGradients, SlicedStep
from shoestring.planner.batches import with_row_sizes
from shoestring.planner.planning import explore
from shoestring.planner.reported import ZerothOrder
from shoestring.planner.search import predict
from shoestring.planner.tables import matrix
from shoestring.planner.techniques import technique_classes


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.down(nn.functional.gelu(self.up(x))))


class Model(nn.Module):
    """A small language model whose activations are most of its step."""

    def __init__(self, dropout: float = 0.1, layers: int = 4, vocabulary: int = 600) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, 32)
        self.layers = nn.ModuleList(Block(32, dropout) for _ in range(layers))
        self.head = nn.Linear(32, vocabulary, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.table(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


TOKENS = torch.arange(16 * 32).reshape(16, 32) % 600


def loss(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), batch.flatten())


def profiled(dropout: float = 0.1) -> tuple[nn.Module, Profile]:
    torch.manual_seed(0)
    model = Model(dropout)
    return model, shoestring.profile(model, TOKENS, optimizer=torch.optim.AdamW, loss=loss)


def test_a_generous_budget_changes_nothing() -> None:
    _, prof = profiled()
    plan = shoestring.plan(prof, shoestring.Budget(memory="1GiB"))
    assert plan.steps == ()
    assert plan.predicted == plan.plain
    assert "nothing needs to change" in plan.table()


@pytest.mark.parametrize("share", ["90%", "70%", "50%"])
def test_the_plan_is_within_the_budget_and_the_cheapest_that_is(share: str) -> None:
    _, prof = profiled()
    plan, reason = explore(prof, shoestring.Budget(memory=share))
    assert reason is None
    assert plan.budget == int(prof.peak * float(share[:-1]) / 100)
    assert plan.predicted.footprint <= plan.budget
    fitting = [row for row in plan.rows if row.fits and row.fidelity == Fidelity.EXACT.value]
    assert plan.predicted.seconds <= min(row.figures.seconds for row in fitting)


def test_tighter_budgets_never_take_less_time() -> None:
    _, prof = profiled()
    seconds = [
        shoestring.plan(prof, shoestring.Budget(memory=share)).predicted.seconds
        for share in ("100%", "80%", "60%", "50%")
    ]
    assert seconds == sorted(seconds)


def test_the_pareto_list_has_no_row_that_another_beats() -> None:
    _, prof = profiled()
    rows = explore(prof, shoestring.Budget(memory="40%"))[0].pareto
    figures = [(row.figures.footprint, row.figures.seconds) for row in rows]
    assert figures == sorted(figures)
    assert [s for _, s in figures] == sorted((s for _, s in figures), reverse=True)


def test_an_infeasible_budget_says_what_is_reachable_and_what_would_reach_it() -> None:
    _, prof = profiled()
    with pytest.raises(InfeasibleError, match=r"least reachable is .* bound by .* of ") as error:
        shoestring.plan(prof, shoestring.Budget(memory=prof.static + 10_000))
    least = min(row.figures.footprint for row in explore(
        prof, shoestring.Budget(memory=1))[0].rows if row.fidelity == "exact")  # fmt: skip
    assert format_bytes(least) in str(error.value)
    assert error.value.exit_code == 3


def test_micro_batches_with_dropout_are_used_only_when_allowed() -> None:
    _, prof = profiled(dropout=0.1)
    budget = shoestring.Budget(memory="45%")
    refused = dict(explore(prof, budget)[0].refused)
    assert "allow it by name" in refused["micro-batches"]
    allowed, reason = explore(prof, budget, allow=["micro-batches"])
    assert reason is None
    assert "micro-batches" not in dict(allowed.refused)


def test_without_dropout_micro_batches_are_exact_and_weighted_by_the_loss() -> None:
    _, prof = profiled(dropout=0.0)
    least = explore(prof, shoestring.Budget(memory=1))[0].predicted.footprint
    plan, reason = explore(prof, shoestring.Budget(memory=least))
    assert reason is None
    parts = [step for step in plan.steps if step.name == "micro-batches"]
    assert parts
    assert parts[0].options()["weight_by"] == "rows"


def test_gradients_are_never_used_in_backward_of_micro_batches() -> None:
    _, prof = profiled(dropout=0.0)
    prof = with_row_sizes(prof)
    parts = MicroBatches(parts=2)
    assert predict((SlicedStep(), parts), prof) is not None
    assert predict((ReleaseGradients(), parts), prof) is None
    model = Model(0.0)
    for share in ("60%", "40%", "30%", "20%"):
        plan, _ = explore(prof, shoestring.Budget(memory=share))
        assert {"release-gradients", "micro-batches"} > {s.name for s in plan.steps} & {
            "release-gradients",
            "micro-batches",
        }
        optimizer = plan.optimizer(model.parameters(), lr=1e-3)
        with plan.context():
            for part, weight in plan.split(TOKENS):
                (loss(model(part), part) * weight).backward()
        optimizer.step()
        getattr(optimizer, "close", lambda: None)()


def test_an_activation_budget_and_a_time_budget_are_kept() -> None:
    _, prof = profiled()
    plan = shoestring.plan(prof, shoestring.Budget(activations="60%"))
    assert plan.steps
    slow = shoestring.plan(prof, shoestring.Budget(seconds=prof.seconds * 1.6))
    quick = shoestring.plan(prof, shoestring.Budget(seconds=prof.seconds * 1.1))
    assert quick.predicted.seconds <= prof.seconds * 1.1
    assert slow.predicted.footprint < quick.predicted.footprint < prof.footprint


def test_names_in_allow_are_checked() -> None:
    _, prof = profiled()
    with pytest.raises(InputError, match="unknown technique"):
        shoestring.plan(prof, shoestring.Budget(memory="1GiB"), allow="magic")
    with pytest.raises(InputError, match="is reported"):
        shoestring.plan(prof, shoestring.Budget(memory="1GiB"), allow="lora")


def test_names_in_without_are_not_planned() -> None:
    _, prof = profiled()
    budget = shoestring.Budget(memory="70%")
    free = shoestring.plan(prof, budget)
    unwanted = free.steps[0].name
    plan = shoestring.plan(prof, budget, without=unwanted)
    assert plan.steps
    assert unwanted not in {technique.name for technique in plan.steps}
    assert (unwanted, "it is left out by without=.") in plan.refused
    with pytest.raises(InputError, match="without names the unknown technique 'magic'"):
        shoestring.plan(prof, budget, without="magic")
    with pytest.raises(InputError, match="without and allow both name 'micro-batches'"):
        shoestring.plan(prof, budget, allow="micro-batches", without="micro-batches")


def test_options_of_the_profiled_optimizer_are_not_another_one_s() -> None:
    model = torch.nn.Linear(4, 4)
    made = functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=0.25)
    prof = shoestring.profile(model, torch.zeros(2, 4), optimizer=made, loss=mean)
    plan = shoestring.plan(prof, shoestring.Budget(memory="1GiB"))
    same = plan.optimizer(model.parameters()).param_groups[0]
    assert (same["lr"], same["momentum"], same["weight_decay"]) == (0.5, 0.9, 0.25)
    other = plan.optimizer(model.parameters(), cls=torch.optim.AdamW).param_groups[0]
    plain = torch.optim.AdamW(model.parameters()).param_groups[0]
    assert {k: v for k, v in other.items() if k != "params"} == {
        k: v for k, v in plain.items() if k != "params"
    }


def mean(output: object, batch: object) -> torch.Tensor:
    assert isinstance(output, torch.Tensor)
    return output.square().mean()


def test_the_largest_batch_fits_and_one_more_row_does_not() -> None:
    model, prof = profiled(dropout=0.0)
    budget = prof.peak
    plan, _ = explore(prof, shoestring.Budget(memory=budget), largest=True)
    assert plan.rows[0].largest_batch == 16
    *_, most = Rematerialisation.propose(prof)
    rows = next(r for r in plan.rows if r.label == f"+ {most.describe()}").largest_batch
    assert rows is not None
    assert rows > 16
    for count, fits in ((rows, True), (rows + 3, False)):
        tokens = torch.zeros(count, 32, dtype=torch.long)
        larger = shoestring.profile(model, tokens, optimizer=torch.optim.AdamW, loss=loss)
        assert (most.predict(larger).footprint <= budget) == fits


def test_reported_techniques_come_with_a_prediction_and_are_never_planned() -> None:
    _, prof = profiled()
    plan, _ = explore(prof, shoestring.Budget(memory="20%"))
    labels = " ".join(row.label for row in plan.rows)
    for words in ("LoRA", "NF4", "8-bit", "bf16", "zeroth-order"):
        assert words in labels
    reported = {cls.name for cls in technique_classes() if cls.reported}
    assert not reported & {step.name for step in plan.steps}


def test_apply_and_remove_leave_the_model_what_it_was() -> None:
    model, prof = profiled()
    plan = shoestring.plan(prof, shoestring.Budget(memory="50%"))
    keys, kind = list(model.state_dict()), type(model)
    signature = inspect.signature(model.forward)
    plan.apply(model)
    assert plan.applied(model)
    assert (list(model.state_dict()), type(model)) == (keys, kind)
    assert inspect.signature(model.forward) == signature
    with pytest.raises(RefusedError, match="applied already"):
        plan.apply(model)
    copied = copy.deepcopy(model)
    assert plan.applied(copied)
    plan.remove(model)
    assert not plan.applied(model)
    assert all("forward" not in vars(m) for m in model.modules())
    with pytest.raises(InputError, match="not applied"):
        plan.remove(model)
    with pytest.raises(InputError, match="another model"):
        plan.apply(Model(layers=3))


def train(model: nn.Module, plan: shoestring.Plan | None, steps: int = 4) -> list[str]:
    torch.manual_seed(1)
    if plan is None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    else:
        plan.apply(model)
        optimizer = plan.optimizer(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        total = 0.0
        if plan is None:
            value = loss(model(TOKENS), TOKENS)
            value.backward()
            total = value.item()
        else:
            with plan.context():
                for part, weight in plan.split(TOKENS):
                    value = loss(model(part), part) * weight
                    value.backward()
                    total += value.item()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total).hex())
    return losses


def test_the_readme_s_loop_trains_bitwise_as_the_plain_one() -> None:
    model, prof = profiled(dropout=0.1)
    plan, _ = explore(prof, shoestring.Budget(memory="60%"))
    bitwise = tuple(t for t in plan.steps if t.name != "chunked-loss")
    assert bitwise
    plan = type(plan)(**{**vars(plan), "steps": bitwise})
    assert train(copy.deepcopy(model), None) == train(copy.deepcopy(model), plan)


def test_verify_measures_what_was_predicted() -> None:
    model, prof = profiled()
    for share in ("100%", "60%", "50%"):
        plan = shoestring.plan(prof, shoestring.Budget(memory=share))
        check = plan.verify(model, TOKENS, loss=loss)
        assert abs(check.error) < 0.05
        assert not plan.applied(model)


@pytest.mark.parametrize(
    "options",
    [{"autocast": torch.bfloat16}, {"clip_norm": 1.0}, {"accumulate": 2}, {"set_to_none": False}],
    ids=str,
)
def test_verify_runs_the_step_that_was_profiled(options: dict[str, object], tmp_path: Path) -> None:
    model = Model()
    prof = shoestring.profile(model, TOKENS, optimizer=torch.optim.AdamW, loss=loss, **options)
    plan, _ = explore(prof, shoestring.Budget(memory="60%"))
    plan.save(tmp_path / "plan.json")
    check = shoestring.Plan.load(tmp_path / "plan.json").verify(model, TOKENS, loss=loss)
    assert abs(check.error) < 0.05


def test_zeroth_order_scales_with_the_rows_that_are_left() -> None:
    _, prof = profiled()
    changed = ZerothOrder().predict(with_row_sizes(prof)).trace
    assert changed.peak_at(160) == pytest.approx(changed.scaled(160).peak, rel=1e-6)


def test_a_plan_is_data(tmp_path: Path) -> None:
    model, prof = profiled()
    plan = shoestring.plan(prof, shoestring.Budget(memory="50%"))
    plan.save(tmp_path / "plan.json")
    again = shoestring.Plan.load(tmp_path / "plan.json")
    assert again == plan
    again.apply(model)
    made = again.optimizer(model.parameters(), lr=0.5)
    assert isinstance(made, torch.optim.AdamW)
    assert made.param_groups[0]["lr"] == 0.5


def test_an_optimizer_of_the_user_s_own_must_be_named() -> None:
    class Mine(torch.optim.AdamW):
        pass

    model = Model()
    prof = shoestring.profile(model, TOKENS, optimizer=Mine, loss=loss)
    plan = shoestring.plan(prof, shoestring.Budget(memory="1GiB"))
    with pytest.raises(InputError, match="not one of torch"):
        plan.optimizer(model.parameters())
    assert isinstance(plan.optimizer(model.parameters(), cls=Mine), Mine)


def test_several_budgets_make_a_matrix() -> None:
    _, prof = profiled()
    plans = [explore(prof, shoestring.Budget(memory=share))[0] for share in ("100%", "50%")]
    text = matrix(plans)
    assert all(format_bytes(plan.budget) in text for plan in plans)
    assert "plan" in text


def test_clipping_keeps_gradients_and_says_why() -> None:
    model = Model()
    prof = shoestring.profile(
        model, TOKENS, loss=loss, clip_norm=1.0,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
    )  # fmt: skip
    plan, _ = explore(prof, shoestring.Budget(memory="30%"))
    assert "clip" in dict(plan.refused)["release-gradients"]
