"""The published names take what they took, or say why not; none of it is left out in silence."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import compat
from shoestring.zeroth.adam import ZOAdam
from shoestring.zeroth.conservative import ZOConservative
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.jaguar import JaguarMuon, JaguarSign
from shoestring.zeroth.muon import SamplingMuon, ZOMuon
from shoestring.zeroth.sgd import ZOSGD
from shoestring.zeroth.sign import ZOSign

Maker = Callable[..., ZerothOrder]
SMOOTHED = {"tau": 1e-2, "use_smoothing": True, "beta": 0.7}

# Published keywords in their order, and rates at which a quadratic of 36 weights falls.
NAMES: dict[str, tuple[str, type[ZerothOrder], dict[str, object]]] = {
    "ZO_SGD": (
        "params lr eps momentum gradient_sparsity vector_sampling_type perturbation_mode q "
        "module_wise_perturbation coordinate_perturbation",
        ZOSGD,
        {"lr": 2e-2, "eps": 1e-3},
    ),
    "ZO_SignSGD": (
        "params lr eps momentum gradient_sparsity perturbation_mode q module_wise_perturbation "
        "coordinate_perturbation",
        ZOSign,
        {"lr": 1e-2, "eps": 1e-3},
    ),
    "ZO_Adam": (
        "params lr eps momentum gradient_sparsity perturbation_mode q module_wise_perturbation "
        "coordinate_perturbation",
        ZOAdam,
        {"lr": 5e-2, "eps": 1e-3},
    ),
    "ZO_Conserv": (
        "params lr eps momentum gradient_sparsity perturbation_mode",
        ZOConservative,
        {"lr": 2e-2, "eps": 1e-3},
    ),
    "ZO_MUON": (
        "params lr eps momentum gradient_sparsity perturbation_mode q",
        ZOMuon,
        {"lr": 1e-2, "eps": 1e-3, "momentum": 0.9},
    ),
    "ZO_SamplingMUON": (
        "params tau lr eps momentum gradient_sparsity matrix_sampling_type vector_sampling_type "
        "device",
        SamplingMuon,
        {"lr": 3e-2, "tau": 1e-3},
    ),
    "Jaguar_SignSGD": (
        "params tau beta use_smoothing lr eps momentum gradient_sparsity perturbation_mode q "
        "module_wise_perturbation coordinate_perturbation",
        JaguarSign,
        {"lr": 1e-2, **SMOOTHED},
    ),
    "Jaguar_MUON": (
        "params tau beta use_smoothing lr eps momentum gradient_sparsity perturbation_mode",
        JaguarMuon,
        {"lr": 2e-2, **SMOOTHED},
    ),
}


def maker(name: str) -> Maker:
    """Return what a published name stands for."""
    return getattr(compat, name)


def zeros(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    """Return parameters."""
    return [nn.Parameter(torch.zeros(shape)) for shape in shapes]


def steps(opt: ZerothOrder, params: list[nn.Parameter], count: int) -> list[float]:
    """Step on a quadratic, and return the losses."""
    goals = [torch.ones_like(p) for p in params]

    def loss() -> float:
        return sum(
            torch.dist(p.detach(), g).item() ** 2 for p, g in zip(params, goals, strict=True)
        )

    return [opt.step(loss) / 2 for _ in range(count)]


@pytest.mark.parametrize("name", NAMES)
def test_the_keywords_are_the_published_ones_in_their_order(name: str) -> None:
    keywords, kind, options = NAMES[name]
    parameters = list(inspect.signature(maker(name)).parameters.values())
    plain = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert plain == keywords.split()
    assert [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] == ["seed"]
    opt = maker(name)(zeros((3, 2)), **options)
    assert type(opt) is kind
    assert opt.param_groups[0]["lr"] == options["lr"]
    assert opt.param_groups[0]["eps"] == options.get("eps", options.get("tau"))


@pytest.mark.parametrize("name", NAMES)
def test_it_descends(name: str) -> None:
    params = zeros((6, 5), (6,))
    opt = maker(name)(params, **NAMES[name][2])
    losses = steps(opt, params, 50)
    assert losses[0] == pytest.approx(18, rel=0.05)
    while min(losses[-50:]) > 0.01 * 18 and len(losses) < 1500:
        losses += steps(opt, params, 50)
    assert min(losses[-50:]) < 0.01 * 18


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("ZO_SGD", {}, {"directions": "gaussian", "two_sided": True, "q": 1, "momentum": 0.0}),
        ("ZO_SGD", {"vector_sampling_type": "lp_sphere"}, {"directions": "sphere"}),
        ("ZO_SGD", {"perturbation_mode": "one_side"}, {"two_sided": False}),
        ("ZO_SGD", {"q": 3, "momentum": 0.5, "seed": 4}, {"q": 3, "momentum": 0.5, "seed": 4}),
        ("ZO_SignSGD", {"perturbation_mode": "one_side", "q": 2}, {"two_sided": False, "q": 2}),
        ("ZO_SignSGD", {"momentum": 0.5}, {"directions": "gaussian", "momentum": 0.5}),
        ("ZO_Adam", {"perturbation_mode": "one_side", "q": 2}, {"two_sided": False, "q": 2}),
        ("ZO_Conserv", {"seed": 2}, {"directions": "gaussian", "momentum": 0.0, "seed": 2}),
        ("ZO_MUON", {"perturbation_mode": "one_side", "q": 2}, {"two_sided": False, "q": 2}),
        ("ZO_MUON", {"momentum": 0.5}, {"directions": "gaussian", "momentum": 0.5}),
        ("ZO_SamplingMUON", {}, {"directions": "semiortho:householder"}),
        ("ZO_SamplingMUON", {"matrix_sampling_type": "GS"}, {"directions": "semiortho:butterfly"}),
        (
            "ZO_SamplingMUON",
            {"matrix_sampling_type": "GS_v2", "momentum": 0.5},
            {"directions": "semiortho:butterfly", "momentum": 0.5},
        ),
        ("ZO_SamplingMUON", {"matrix_sampling_type": "Rotation"}, {"directions": "semiortho:haar"}),
        (
            "ZO_SamplingMUON",
            {"matrix_sampling_type": "Reflection"},
            {"directions": "semiortho:permutation"},
        ),
        ("ZO_SamplingMUON", {"tau": None, "eps": 0.3}, {"eps": 0.3}),
        ("Jaguar_SignSGD", {}, {"momentum": 0.7, "eps": 1e-2, "coords": 128, "block": None}),
        (
            "Jaguar_SignSGD",
            {"use_smoothing": False, "beta": None, "q": 2, "perturbation_mode": "one_side"},
            {"momentum": 0.0, "q": 2, "two_sided": False},
        ),
        ("Jaguar_SignSGD", {"tau": None, "eps": 0.3}, {"eps": 0.3}),
        ("Jaguar_SignSGD", {"eps": 1e-2}, {"eps": 1e-2}),
        ("Jaguar_MUON", {"perturbation_mode": "one_side"}, {"momentum": 0.7, "two_sided": False}),
    ],
)
def test_options_are_taken(
    name: str, given: dict[str, object], expected: dict[str, object]
) -> None:
    group = maker(name)(zeros((3, 2)), **{**NAMES[name][2], **given}).param_groups[0]
    assert {key: group[key] for key in expected} == expected


EVERYWHERE = [
    ({"gradient_sparsity": 0.1}, "gradient_sparsity"),
    ({"gradient_sparsity": {"group_0.param_0": 0.1}}, "gradient_sparsity"),
    ({"perturbation_mode": "both"}, "no perturbation_mode='both'"),
    ({"module_wise_perturbation": True}, "perturbed together"),
    ({"coordinate_perturbation": True}, "perturbed together"),
]
REFUSED = [
    *[
        (name, given, message)
        for name, (keywords, _, _) in NAMES.items()
        for given, message in EVERYWHERE
        if set(given) <= set(keywords.split())
    ],
    ("ZO_SGD", {"vector_sampling_type": "cauchy"}, "no vector_sampling_type='cauchy'"),
    ("ZO_SGD", {"lr": None}, "lr is missing"),
    ("ZO_SGD", {"eps": None}, "eps is missing"),
    ("ZO_Adam", {"momentum": 0.9}, "no effect on Adam"),
    ("ZO_Conserv", {"momentum": 0.9}, "no effect on a conservative step"),
    ("ZO_Conserv", {"perturbation_mode": "one_side"}, "asks on both sides"),
    ("ZO_SamplingMUON", {"matrix_sampling_type": "Random_baseline"}, "no matrix_sampling_type"),
    ("ZO_SamplingMUON", {"vector_sampling_type": "lp_sphere"}, "vectors take signs"),
    ("ZO_SamplingMUON", {"device": "cpu"}, "vectors take signs"),
    ("ZO_SamplingMUON", {"eps": 0.5}, "eps has no effect beside tau"),
    *[
        (name, given, message)
        for name in ("Jaguar_SignSGD", "Jaguar_MUON")
        for given, message in [
            ({"momentum": 0.9}, "no effect on JAGUAR"),
            ({"eps": 0.5}, "eps has no effect beside tau"),
            ({"use_smoothing": None}, "beta=0.7 has no effect"),
            ({"beta": None}, "smoothing lacks its share"),
            ({"tau": None}, "eps is missing"),
        ]
    ],
]


@pytest.mark.parametrize(("name", "given", "message"), REFUSED)
def test_options_without_effect_are_refused(
    name: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        maker(name)(zeros((3, 2)), **{**NAMES[name][2], **given})


def test_groups_may_have_rates_of_their_own() -> None:
    x, y = zeros((3,), (4,))
    groups = [{"params": [x], "lr": 0.1, "eps": 1e-2}, {"params": [y], "lr": 0.2, "eps": 1e-3}]
    opt = compat.ZO_SGD(iter(groups))
    assert [(g["lr"], g["eps"]) for g in opt.param_groups] == [(0.1, 1e-2), (0.2, 1e-3)]
    with pytest.raises(InputError, match="eps has no effect beside tau"):
        compat.Jaguar_SignSGD(groups, tau=1e-2, lr=0.1)
    with pytest.raises(InputError, match="eps is missing"):
        compat.ZO_SGD([{"params": [x], "eps": 1e-2}, {"params": [y]}], lr=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_what_it_returns(name: str) -> None:
    params, others = zeros((6, 5), (6,)), zeros((6, 5), (6,))
    opt = maker(name)(params, **NAMES[name][2])
    plain = type(opt)(others, opt.param_groups[0]["lr"], opt.param_groups[0]["eps"], **direct(opt))
    assert steps(opt, params, 5) == steps(plain, others, 5)


def direct(opt: ZerothOrder) -> dict[str, object]:
    """Return the options that differ from the defaults, in the words of the class."""
    group = opt.param_groups[0]
    if isinstance(opt, JaguarSign | JaguarMuon):
        return {"beta": group["momentum"]}
    names = ["directions", *(["momentum"] if isinstance(opt, ZOMuon) else [])]
    return {name: group[name] for name in names}
