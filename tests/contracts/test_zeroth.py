"""Every zeroth-order optimizer keeps the contract of `shoestring.testing.check_optimizer`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim.optimizer import ParamsT

from shoestring.testing import check_optimizer
from shoestring.zeroth import (
    LOZO,
    ZOSGD,
    ZOSVRG,
    ForwardGradient,
    HiZOO,
    JaguarMuon,
    JaguarSign,
    SamplingMuon,
    SparseZO,
    SubspaceZOMuon,
    ZOAdam,
    ZOConservative,
    ZOMarina,
    ZOMuon,
    ZOSign,
)
from shoestring.zeroth.asking import Closure


class WholeSVRG(ZOSVRG):
    """Every closure of the contract is over all data."""

    def step(self, closure: Closure | None = None) -> float | None:
        return super().step() if closure is None else super().step(closure, full=closure)


CLASSES: dict[str, tuple[Callable[[ParamsT], torch.optim.Optimizer], int]] = {
    "sgd": (lambda params: ZOSGD(params, lr=0.01), 2),
    "sgd-gaussian": (lambda params: ZOSGD(params, lr=0.01, directions="gaussian"), 2),
    "sgd-rank1": (lambda params: ZOSGD(params, lr=0.01, directions="rank1"), 2),
    "sgd-q": (lambda params: ZOSGD(params, lr=0.01, q=2, directions="semiortho:hadamard"), 4),
    "sgd-one-sided": (lambda params: ZOSGD(params, lr=0.01, eps=1e-4, two_sided=False), 2),
    "sgd-momentum": (lambda params: ZOSGD(params, lr=0.01, momentum=0.9), 2),
    "sign": (lambda params: ZOSign(params, lr=0.01), 2),
    "muon": (lambda params: ZOMuon(params, lr=0.01), 2),
    "sampling-muon": (lambda params: SamplingMuon(params, lr=0.01), 2),
    "jaguar-sign": (lambda params: JaguarSign(params, lr=0.01), 2),
    "jaguar-sign-paper": (lambda params: JaguarSign(params, lr=0.01, beta=0.0, coords=1), 2),
    "jaguar-sign-block": (lambda params: JaguarSign(params, lr=0.01, block="reference"), 2),
    "jaguar-muon": (lambda params: JaguarMuon(params, lr=0.01), 2),
    "lozo": (lambda params: LOZO(params, lr=0.01), 2),
    "lozo-momentum": (lambda params: LOZO(params, lr=0.01, interval=2, momentum=0.9), 2),
    "subspace-muon": (lambda params: SubspaceZOMuon(params, lr=0.01, rank=2, interval=2), 5),
    "hizoo": (lambda params: HiZOO(params, lr=0.01), 3),
    "hizoo-q": (lambda params: HiZOO(params, lr=0.01, q=2, momentum=0.5), 5),
    "sparse": (lambda params: SparseZO(params, lr=0.01, sparsity=0.2), 2),
    # With signs and a rate this high the candidates of Rosenbrock's valley are all worse.
    "conservative": (lambda params: ZOConservative(params, lr=0.01, directions="gaussian"), 5),
    "conservative-q": (lambda params: ZOConservative(params, lr=0.01, q=2), 7),
    "svrg": (lambda params: WholeSVRG(params, lr=0.01, interval=2, anchor_q=2), 4),
    "svrg-momentum": (
        lambda params: WholeSVRG(params, lr=0.01, interval=2, anchor_q=2, momentum=0.9),
        4,
    ),
    "forward-gradient": (lambda params: ForwardGradient(params, lr=0.01), 1),
    "marina": (lambda params: ZOMarina(params, lr=0.01, coords=2), 38),
    "adam": (lambda params: ZOAdam(params, lr=0.01), 2),
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_contract_is_kept(name: str) -> None:
    make, calls = CLASSES[name]
    check_optimizer(make, closure_calls=calls, closure_grad=False, state_at_construction=True)
