"""Small integers keep their values in a step without data, since models look at them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from shoestring.core.profile import Profile
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.step import StepOptions, plain_step
from shoestring.measure.tracing.values import MOST, has_values
from shoestring.planner.batches import resize, with_row_sizes
from shoestring.planner.profiling import profile

pytestmark = pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def llama(*, use_cache: bool) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        use_cache=use_cache,
    )
    return transformers.LlamaForCausalLM(config)


def both(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[Profile, int]:
    """Return the profile of a step, and its measured peak."""
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        plain_step(model, batch, optimizer, StepOptions())

    prof = profile(model, batch, optimizer=torch.optim.AdamW)
    step()
    step()
    return prof, measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("mask", ["none", "ones", "padded"])
def test_masks_are_made_and_left_out_as_in_the_step(use_cache: bool, mask: str) -> None:
    words = torch.ones(4, 128, dtype=torch.int64)
    batch = {"input_ids": words, "labels": words.clone()}
    if mask != "none":
        batch["attention_mask"] = torch.ones_like(words)
    if mask == "padded":
        batch["attention_mask"][0, 100:] = 0
    prof, peak = both(llama(use_cache=use_cache), batch)
    assert prof.step.fake
    assert prof.peak == pytest.approx(peak, rel=0.01)
    scores = 4 * 128 * 128 * 4
    whole = [s for s in prof.trace.storages if s.nbytes == scores]
    assert bool(whole) == (mask == "padded")


class Chooses(nn.Module):
    """A layer that is run as often as an integer of the batch says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        for _ in range(int(times.max())):
            x = self.layer(x)
        return x[torch.nonzero(times > 0).flatten()]


def test_control_flow_on_integers_needs_no_data() -> None:
    batch = {"x": torch.ones(4, 8), "times": torch.tensor([3, 0, 1, 2])}
    prof = profile(Chooses(), batch)
    assert prof.step.fake
    names = [op.name for op in prof.trace.ops]
    assert names.count("aten.addmm.default") == 3


def test_other_rows_keep_the_values() -> None:
    batch = {"x": torch.ones(3, 8), "times": torch.tensor([3, 0, 1])}
    more = resize(batch, 5)
    assert isinstance(more, dict)
    assert more["times"].tolist() == [3, 0, 1, 3, 0]
    assert more["x"].is_meta
    words = torch.ones(4, 16, dtype=torch.int64)
    mask = words.clone()
    mask[1, 9:] = 0
    masked = {"input_ids": words, "attention_mask": mask, "labels": words}
    prof = with_row_sizes(profile(llama(use_cache=False), masked))
    assert prof.trace.peak_at(8) > 1.2 * prof.peak


def test_what_has_values() -> None:
    assert has_values(torch.ones(3, dtype=torch.int64))
    assert has_values(torch.ones(3, dtype=torch.bool))
    assert not has_values(torch.ones(3))
    assert not has_values(torch.ones(3, dtype=torch.int64, device="meta"))
    assert not has_values(torch.zeros(MOST + 1, dtype=torch.uint8))


def test_a_batch_without_values_is_traced_as_before() -> None:
    words = torch.ones(4, 16, dtype=torch.int64, device="meta")
    prof = profile(llama(use_cache=False), {"input_ids": words, "labels": words})
    assert prof.step.fake


def test_the_batch_is_not_changed() -> None:
    class Spoils(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(8, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            ids += 1
            return self.table(ids)

    ids = torch.zeros(5, dtype=torch.int64)
    profile(Spoils(), ids)
    assert ids.tolist() == [0] * 5
