"""SubspaceZOMuon: orthogonalised steps, in a subspace that lasts for a while."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.core.errors import InputError
from shoestring.kernels.semiorthogonal import semiorthogonal
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.subspace_muon import SubspaceZOMuon, Within
from tests.oracles import zo_variants as oracle
from tests.zeroth import variants

Factors = tuple[torch.Tensor, torch.Tensor | None]

WAYS: dict[str, Callable[[list[nn.Parameter]], ZerothOrder]] = {
    "plain": lambda ps: SubspaceZOMuon(ps, lr=1e-2, interval=5, rank=2),
    "exact": lambda ps: SubspaceZOMuon(ps, interval=5, rank=3, method="svd", weight_decay=0.1),
    "two-sided": lambda ps: SubspaceZOMuon(
        ps, interval=3, rank=4, q=1, two_sided=True, momentum=0.9
    ),
}


def drawn(opt: SubspaceZOMuon, draw: int) -> list[list[Factors]]:
    """Return the factors of a step's directions."""
    found = []
    for index in range(opt.param_groups[0]["q"]):
        factors: list[Factors] = []
        pairs = zip(opt._moved(), opt._directions(draw, index), strict=True)
        for (parameter, _), z in pairs:
            if isinstance(z, Within):
                factors.append((z.inner(oracle.matrix(parameter.detach())), z.spanning))
            else:
                vector = torch.zeros_like(parameter)
                z.add_to(vector, 1.0)
                factors.append((vector.detach(), None))
        found.append(factors)
    return found


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 5)),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([0.0, 0.6]),
)
def test_the_course_is_that_of_the_formula(
    shape: tuple[int, int], rank: int, q: int, two_sided: bool, momentum: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    starts = [torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (3,))]
    made = [nn.Parameter(start.clone()) for start in starts]
    options = {"lr": 1e-2, "eps": 1e-3, "vector_ratio": 0.3, "weight_decay": 0.1}
    options["momentum"] = momentum
    opt = SubspaceZOMuon(
        made, rank=rank, interval=3, q=q, two_sided=two_sided, method="svd", **options
    )
    draws = []
    for step in range(7):
        draws.append(drawn(opt, step))
        opt.step(lambda: variants.loss([*made]))
    expected = oracle.subspace_muon(starts, variants.loss, draws, two_sided=two_sided, **options)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5)


def test_the_subspace_is_orthonormal_and_lasts() -> None:
    x = nn.Parameter(torch.zeros(9, 4, dtype=torch.float64))
    opt = SubspaceZOMuon([x], rank=3, interval=4, q=2)
    steps = [opt._draw([x], draw, index)[0] for draw in range(8) for index in range(2)]
    assert all(isinstance(z, Within) for z in steps)
    spans = [z.spanning for z in steps]
    torch.testing.assert_close(spans[0].T @ spans[0], torch.eye(3).double(), atol=1e-6, rtol=0)
    assert len({id(p) for p in spans[:8]}) == len({id(p) for p in spans[8:]}) == 1
    assert not torch.allclose(spans[0], spans[8])
    inner = {tuple(z.inner(x.detach()).flatten().tolist()) for z in steps}
    assert len(inner) == 16


def test_over_all_subspaces_the_directions_have_the_identity() -> None:
    count, flat = 5000, []
    for key in range(count):
        z = torch.zeros(3, 2)
        span = semiorthogonal("haar", 3, 2, count + key).dense()
        Within(key, span, 0, 0).add_to(z, 1.0)
        flat.append(z.reshape(-1))
    z = torch.stack(flat).double()
    assert (z.T @ z / count - torch.eye(6)).abs().max() < 0.12


def test_a_step_has_singular_values_of_the_learning_rate() -> None:
    x = nn.Parameter(torch.randn(8, 6, dtype=torch.float64))
    before = x.detach().clone()
    opt = SubspaceZOMuon([x], lr=0.1, rank=3, method="svd")
    opt.step(lambda: float(x.detach().square().sum()))
    lengths = torch.linalg.svdvals(x.detach() - before)
    torch.testing.assert_close(lengths[:3], torch.full((3,), 0.1).double(), rtol=1e-5, atol=0)
    assert lengths[3:].max() < 1e-6


def test_evaluations_are_counted() -> None:
    x, calls = nn.Parameter(torch.zeros(3, 3)), [0]

    def closure() -> float:
        calls[0] += 1
        return 1.0

    SubspaceZOMuon([x]).step(closure)
    assert calls == [5]


def test_nothing_is_kept_in_a_checkpoint() -> None:
    made = variants.parameters()
    opt = SubspaceZOMuon(made)
    variants.train(made, opt, 2)
    held = [value for entry in opt.state_dict()["state"].values() for value in entry.values()]
    assert not any(isinstance(value, torch.Tensor) for value in held)


def test_a_momentum_is_small() -> None:
    x = nn.Parameter(torch.zeros(40, 30))
    opt = SubspaceZOMuon([x], rank=5, momentum=0.9)
    assert opt.state[x]["momentum_buffer"].shape == (5, 30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_resumed_within_an_interval_and_made_again(
    way: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    assert variants.is_resumed_within(WAYS[way], dtype)
    assert variants.is_made_again(WAYS[way], dtype, tmp_path)
    assert variants.is_the_same_in_two_phases(WAYS[way], dtype)


def test_strides_make_no_difference() -> None:
    assert variants.is_the_same_by_columns(WAYS["exact"])


def test_the_quadratic_falls_at_the_defaults() -> None:
    assert variants.evaluations_to_one_percent(SubspaceZOMuon) < 20_000


def test_a_valley_is_descended() -> None:
    def make(ps: list[nn.Parameter]) -> SubspaceZOMuon:
        return SubspaceZOMuon(ps, lr=0.02, rank=2, interval=10, vector_ratio=2.5)

    assert variants.left_of_a_valley(make, 300) < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"interval": 0}, "interval=0"),
        ({"vector_ratio": -1.0}, "vector_ratio"),
        ({"method": "nonsense"}, "polar factor"),
        ({"momentum": 1.0}, "momentum"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SubspaceZOMuon([nn.Parameter(torch.zeros(2, 2))], **options)
