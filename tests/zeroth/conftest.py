"""What tests of several workers share: one run of two workers and of four."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.zeroth import processes


@pytest.fixture(scope="session")
def workers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two workers and four, and return where they saved what they found."""
    if not processes.HERE:
        pytest.skip("there are no workers on this machine")
    folder = tmp_path_factory.mktemp("workers")
    processes.run("tests.zeroth.workers_program", folder)
    return folder


@pytest.fixture(scope="session", params=[2, 4], ids=["two", "four"])
def found(
    request: pytest.FixtureRequest, workers_folder: Path
) -> list[dict[str, dict[str, object]]]:
    """Return what each of two or four workers found."""
    paths = [workers_folder / f"{request.param}-{rank}.pt" for rank in range(request.param)]
    return [torch.load(path, weights_only=True) for path in paths]
