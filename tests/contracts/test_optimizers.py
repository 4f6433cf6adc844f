"""Every optimizer of the library keeps the contract of `shoestring.testing.check_optimizer`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim.optimizer import ParamsT

from shoestring.optim import ReleaseGradients, SlicedStep
from shoestring.testing import check_optimizer

CLASSES: dict[str, Callable[[ParamsT], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05),
    "sgd-nesterov": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, amsgrad=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
}


@pytest.mark.parametrize("technique", [SlicedStep(), ReleaseGradients()], ids=lambda t: t.name)
@pytest.mark.parametrize("name", CLASSES)
def test_the_step_keeps_the_contract(name: str, technique: SlicedStep | ReleaseGradients) -> None:
    check_optimizer(lambda params: technique.make_optimizer(CLASSES[name](params)))


@pytest.mark.parametrize("name", CLASSES)
def test_torch_keeps_the_contract(name: str) -> None:
    check_optimizer(CLASSES[name])
