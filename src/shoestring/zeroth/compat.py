"""The names of ZO-Library, with its keywords, for code that was written for them.

Each returns the optimizer here that does what the name says, and every option is taken or refused.
Where the published one does something else, ours differ:

==================  ==========================  ===================================================
name                returns                     other than there
==================  ==========================  ===================================================
`ZO_SGD`            `ZOSGD`                     the step is not multiplied by eps
`ZO_SignSGD`        `ZOSign`
`ZO_Adam`           `ZOAdam`                    the step is not multiplied by eps
`ZO_Conserv`        `ZOConservative`
`ZO_MUON`           `ZOMuon`                    momentum is before the polar factor, as in Muon;
                                                vectors and numbers step by signs
`ZO_SamplingMUON`   `SamplingMuon`              tau is what a weight moves by, not the length of a
                                                singular vector's part; vectors take signs
`Jaguar_SignSGD`    `JaguarSign`                independent signs on entries of all weights, and a
`Jaguar_MUON`       `JaguarMuon`                momentum that lasts, as in the paper;
                                                ``block="reference"`` there has the published draws
==================  ==========================  ===================================================

Spheres are of radius ``sqrt(d)`` over all weights, and not of radius 1 in each row. ``lr`` and
``eps`` may be left to the groups.

Source: ZO-Library, github.com/modernTalker/zero-order-optimization, of July 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypeVar, cast

from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.zeroth.adam import ZOAdam
from shoestring.zeroth.conservative import ZOConservative
from shoestring.zeroth.jaguar import JaguarMuon, JaguarSign
from shoestring.zeroth.muon import SamplingMuon, ZOMuon
from shoestring.zeroth.sgd import ZOSGD
from shoestring.zeroth.sign import ZOSign

Choice = TypeVar("Choice")
Sparsity: TypeAlias = float | Mapping[str, float] | None

_SIDES: Final = {"two_side": True, "one_side": False}
_VECTORS: Final = {"standard_normal": "gaussian", "lp_sphere": "sphere"}
_MATRICES: Final = {
    "Householder_reflection": "semiortho:householder",
    "GS": "semiortho:butterfly",
    "GS_v2": "semiortho:butterfly",
    "Rotation": "semiortho:haar",
    "Reflection": "semiortho:permutation",
}


def ZO_SGD(  # noqa: N802
    params: ParamsT,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    vector_sampling_type: str = "standard_normal",
    perturbation_mode: str = "two_side",
    q: int = 1,
    module_wise_perturbation: bool = False,
    coordinate_perturbation: bool = False,
    *,
    seed: int = 0,
) -> ZOSGD:
    """Return `ZOSGD`: descent along random directions.

    Args:
        params: parameters, groups or named parameters.
        lr: learning rate.
        eps: how far apart the loss is asked for.
        momentum: what the last steps count.
        gradient_sparsity: None alone.
        vector_sampling_type: ``standard_normal`` or ``lp_sphere``.
        perturbation_mode: ``two_side`` or ``one_side``.
        q: directions of a step.
        module_wise_perturbation: False alone.
        coordinate_perturbation: False alone.
        seed: of the directions.

    Raises:
        InputError: an option is of no effect here, or outside its range.

    Example:
        >>> import torch
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ZO_SGD([x], lr=0.1, eps=1e-3, perturbation_mode="two_side")
        >>> for _ in range(100):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-3)
        True
    """
    _refuse(gradient_sparsity, module_wise_perturbation, coordinate_perturbation)
    given, lr, eps = _rates(params, lr, eps)
    return ZOSGD(
        given,
        lr,
        eps,
        directions=_one_of(_VECTORS, "vector_sampling_type", vector_sampling_type),
        q=q,
        two_sided=_one_of(_SIDES, "perturbation_mode", perturbation_mode),
        momentum=momentum,
        seed=seed,
    )


def ZO_SignSGD(  # noqa: N802
    params: ParamsT,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    perturbation_mode: str = "two_side",
    q: int = 1,
    module_wise_perturbation: bool = False,
    coordinate_perturbation: bool = False,
    *,
    seed: int = 0,
) -> ZOSign:
    """Return `ZOSign` with normal directions: only the sign of each slope counts.

    Args:
        params: parameters, groups or named parameters.
        lr: learning rate.
        eps: how far apart the loss is asked for.
        momentum: what the last steps count.
        gradient_sparsity: None alone.
        perturbation_mode: ``two_side`` or ``one_side``.
        q: directions of a step.
        module_wise_perturbation: False alone.
        coordinate_perturbation: False alone.
        seed: of the directions.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity, module_wise_perturbation, coordinate_perturbation)
    given, lr, eps = _rates(params, lr, eps)
    sides = _one_of(_SIDES, "perturbation_mode", perturbation_mode)
    return ZOSign(
        given,
        lr,
        eps,
        directions="gaussian",
        q=q,
        two_sided=sides,
        momentum=momentum,
        seed=seed,
    )


