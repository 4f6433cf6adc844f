"""Two processes: DistributedDataParallel gives the same gradients, and FSDP is refused."""

from __future__ import annotations

import json

import pytest
import torch

from tests.two import ROOT, run_on_two

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("torch was built without gloo", allow_module_level=True)

Results = list[dict[str, object]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run both processes once, and return what each found."""
    folder = tmp_path_factory.mktemp("processes")
    module = ("-m", "tests.activations.remat.processes")
    run_on_two(lambda rank: (*module, str(rank), str(folder)), ROOT)
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


def test_gradients_are_those_of_the_plain_wrapper(results: Results) -> None:
    for found in results:
        assert "error" not in found, found["error"]
        assert found["overhead"] > 0
        assert found["exchanged"]
        assert found["ddp False"]
        assert found["ddp True"]
        assert found["captures"] <= 3


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_sharded_model_is_refused_by_name(when: str, part: bool, results: Results) -> None:
    for found in results:
        text = str(found[f"fit {when} {part}"])
        assert "sharded by FSDP" in text
        assert "hint:" in text
