"""ZO-MARINA: as defined, gradient descent in the limit, and all it asks for and sends counted."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.core.errors import InputError
from shoestring.testing import check_optimizer
from shoestring.zeroth.engine import MOST_SKIPPED, NoFiniteLossError
from shoestring.zeroth.entries import Entries
from shoestring.zeroth.marina import ZOMarina
from shoestring.zeroth.marina_rounds import coin, coordinates
from tests.oracles import marina as oracle
from tests.zeroth.workers_program import MARINA, marina

Loss = Callable[[], torch.Tensor]


def quadratic(seed: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix with eigenvalues up to 1, and a vector."""
    draws = np.random.default_rng(seed)
    root = draws.standard_normal((d, d))
    root /= np.linalg.norm(root, 2)
    return root.T @ root, draws.standard_normal(d)


def parameters(d: int) -> list[torch.nn.Parameter]:
    """Return d weights in tensors of several shapes, one of them with rows that lie apart."""
    x = torch.linspace(-1, 1, d, dtype=torch.float64)
    some = torch.zeros(2, 2, dtype=torch.float64).t().copy_(x[1:5].view(2, 2))
    return [torch.nn.Parameter(x[0].clone()), torch.nn.Parameter(some), torch.nn.Parameter(x[5:])]


def flat(params: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([parameter.reshape(-1) for parameter in params])


def loss_of(seed: int, params: list[torch.nn.Parameter]) -> Loss:
    matrix, vector = (torch.from_numpy(part) for part in quadratic(seed, len(flat(params))))
    return lambda: flat(params) @ matrix @ flat(params) / 2 - vector @ flat(params)


def in_numpy(seed: int, d: int) -> oracle.Loss:
    matrix, vector = quadratic(seed, d)
    return lambda x: float(x @ matrix @ x / 2 - vector @ x)


@settings(max_examples=25)
@given(
    d=st.integers(6, 12),
    coords=st.integers(1, 12),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**40),
    probability=st.none() | st.floats(0.01, 1.0),
)
def test_it_does_what_the_definition_says(
    d: int, coords: int, workers: int, seed: int, probability: float | None
) -> None:
    params = parameters(d)
    opt = ZOMarina(params, lr=0.3, coords=coords, probability=probability, seed=seed)
    start, count = flat(params).detach().numpy(), min(coords, d)
    chance = count / d if probability is None else probability
    rounds = [
        None
        if draw == 0 or coin(seed, draw) < chance
        else [coordinates(seed, draw, rank, d, count).tolist() for rank in range(workers)]
        for draw in range(6)
    ]
    losses = [in_numpy(k, d) for k in range(workers)]
    for _ in rounds:
        opt.step([loss_of(k, params) for k in range(workers)])
    expected = oracle.marina(losses, start, rounds, lr=0.3, eps=1e-3)
    assert np.allclose(flat(params).detach().numpy(), expected, rtol=0, atol=1e-9)


def test_sets_have_no_coordinate_twice_and_differ_by_worker_and_round() -> None:
    drawn = [coordinates(3, draw, rank, 50, 10) for draw in range(5) for rank in range(4)]
    assert len({tuple(chosen.tolist()) for chosen in drawn}) == 20
    assert all(len(set(chosen.tolist())) == 10 for chosen in drawn)
    counts = torch.bincount(
        torch.cat([coordinates(seed, 1, 0, 20, 5) for seed in range(2000)]), minlength=20
    )
    assert ((counts - 500).abs() < 5 * math.sqrt(500 * 0.75)).all()
    coins = np.array([coin(seed, 1) for seed in range(2000)])
    assert abs(coins.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 2000)


