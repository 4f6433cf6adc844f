"""Which published behaviours were defects: each fails where ours passes.

The failures are those of re-implementations, `tests/oracles/zo_library.py`. The table of
`docs/papers/jaguar.md` has a row for each, and no other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import compat
from shoestring.zeroth.directions import family
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.jaguar import JaguarSign
from tests.oracles import zo_library

PAGE = Path(__file__).resolve().parents[2] / "docs" / "papers" / "jaguar.md"
SIZES = (600, 20)
START = 310.0
"""Of the quadratic of 620 weights: half the squared distance from zeros to ones."""

RATE, STEPS = 1.6e-3, 3200
"""About 1 / d, and a third of 20,000 evaluations, which are enough for a right step."""

ROWS: set[str] = set()
"""Rows of the table that tests here stand for."""


def shows(row: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark a test as that of a row of the table."""
    ROWS.add(row)
    return lambda test: test


def weights() -> list[nn.Parameter]:
    """Return the quadratic's weights."""
    return [nn.Parameter(torch.zeros(20, 30)), nn.Parameter(torch.zeros(20))]


def loss_of(params: list[nn.Parameter]) -> Callable[[], float]:
    """Return the quadratic."""
    goals = [torch.ones_like(p) for p in params]
    pairs = list(zip(params, goals, strict=True))
    return lambda: sum(torch.dist(p.detach(), goal).item() ** 2 for p, goal in pairs) / 2


