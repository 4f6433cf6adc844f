"""One door to what is proved of every method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.differences import finite_differences
from shoestring.zeroth.guarantees.jaguar import jaguar_muon, jaguar_sign
from shoestring.zeroth.guarantees.marina import marina
from shoestring.zeroth.guarantees.problem import Problem
from shoestring.zeroth.guarantees.record import Guarantee
from shoestring.zeroth.guarantees.sgd import sgd
from shoestring.zeroth.guarantees.sign import alias, sign_sgd
from shoestring.zeroth.guarantees.spsa import spsa

_RUN: Final = frozenset({"L", "delta0", "T"})
_NOISY: Final = frozenset({"sigma", "Delta", "tau"})


@dataclasses.dataclass(frozen=True, slots=True)
class _Method:
    """How a guarantee is made, and which constants have a say in it.

    Attributes:
        rule: makes it.
        uses: names that may be given beside the method and d.
    """

    rule: Callable[[Problem], Guarantee]
    uses: frozenset[str]


_METHODS: Final = {
    "finite-differences": _Method(finite_differences, frozenset({"L", "Delta", "tau"})),
    "sgd": _Method(sgd, _RUN | _NOISY | {"mu", "directions"}),
    "jaguar-sign": _Method(jaguar_sign, _RUN | _NOISY | {"L_inf"}),
    "jaguar-muon": _Method(jaguar_muon, _RUN | _NOISY | {"shape"}),
    "sign-sgd": _Method(sign_sgd, _RUN | {"L_inf", "sigma"}),
    "alias": _Method(alias, _RUN | {"L_inf", "eta0", "d0"}),
    "marina": _Method(marina, _RUN | {"Delta", "tau", "mu", "workers", "coordinates"}),
    "spsa": _Method(spsa, _RUN | _NOISY),
}


def guarantee(  # noqa: PLR0913  # the constants of every method, each refused where it has no say
    method: str,
    *,
    d: int,
    L: float | None = None,  # noqa: N803  # as every paper calls it
    sigma: float = 0.0,
    Delta: float = 0.0,  # noqa: N803
    delta0: float | None = None,
    T: int | None = None,  # noqa: N803
    L_inf: float | None = None,  # noqa: N803
    mu: float | None = None,
    directions: str | None = None,
    tau: float | None = None,
    shape: tuple[int, int] | None = None,
    workers: int | None = None,
    coordinates: int | None = None,
    eta0: float | None = None,
    d0: float | None = None,
) -> Guarantee:
    r"""Return what is proved of a method: its best step, its radius, and how far it comes.

    For JAGUAR SignSGD, with :math:`p = 1 - \beta`:

    .. math::

        \frac{1}{T} \sum_t E \|\nabla f(x_t)\|_1 \le \frac{\delta_0}{\gamma T}
        + L_\infty \gamma \Bigl(\frac{1}{2} + 2 \Bigl(\frac{d}{p} - 1\Bigr)\Bigr)
        + \Bigl(\frac{d}{p} - 1\Bigr) \frac{2 \sqrt{2 L_\infty \delta_0}}{T}
        + 2 \sqrt{\frac{d p}{2 - p}} \sigma + 2 d \Bigl(\frac{L \tau}{2} + \frac{\Delta}{\tau}\Bigr)

    The other methods' formulas, and why they hold, are in docs/papers/guarantees.md.

    Args:
        method: "finite-differences", "sgd", "jaguar-sign", "jaguar-muon", "sign-sgd", "alias",
            "marina" or "spsa".
        d: number of parameters.
        L: Lipschitz constant of the gradient in the l2 norm.
        sigma: root of the total variance of a sample's gradient; both values of a difference are
            of one sample.
        Delta: how far a value may be off; for "spsa" the deviation of each value's own noise.
        delta0: ``f(x0) - f*``.
        T: number of iterations.
        L_inf: the constant from the l-infinity to the l1 norm, for signs; ``d L`` by default.
        mu: constant of Polyak and Lojasiewicz, for "sgd" and "marina"; with it the bound is one on
            ``f - f*``.
        directions: "rademacher", the default, or "gaussian", for "sgd".
        tau: radius of the differences (``eps`` of the optimizers); the best one by default. For
            "spsa" that of the first iteration.
        shape: of the matrix, for "jaguar-muon".
        workers: for "marina"; 1 by default.
        coordinates: K of a short message of "marina"; 1 by default.
        eta0: first guess of the smoothness by "alias"; ``L_inf`` by default.
        d0: first guess of the gap by "alias", at most delta0. Without it the gap is taken as known.

    Returns:
        The guarantee. Print it, or what its ``explain()`` returns.

    Raises:
        InputError: there is no such method, a constant is missing, out of range, or has no say.

    Example:
        >>> found = guarantee("sgd", d=50, L=1.0, delta0=25.0, mu=1.0, T=200)
        >>> print(found)
        sgd: f - f* in the mean <= 0.44
          after 200 iterations, 400 evaluations
          step 0.02,  tau 0
        >>> found.iterations_for(0.1)
        274

    Source: Petrov et al. (2025), arXiv 2506.04430; Gorbunov et al. (2021), arXiv 2102.07845;
    Medyakov et al. (2025), arXiv 2506.03725; Spall (1998). Each bound is derived anew.
    """
    if method not in _METHODS:
        raise InputError(
            f"there is no guarantee for {method!r}.", hint=f"take one of {', '.join(_METHODS)}."
        )
    problem = Problem(
        method=method,
        d=d,
        smooth=L,
        smooth_inf=L_inf,
        sigma=sigma,
        noise=Delta,
        gap=delta0,
        steps=T,
        pl=mu,
        directions=directions,
        tau=tau,
        shape=shape,
        workers=workers,
        coordinates=coordinates,
        eta0=eta0,
        d0=d0,
    )
    chosen = _METHODS[method]
    for name in problem.given():
        if name not in chosen.uses:
            raise InputError(f"{name} has no say in {method}.", hint=f"leave {name}= out.")
    return chosen.rule(problem)