def ZO_Adam(  # noqa: N802
    params: ParamsT,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    perturbation_mode: str = "two_side",
    q: int = 1,
    module_wise_perturbation: bool = False,
    coordinate_perturbation: bool = False,
    *,
    seed: int = 0,
) -> ZOAdam:
    """Return `ZOAdam` with normal directions.

    Args:
        params: parameters, groups or named parameters.
        lr: learning rate.
        eps: how far apart the loss is asked for; what Adam adds to a root is its default.
        momentum: 0 alone.
        gradient_sparsity: None alone.
        perturbation_mode: ``two_side`` or ``one_side``.
        q: directions of a step.
        module_wise_perturbation: False alone.
        coordinate_perturbation: False alone.
        seed: of the directions.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity, module_wise_perturbation, coordinate_perturbation)
    _refuse_momentum(momentum, "Adam", "take ZOAdam, with betas=.")
    given, lr, eps = _rates(params, lr, eps)
    sides = _one_of(_SIDES, "perturbation_mode", perturbation_mode)
    return ZOAdam(given, lr, eps, directions="gaussian", q=q, two_sided=sides, seed=seed)


def ZO_Conserv(  # noqa: N802
    params: ParamsT,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    perturbation_mode: str = "two_side",
    *,
    seed: int = 0,
) -> ZOConservative:
    """Return `ZOConservative` with normal directions: no step where it does not help.

    Args:
        params: parameters, groups or named parameters.
        lr: learning rate.
        eps: how far apart the loss is asked for.
        momentum: 0 alone.
        gradient_sparsity: None alone.
        perturbation_mode: ``two_side`` alone.
        seed: of the directions.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity)
    _refuse_momentum(momentum, "a conservative step", "leave it out, as there.")
    if not _one_of(_SIDES, "perturbation_mode", perturbation_mode):
        raise InputError(
            "a conservative step asks on both sides.", hint="take perturbation_mode='two_side'."
        )
    given, lr, eps = _rates(params, lr, eps)
    return ZOConservative(given, lr, eps, directions="gaussian", seed=seed)


def ZO_MUON(  # noqa: N802
    params: ParamsT,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    perturbation_mode: str = "two_side",
    q: int = 1,
    *,
    seed: int = 0,
) -> ZOMuon:
    """Return `ZOMuon` with normal directions.

    Args:
        params: parameters, groups or named parameters.
        lr: learning rate.
        eps: how far apart the loss is asked for.
        momentum: what the last estimates count, before the polar factor.
        gradient_sparsity: None alone.
        perturbation_mode: ``two_side`` or ``one_side``.
        q: directions of a step.
        seed: of the directions.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity)
    given, lr, eps = _rates(params, lr, eps)
    sides = _one_of(_SIDES, "perturbation_mode", perturbation_mode)
    return ZOMuon(
        given,
        lr,
        eps,
        momentum=momentum,
        directions="gaussian",
        q=q,
        two_sided=sides,
        seed=seed,
    )


def ZO_SamplingMUON(  # noqa: N802
    params: ParamsT,
    tau: float | None = None,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    matrix_sampling_type: str = "Householder_reflection",
    vector_sampling_type: str = "standard_normal",
    device: str | None = None,
    *,
    seed: int = 0,
) -> SamplingMuon:
    """Return `SamplingMuon`: steps along matrices that are orthogonal as they are drawn.

    Args:
        params: parameters, groups or named parameters.
        tau: how far apart the loss is asked for.
        lr: learning rate.
        eps: in place of tau.
        momentum: what the last steps count.
        gradient_sparsity: None alone.
        matrix_sampling_type: ``Householder_reflection``, ``GS``, ``GS_v2``, ``Rotation`` or
            ``Reflection``; of `kernels.semiorthogonal` householder, butterfly twice, haar and
            permutation.
        vector_sampling_type: ``standard_normal`` alone; vectors take signs.
        device: None alone; directions are drawn where the parameters are.
        seed: of the directions.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity)
    if vector_sampling_type != "standard_normal" or device is not None:
        raise InputError(
            "vectors take signs, on the parameters' device.",
            hint="leave vector_sampling_type and device out.",
        )
    given, lr, eps = _rates(params, lr, eps, tau)
    kind = _one_of(_MATRICES, "matrix_sampling_type", matrix_sampling_type)
    return SamplingMuon(given, lr, eps, directions=kind, momentum=momentum, seed=seed)