@pytest.mark.parametrize("options", [{"coords": 9}, {"coords": 2, "probability": 1.0}])
def test_with_whole_gradients_it_is_gradient_descent(options: dict[str, float]) -> None:
    params = parameters(9)
    opt = ZOMarina(params, lr=0.3, **options)
    x, loss = flat(params).detach().numpy(), in_numpy(0, 9)
    for _ in range(20):
        opt.step(loss_of(0, params))
        x = x - 0.3 * oracle.gradient(loss, x, 1e-3)
    assert np.allclose(flat(params).detach().numpy(), x, rtol=0, atol=1e-9)
    assert opt.evaluations == 20 * 2 * 9
    assert opt.floats_sent == 20 * 9


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_workers_with_the_same_data_are_one_worker(workers: int, dtype: torch.dtype) -> None:
    ends = []
    for count in (1, workers):
        x = torch.nn.Parameter(torch.linspace(-1, 1, 7, dtype=dtype))
        opt = ZOMarina([x], lr=0.1, coords=7)
        for _ in range(5):
            opt.step([lambda x=x: (x.double() - 0.25).pow(4).sum()] * count)
        ends.append(x.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_error_of_a_short_message_is_that_of_the_theory(workers: int) -> None:
    """``E |g - grad f|^2 = omega / n |grad f(x_1) - grad f(x_0)|^2``, ``omega = d / K - 1``."""
    d, coords, errors = 10, 3, []
    target = torch.linspace(1, 2, d, dtype=torch.float64)
    for seed in range(200):
        x = torch.nn.Parameter(torch.zeros(d, dtype=torch.float64))
        opt = ZOMarina([x], lr=0.5, coords=coords, probability=1e-9, seed=seed)
        for _ in range(2):
            before = x.detach().clone()
            opt.step([lambda x=x: (x - target).square().sum() / 2] * workers)
        errors.append(float((opt.state[x]["gradient"] - (before - target)).square().sum()))
    change = float((0.5 * target).square().sum())
    expected = (d / coords - 1) / workers * change
    assert np.mean(errors) == pytest.approx(expected, abs=4 * np.std(errors) / math.sqrt(200))


def test_evaluations_and_numbers_are_counted() -> None:
    d, coords, rounds, calls = 40, 4, 600, [0, 0]
    x = torch.nn.Parameter(torch.zeros(d, dtype=torch.float64))
    opt = ZOMarina([x], lr=1e-3, coords=coords, seed=2)

    def closure(worker: int) -> float:
        calls[worker] += 1
        return 0.0

    for _ in range(rounds):
        opt.step([lambda: closure(0), lambda: closure(1)])
    whole = 1 + sum(coin(2, draw) < coords / d for draw in range(1, rounds))
    short = rounds - whole
    assert calls == [opt.evaluations] * 2
    assert opt.evaluations == whole * 2 * d + short * 4 * coords
    assert opt.floats_sent == whole * d + short * coords
    p = coords / d
    deviation = math.sqrt(rounds * p * (1 - p))
    assert abs(whole - p * rounds) < 4 * deviation
    # In the mean 2 d p + 4 K (1 - p) = 6 K - 4 K p evaluations, and 2 K - K p numbers.
    spread = 4 * deviation / rounds
    assert opt.evaluations / rounds == pytest.approx(
        6 * coords - 4 * coords * p, abs=spread * (2 * d - 4 * coords)
    )
    assert opt.floats_sent / rounds == pytest.approx(
        2 * coords - coords * p, abs=spread * (d - coords)
    )


def test_the_rate_of_the_theory_keeps_its_bound() -> None:
    """With ``lr = 1 / (L (1 + root))`` the mean of ``|grad f|^2`` is at most ``2 gap / (lr T)``."""
    d, coords, workers, rounds = 12, 2, 4, 60
    parts = [quadratic(k, d) for k in range(workers)]
    matrix = sum(a for a, _ in parts) / workers
    vector = sum(b for _, b in parts) / workers
    smooth = math.sqrt(np.mean([np.linalg.norm(a, 2) ** 2 for a, _ in parts]))
    p, omega = coords / d, d / coords - 1
    rate = 1 / (smooth * (1 + math.sqrt((1 - p) * omega / (p * workers))))
    squares = []
    for seed in range(4):
        params = parameters(d)
        x = flat(params).detach().numpy()
        gap = x @ matrix @ x / 2 - vector @ x + vector @ np.linalg.solve(matrix, vector) / 2
        opt = ZOMarina(params, lr=rate, coords=coords, seed=seed)
        for _ in range(rounds):
            x = flat(params).detach().numpy()
            squares.append(np.sum((matrix @ x - vector) ** 2))
            opt.step([loss_of(k, params) for k in range(workers)])
    assert np.mean(squares) <= 2 * gap / (rate * rounds)
    assert squares[-1] < 0.2 * squares[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_entries_come_back_to_the_last_bit(dtype: torch.dtype) -> None:
    values = torch.logspace(-6, 2, 12).to(dtype).view(3, 4)
    x = torch.nn.Parameter(values.t().clone().t())  # columns lie together
    y = torch.nn.Parameter(torch.tensor(-0.0, dtype=dtype))
    before = [x.detach().clone(), y.detach().clone()]
    opt = ZOMarina([x, y], lr=0.0, coords=3)
    seen = []

    def closure() -> torch.Tensor:
        seen.append(((x != before[0]).sum() + (y != before[1])).item())
        return x.double().square().sum() + y

    for _ in range(12):
        opt.step(closure)
    assert set(seen) == {1}  # also where eps is too small for the dtype
    assert torch.equal(x.detach().view(-1), before[0].view(-1))
    assert math.copysign(1, y.item()) == -1


def test_slopes_are_those_of_the_numbers_that_a_dtype_has() -> None:
    x = torch.tensor([64.0, 1.0, 3e-3], dtype=torch.bfloat16)  # eps is lost in the first two
    slopes = Entries([x], [1e-3]).slopes(lambda: 3 * float(x.double().sum()), range(3))
    assert slopes.tolist() == [3.0, 3.0, 3.0]
    x = torch.tensor([math.inf])
    assert math.isnan(Entries([x], [1e-3]).slopes(lambda: 1.0, [0])[0])


@pytest.mark.parametrize("calls", [1, 4, 5, 8])  # of 8: at the weights, and before them
def test_an_error_or_an_interrupt_leaves_the_weights_as_they_were(calls: int) -> None:
    params = parameters(9)
    opt = ZOMarina(params, lr=0.3, coords=2, probability=1e-9)
    opt.step(loss_of(0, params))
    before, state, left = flat(params).detach().clone(), copy.deepcopy(opt.state_dict()), [calls]

    def failing() -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return loss_of(0, params)()

    with pytest.raises(KeyboardInterrupt):
        opt.step(failing)
    assert torch.equal(flat(params), before)
    for old, new in zip(state["state"].values(), opt.state_dict()["state"].values(), strict=True):
        assert torch.equal(old["previous"], new["previous"])


def test_a_round_whose_loss_is_not_finite_is_left_out() -> None:
    x = torch.nn.Parameter(torch.ones(5))
    opt = ZOMarina([x], lr=0.1, coords=5)
    opt.step(lambda: x.square().sum())
    before, gradient = x.detach().clone(), opt.state[x]["gradient"].clone()
    with pytest.warns(RuntimeWarning, match="left out"):
        opt.step([lambda: x.square().sum(), lambda: math.nan])
    for _ in range(MOST_SKIPPED - 2):
        opt.step(lambda: math.inf)
    assert torch.equal(x, before)
    assert torch.equal(opt.state[x]["gradient"], gradient)
    with pytest.raises(NoFiniteLossError, match="last 10 rounds"):
        opt.step(lambda: math.nan)
    opt.step(lambda: x.square().sum())
    assert not torch.equal(x, before)


def test_what_is_thawed_or_frozen_begins_with_a_whole_gradient() -> None:
    x, y = (torch.nn.Parameter(torch.ones(n, dtype=torch.float64)) for n in (3, 4))
    y.requires_grad_(False)
    opt, calls = ZOMarina([x, y], lr=0.1, coords=1, probability=1e-9), [0]

    def closure() -> torch.Tensor:
        calls[0] += 1
        return x.sum() + y.sum()

    counts = []
    for thawed in (False, False, True, True):
        y.requires_grad_(thawed)
        opt.step(closure)
        counts.append(calls[0])
        calls[0] = 0
    assert counts == [6, 4, 14, 4]
    assert x.tolist() == pytest.approx([0.6] * 3)
    assert y.tolist() == pytest.approx([0.8] * 4)


@pytest.mark.parametrize("options", [{"coords": 2}, {"coords": 64, "momentum": 0.5}])
def test_the_contract_is_kept(options: dict[str, float]) -> None:
    check_optimizer(
        lambda params: ZOMarina(params, lr=0.01, **options),
        closure_calls=38,  # twice 19 weights: the first round is whole
        closure_grad=False,
        state_at_construction=True,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coords": 0}, "coords=0"),
        ({"probability": 0.0}, "probability"),
        ({"probability": 1.5}, "probability"),
        ({"momentum": 1.0}, "momentum"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ZOMarina([torch.nn.Parameter(torch.zeros(1))], **options)


def test_rounds_that_cannot_be_are_refused() -> None:
    x = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    with pytest.raises(InputError, match="no parameter"):
        ZOMarina([x]).step(lambda: 0.0)
    with pytest.raises(InputError, match="0 closures"):
        ZOMarina([x]).step([])


# --- a worker in each process ----------------------------------------------------------------


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", MARINA)
def test_workers_in_processes_have_the_bits_of_one_process(
    name: str,
    found: list[dict[str, dict[str, object]]],
) -> None:
    count = len(found)
    expected = marina(name, list(range(count)), count)
    for worker in found:
        theirs = worker[f"marina {name}"]
        for mine, other in zip(theirs["weights"], expected["weights"], strict=True):
            assert torch.equal(mine, other)
        assert theirs["evaluations"] == expected["evaluations"]
        assert theirs["floats"] == theirs["sent"] == expected["floats"]


@pytest.mark.timeout(200)
def test_workers_that_differ_are_one_error_on_all(
    found: list[dict[str, str]],
) -> None:
    said = {worker["marina differing"] for worker in found}
    assert said == {"worker 1 differs from worker 0 in seed."}
