"""Two processes: each technique gives the gradients of the plain wrapper, or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.integrations.planned import ROUNDED, TECHNIQUES
from tests.integrations.two_processes import OTHERS, PREDICTED
from tests.two import ROOT, run_on_two

pytest.importorskip("transformers")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("torch was built without gloo", allow_module_level=True)

GUIDE = ROOT / "docs" / "guides" / "distributed.md"
ROUNDING = 2e-6
"""Of the largest gradient, in float32."""
SMALL = 1024
"""Bytes that exchanging gradients takes beside; the buckets have 1,402,112."""

Results = dict[str, dict[str, object]]
pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run both processes once, and return what the first one found."""
    return run_part("plans", tmp_path_factory.mktemp("processes"))


def run_part(part: str, folder: Path) -> Results:
    """Run a part of what two processes do, and return what the first one found."""
    module = ("-m", "tests.integrations.two_processes", part)
    run_on_two(lambda rank: (*module, str(rank), str(folder)), ROOT)
    return json.loads((folder / "0.json").read_text(encoding="utf-8"))


def cell(found: dict[str, object]) -> str:
    """Put a comparison in the words of the guide's table."""
    if "refused" in found:
        return "refused"
    if found["gradients"] and found["weights"]:
        return "same bits"
    apart = max(float(found["gradients apart"]), float(found["weights apart"]))
    return "same to rounding" if apart < ROUNDING else f"{apart} apart"


def table(mark: str) -> dict[str, str]:
    """Return technique -> cell of a table of the guide."""
    text = GUIDE.read_text(encoding="utf-8").split(f"<!-- table: {mark} -->")[1]
    rows = text.strip().split("\n\n")[0].splitlines()[2:]
    return {name.strip(): words.strip() for _, name, words, _ in (r.split("|") for r in rows)}


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_the_guide_s_table_is_what_was_found(kind: str, results: Results) -> None:
    found = {name: cell(results[f"{kind} {name}"]) for name in TECHNIQUES}
    assert found == table(kind)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_a_technique_is_as_exact_as_it_promises_or_refused(kind: str, results: Results) -> None:
    for name in TECHNIQUES:
        words = cell(results[f"{kind} {name}"])
        assert words in ("refused", "same to rounding" if name in ROUNDED else "same bits"), name


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", ["remat", "chunked-loss"])
def test_a_plan_is_applied_before_or_after_wrapping(kind: str, name: str, results: Results) -> None:
    assert cell(results[f"{kind}, applied after, {name}"]) == cell(results[f"{kind} {name}"])


@pytest.mark.parametrize(
    "case",
    ["ddp together", "ddp together, as views", "ddp unused", "ddp static", "fsdp2 together"],
)
def test_techniques_go_together(case: str, results: Results) -> None:
    assert cell(results[case]) == "same to rounding"


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_gradients_used_in_backward_are_refused_for_the_processes(
    kind: str, results: Results
) -> None:
    assert "2 processes" in str(results[f"{kind} release-gradients"]["refused"])


@pytest.mark.parametrize("case", ["fsdp2 head", "fsdp2 head, applied after"])
def test_a_head_that_is_sharded_by_itself_is_refused(case: str, results: Results) -> None:
    assert cell(results[case]) == "refused"


def test_buckets_hold_a_copy_of_all_gradients(results: Results) -> None:
    """As the guide says: as many bytes as the trainable parameters have, in the whole step."""
    for view in (False, True):
        for rows in (8, 1):
            found = results[f"memory {rows} {view}"]
            assert found["buckets"] == found["trainable"]
    for rows in (8, 1):
        found = results[f"memory {rows} False"]
        assert found["ddp"] == pytest.approx(found["plain"] + found["buckets"], abs=SMALL)


def test_gradients_as_views_of_buckets_cost_nothing_in_the_optimizer_s_step(
    results: Results,
) -> None:
    # Few tokens: the peak is where the optimizer steps, and all gradients are there anyway.
    found = results["memory 1 True"]
    assert found["ddp"] == pytest.approx(found["plain"], abs=SMALL)
    # Many tokens: the peak is before the backward, where plain training has no gradients.
    found = results["memory 8 True"]
    assert found["ddp"] == pytest.approx(found["plain"] + found["buckets"], abs=SMALL)


CASES = [*(" ".join(names) for names in PREDICTED), *OTHERS]


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_buckets_are_in_the_prediction(case: str, view: bool, results: Results) -> None:
    found = results[f"predicted {case} {view}"]
    assert found["ddp"], "the wrapper was not noticed"
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.005)


def test_a_sharded_parameter_larger_than_a_slice_is_trained(tmp_path: Path) -> None:
    assert run_part("large", tmp_path) == {"same": True, "moved": True}