def Jaguar_SignSGD(  # noqa: N802, PLR0913  # as many as there, and a seed
    params: ParamsT,
    tau: float | None = None,
    beta: float | None = None,
    use_smoothing: bool | None = None,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    perturbation_mode: str = "two_side",
    q: int = 1,
    module_wise_perturbation: bool = False,
    coordinate_perturbation: bool = False,
    *,
    seed: int = 0,
) -> JaguarSign:
    """Return `JaguarSign`.

    Args:
        params: parameters, groups or named parameters.
        tau: how far apart the loss is asked for.
        beta: what the last visits of an entry count, with ``use_smoothing``. The published 0.01 had
            no effect there; 0.7 is the default of `JaguarSign`.
        use_smoothing: whether there is a beta; else it is 0.
        lr: learning rate.
        eps: in place of tau.
        momentum: 0 alone.
        gradient_sparsity: None alone.
        perturbation_mode: ``two_side`` or ``one_side``.
        q: draws of a step.
        module_wise_perturbation: False alone.
        coordinate_perturbation: False alone.
        seed: of the draws.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity, module_wise_perturbation, coordinate_perturbation)
    _refuse_momentum(momentum, "JAGUAR", "take beta=, with use_smoothing=True.")
    given, lr, eps = _rates(params, lr, eps, tau)
    sides = _one_of(_SIDES, "perturbation_mode", perturbation_mode)
    beta = _memory(beta, use_smoothing)
    return JaguarSign(given, lr, eps, beta=beta, q=q, two_sided=sides, seed=seed)


def Jaguar_MUON(  # noqa: N802
    params: ParamsT,
    tau: float | None = None,
    beta: float | None = None,
    use_smoothing: bool | None = None,
    lr: float | None = None,
    eps: float | None = None,
    momentum: float = 0.0,
    gradient_sparsity: Sparsity = None,
    perturbation_mode: str = "two_side",
    *,
    seed: int = 0,
) -> JaguarMuon:
    """Return `JaguarMuon`.

    Args:
        params: parameters, groups or named parameters.
        tau: how far apart the loss is asked for.
        beta: what the last visits of an entry count, as for `Jaguar_SignSGD`.
        use_smoothing: whether there is a beta; else it is 0.
        lr: learning rate.
        eps: in place of tau.
        momentum: 0 alone.
        gradient_sparsity: None alone.
        perturbation_mode: ``two_side`` or ``one_side``.
        seed: of the draws.

    Raises:
        InputError: an option is of no effect here, or outside its range.
    """
    _refuse(gradient_sparsity)
    _refuse_momentum(momentum, "JAGUAR", "take beta=, with use_smoothing=True.")
    given, lr, eps = _rates(params, lr, eps, tau)
    sides = _one_of(_SIDES, "perturbation_mode", perturbation_mode)
    beta = _memory(beta, use_smoothing)
    return JaguarMuon(given, lr, eps, beta=beta, two_sided=sides, seed=seed)


def _refuse(sparsity: Sparsity, by_module: bool = False, by_coordinate: bool = False) -> None:
    """Refuse what has no counterpart."""
    if sparsity is not None:
        raise InputError(
            "gradient_sparsity masks at random, another share than it says.",
            hint="leave it out; directions='coord:k' moves k weights, SparseZO the smallest.",
        )
    if by_module or by_coordinate:
        raise InputError(
            "all parameters are perturbed together.",
            hint="leave module_wise_perturbation and coordinate_perturbation out.",
        )


def _refuse_momentum(momentum: float, who: str, hint: str) -> None:
    if momentum:
        raise InputError(f"momentum={momentum} has no effect on {who}.", hint=hint)


def _memory(beta: float | None, use_smoothing: bool | None) -> float:
    if use_smoothing and beta is None:
        raise InputError("smoothing lacks its share.", hint="give beta=0.7, say.")
    if beta and not use_smoothing:
        raise InputError(
            f"beta={beta} has no effect without smoothing.", hint="add use_smoothing=True."
        )
    return beta or 0.0


def _rates(
    params: ParamsT, lr: float | None, eps: float | None, tau: float | None = None
) -> tuple[ParamsT, float, float]:
    """Return parameters, ``lr`` and ``eps``, which each group may have of its own."""
    given = list(params)
    groups = [cast(dict[str, Any], group) for group in given if isinstance(group, dict)]
    if tau is not None:
        if eps not in (None, tau) or any("eps" in group for group in groups):
            raise InputError("eps has no effect beside tau.", hint="leave eps out.")
        eps = tau
    return cast(ParamsT, given), _rate(groups, "lr", lr), _rate(groups, "eps", eps)


def _rate(groups: list[dict[str, Any]], name: str, value: float | None) -> float:
    """Return a number that is given, or else the first group's."""
    if value is not None:
        return float(value)
    if not groups or any(name not in group for group in groups):
        raise InputError(f"{name} is missing.", hint=f"give {name}=, or one to each group.")
    return float(groups[0][name])


def _one_of(choices: Mapping[str, Choice], name: str, value: str) -> Choice:
    """Return what a word stands for."""
    if value not in choices:
        raise InputError(
            f"there is no {name}={value!r} here.", hint=f"take one of {', '.join(choices)}."
        )
    return choices[value]