def ended(defect: str | None, *, steps: int = STEPS, lr: float = RATE, q: int = 1) -> float:
    """Return the share of the quadratic that is left by the descent that is written anew."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x - 1).square().sum() / 2

    x = torch.zeros(sum(SIZES), dtype=torch.float64)
    x = zo_library.descend(x, loss, SIZES, steps=steps, lr=lr, q=q, defect=defect)
    return float(loss(x)) / START


def left(opt: ZerothOrder, params: list[nn.Parameter], steps: int) -> float:
    """Return the share of the quadratic that ours leaves, or the first that is small enough."""
    loss = loss_of(params)
    for step in range(1, steps + 1):
        opt.step(loss)
        if step % 100 == 0 and loss() < 0.0099 * START:
            break
    return loss() / START


# --- descent -------------------------------------------------------------------------------------


def test_ours_and_what_is_written_anew_descend() -> None:
    params = weights()
    opt = compat.ZO_SGD(params, lr=RATE, eps=1e-3)
    assert left(opt, params, STEPS) < 0.01
    assert ended(None) < 0.01


@shows("the perturbation is computed and not added")
def test_never_added() -> None:
    assert ended("never added", steps=300) == 1.0


@shows("the sign of the slope is inverted")
def test_inverted() -> None:
    assert ended("inverted", steps=300) > 1.2
    params = weights()
    assert left(compat.ZO_SGD(params, lr=RATE, eps=1e-3), params, 300) < 0.8


@shows("the step is along another direction than the slope")
def test_another_direction() -> None:
    assert ended("another direction") > 0.5
    assert cosine_of_a_step(compat.ZO_SGD) == pytest.approx(1.0, abs=1e-4)
    assert cosine_of_a_step(compat.ZO_SignSGD) == pytest.approx(1.0, abs=1e-4)


@shows("there, across and back are along three directions")
def test_three_directions() -> None:
    assert ended("three directions", lr=0.0) > 1 + 1e-5  # they never come back
    assert ended("three directions") > 0.01
    params = weights()
    opt = compat.ZO_SGD(params, lr=0.0, eps=1e-3)
    left(opt, params, 1)
    settled = [p.detach().clone() for p in params]
    left(opt, params, 300)
    assert all(torch.equal(p, s) for p, s in zip(params, settled, strict=True))


@shows("the update seeds anew for each tensor")
def test_one_seed_for_each_tensor() -> None:
    z, other = (zo_library.direction(1, SIZES, anew=anew) for anew in (False, True))
    assert torch.equal(z[:20], other[:20])
    assert not torch.equal(z[600:], other[600:])
    assert ended("one seed for each tensor") > 0.01


@shows("the update is multiplied by eps")
def test_times_eps() -> None:
    assert ended("times eps") > 0.98


@shows("the mean of the slopes is taken along each of q directions")
def test_slopes_averaged() -> None:
    options = {"steps": 600, "lr": 8 / 628, "q": 8}
    assert ended("slopes averaged", **options) > 0.1
    params = weights()
    opt = compat.ZO_SGD(params, lr=8 / 628, eps=1e-3, q=8)
    assert left(opt, params, 600) < 0.01


@shows("`torch.sign` of a number of Python")
def test_sign_of_a_number() -> None:
    with pytest.raises(TypeError):
        zo_library.sign_of_slope(torch.tensor(2.0), torch.tensor(1.0), 1e-3)
    params = weights()
    assert left(compat.ZO_SignSGD(params, lr=4e-3, eps=1e-3), params, 300) < 0.95


@shows("an inner optimizer has its own copy of the learning rate")
def test_schedulers() -> None:
    outer, step = zo_library.rates_copied(0.1)
    x = nn.Parameter(torch.zeros(()))
    stopped = torch.optim.lr_scheduler.LambdaLR(outer, lambda _: 0.0)
    assert stopped.get_last_lr() == [0.0]
    step(x)
    assert x.item() != 0
    params = weights()
    for name in ("ZO_SGD", "ZO_SignSGD", "ZO_Adam", "ZO_MUON"):
        opt = getattr(compat, name)(params, lr=0.1, eps=1e-3)
        torch.optim.lr_scheduler.LambdaLR(opt, lambda _: 0.0)
        left(opt, params, 3)
        assert all((p == 0).all() for p in params)


@shows("a share of 0.1 is masked where normal numbers are below it")
def test_sparsity() -> None:
    masked = zo_library.sparse_mask(100_000, 0.1, seed=0).double().mean().item()
    assert masked == pytest.approx(0.54, abs=0.01)
    with pytest.raises(InputError, match="another share"):
        compat.ZO_SGD(weights(), lr=RATE, eps=1e-3, gradient_sparsity=0.1)


@shows("each row of a matrix is a sphere of its own")
def test_spheres() -> None:
    wide, narrow = (torch.randn(50, n, dtype=torch.float64) for n in (400, 4))
    for matrix in (wide, narrow):  # published: an entry's variance is one in so many columns
        rows = matrix / matrix.norm(dim=-1, keepdim=True)
        assert rows.square().mean().item() == pytest.approx(1 / matrix.shape[1])
    found = [torch.zeros_like(matrix) for matrix in (wide, narrow)]
    for z, tensor in zip(family("sphere")(found, 3), found, strict=True):
        z.add_to(tensor, 1.0)
    for tensor in found:
        assert tensor.square().mean().item() == pytest.approx(1, abs=0.5)
    assert sum(t.square().sum().item() for t in found) == pytest.approx(50 * 404, rel=1e-3)


# --- matrices ------------------------------------------------------------------------------------


def cosine_of_a_step(make: Callable[..., ZerothOrder]) -> float:
    """Return the cosine between what the loss is asked along and the step that is made."""
    params = weights()
    opt = make(params, lr=1.0, eps=1e-2)
    at: list[torch.Tensor] = []

    def flat() -> torch.Tensor:
        return torch.cat([p.detach().double().view(-1) for p in params])

    def closure() -> float:
        at.append(flat())
        return float(at[-1].sum())

    before = flat()
    opt.step(closure)
    return abs(float(torch.cosine_similarity(at[0] - at[1], flat() - before, dim=0)))


@shows("a matrix is perturbed along U S V^T and stepped along U V^T")
def test_perturbed_one_way_and_stepped_another() -> None:
    found = []
    for seed in range(20):
        along, step = zo_library.sampled(20, 30, seed)
        found.append(float((along * step).sum() / along.norm() / step.norm()))
    assert sum(found) / len(found) < 0.7

    def ours(params: list[nn.Parameter], lr: float, eps: float) -> ZerothOrder:
        return compat.ZO_SamplingMUON(params[:1], lr=lr, tau=eps)

    assert cosine_of_a_step(ours) == pytest.approx(1.0, abs=1e-3)


@shows("vectors are put back with other numbers")
def test_vectors_redrawn() -> None:
    x = torch.zeros(20, dtype=torch.float64)
    for seed in range(100):
        x = zo_library.vector_redrawn(x, seed, 1e-3)
    assert float(x.square().mean().sqrt()) == pytest.approx(1e-3 * math.sqrt(600), rel=0.5)
    params = weights()
    opt = compat.ZO_SamplingMUON(params, tau=1e-3, lr=0.0)
    left(opt, params, 100)
    assert (params[1] == 0).all()


@shows("the matrices that are sampled are not semi-orthogonal")
def test_samplers() -> None:
    along, step = zo_library.sampled(20, 30, 0)
    eye = torch.eye(20, dtype=torch.float64)
    assert float((along @ along.T - eye).abs().max()) > 0.5
    assert float(step.diagonal().square().sum() / step.square().sum()) > 0.5  # nor isotropic
    kinds = ["Householder_reflection", "GS", "GS_v2", "Rotation", "Reflection"]
    for kind in kinds:
        params = [nn.Parameter(torch.zeros(20, 30, dtype=torch.float64))]
        opt = compat.ZO_SamplingMUON(params, tau=1e-3, lr=1.0, matrix_sampling_type=kind)
        opt.step(lambda params=params: float(params[0].detach().sum()))
        matrix = params[0].detach()
        assert float((matrix @ matrix.T - eye).abs().max()) < 1e-5, kind
        assert float(matrix.diagonal().square().sum() / matrix.square().sum()) < 0.5, kind


# --- JAGUAR --------------------------------------------------------------------------------------


@shows("the momentum is set to zero before each step")
def test_no_momentum() -> None:
    start = [torch.zeros(4, 4, dtype=torch.float64)]
    entries = [(0, 5, 1.0)]

    def loss(theta: list[torch.Tensor]) -> torch.Tensor:
        return (theta[0] - 1).square().sum()

    forgetful = [
        zo_library.jaguar_step(start, loss, entries, lr=0.1, tau=0.1, beta=beta)[0]
        for beta in (0.0, 0.99)
    ]
    assert torch.equal(*forgetful)  # beta has no effect
    assert forgetful[0].count_nonzero() == 1

    (x,) = [nn.Parameter(torch.zeros(4, 4))]
    opt = JaguarSign([x], lr=0.1, coords=1, beta=0.9)
    counts = []
    for _ in range(60):
        before = x.detach().clone()
        opt.step(lambda: (x - 3).square().sum())
        counts.append(int((x != before).sum()))
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] > 10


@shows("all entries of a block take its one slope for their own")
def test_one_slope_for_a_block() -> None:
    slopes = torch.ones(20, dtype=torch.float64)
    slopes[7] = -0.5
    seen = {}
    for name, options in {"block": {"block": "reference"}, "signs": {"coords": 2}}.items():
        x = nn.Parameter(torch.zeros(20, dtype=torch.float64))
        opt = JaguarSign([x], lr=0.0, beta=0.0, **options)
        found = []
        for draw in range(400):
            opt.step(lambda x=x: slopes @ x)
            if 7 in opt._draw([x], draw, 0)[0].places:
                found.append(float(opt.state[x]["momentum_buffer"][7]))
        seen[name] = sum(found) / len(found)
    assert seen["block"] == pytest.approx(0.5)
    assert seen["signs"] == pytest.approx(-0.5, abs=0.4)


@shows("weights of more than two dimensions raise")
def test_convolutions() -> None:
    kernel = (20, 4, 3, 3)
    with pytest.raises(ValueError, match="unpack"):
        zo_library.block_sizes(kernel)
    params = [nn.Parameter(torch.zeros(kernel))]
    for name in ("Jaguar_SignSGD", "Jaguar_MUON"):
        opt = getattr(compat, name)(params, tau=1e-2, lr=1e-2)
        left(opt, params, 2)
        assert (params[0] != 0).any()


def test_the_table_has_these_rows() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE)
    assert set(rows[rows.index("published") + 2 :]) == ROWS
