"""Exact slopes along random directions: forward-mode differentiation of the closure as it is."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.zeroth.asking import Closure, Loss, number
from shoestring.zeroth.directions import Direction
from shoestring.zeroth.found import Found
from shoestring.zeroth.same_numbers import SameNumbers
from shoestring.zeroth.sgd import Descent

_REFUSED: Final = ("forward AD", "forward mode AD")
"""What torch says of in its errors."""

_INSTEAD: Final = "use ZOSGD, which asks for losses only"


class ForwardGradient(Descent):
    r"""Gradient descent along random directions, whose slopes are exact: no distance, no rounding.

    .. math::

        x \leftarrow (1 - \gamma \lambda) x - \frac{\gamma}{q} \sum_i (\nabla f(x)^\top z_i) z_i

    With :math:`\gamma` the learning rate, :math:`\lambda` the weight decay, :math:`z_i` the
    directions. With momentum :math:`\mu` the sum is replaced by :math:`m \leftarrow \mu m + \sum`,
    which takes a buffer of the parameters' size.

    The closure is called ``q`` times, with gradients disabled, as it is: while it runs each
    parameter carries its direction as a tangent, and torch's forward-mode differentiation hands it
    on to the loss. So nothing is kept for a backward pass, but what is computed from parameters is
    computed with its tangent: twice the activations of a forward pass, the size of the parameters
    for their tangents, and more time than the two passes of `ZOSGD`. The parameters are not moved.

    Attention takes torch's plain form meanwhile, because its fused ones have no forward derivative.
    What the closure computes under ``torch.inference_mode``, from detached parameters, or inside an
    operator of Python that takes none of them as an argument, counts as constant. Of an embedding
    with ``padding_idx`` the padding is trained, too, where the loss depends on it.

    Args:
        params: parameters, groups or named parameters, as for `ZOSGD`.
        lr: :math:`\gamma`. It must shrink as the number of parameters grows: to about
            ``1 / tr(Hessian)``.
        directions: family of directions, as `directions.family` takes it.
        q: directions of a step.
        momentum: :math:`\mu`.
        weight_decay: :math:`\lambda`.
        seed: of the directions.

    Raises:
        InputError: an option is outside its range; on a step, the loss is no tensor or has no
            forward derivative.

    Source: Baydin et al., Gradients without backpropagation (2022), arXiv 2202.08587; it
    draws normal numbers.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(4))
        >>> opt = ForwardGradient([x], lr=0.1)
        >>> for _ in range(100):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> bool(loss < 1e-3)
        True
    """

    _common = ("directions", "q", "seed")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-6,
        *,
        directions: str = "rademacher",
        q: int = 1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            lr,
            directions=directions,
            q=q,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
        )
        for group in (self.defaults, *self.param_groups):
            del group["eps"]  # nothing is moved by it

    def _is_due(self, draw: int) -> bool:
        return False  # nothing is moved, so there is no radius

    def _settle(self) -> None:
        """Leave the parameters as they are: they need not come back."""

    def _weight(self, delta: float, parameter: torch.Tensor) -> float:
        return delta

    def _evaluate(self, closure: Closure, weight: float | None) -> float:
        same, losses, slopes, samples = SameNumbers(), [], [], 1
        for index in range(self._shared["q"]):
            with _differentiating(), self._tangents(index):
                loss = same.call(closure)
                slopes.append(_slope(loss) if self._moved() else 0.0)
                losses.append(number(loss))
            samples = loss.numel() if isinstance(loss, torch.Tensor) else 1
        counted = max(samples, 1) if weight is None else weight
        known = [s if math.isfinite(n) else math.nan for s, n in zip(slopes, losses, strict=True)]
        self._estimates.append(Found(counted, tuple(known)))
        return sum(losses) / len(losses)

    @contextlib.contextmanager
    def _tangents(self, index: int) -> Iterator[None]:
        """In this context each parameter carries a direction as its tangent.

        Args:
            index: of the direction among those of the step.
        """
        directions = self._directions(self._shared["draws"], index)
        moved = {_place(p): z for (p, _), z in zip(self._moved(), directions, strict=True)}
        with forward_ad.dual_level():
            for group in self.param_groups:
                for parameter in group["params"]:
                    z = moved.get(_place(parameter)) if parameter.requires_grad else None
                    if z is not None:
                        _give_tangent(parameter, z)
            yield


def _place(parameter: torch.Tensor) -> tuple[int, Sequence[int]]:
    """Return where a parameter's values are; those of tied ones are in one place."""
    return parameter.data_ptr(), parameter.shape


def _give_tangent(parameter: torch.Tensor, direction: Direction) -> None:
    """Let a parameter carry a direction as its tangent, as long as the level lasts."""
    tangent = torch.zeros_like(parameter)
    direction.add_to(tangent, 1.0)
    with warnings.catch_warnings():  # torch compiles formulas of its own, the first time
        warnings.simplefilter("ignore", DeprecationWarning)
        dual = forward_ad.make_dual(parameter.detach(), tangent)
    parameter.copy_(dual)  # onto itself: that changes no bit, and takes the tangent along


def _slope(loss: Loss) -> float:
    """Return the tangent that a loss has come to carry."""
    if not isinstance(loss, torch.Tensor):
        raise InputError(
            f"the closure returned {type(loss).__name__}, whose slope nothing tells.",
            hint=f"return the loss as a tensor, or {_INSTEAD}.",
        )
    tangent = forward_ad.unpack_dual(loss).tangent
    if tangent is None:
        raise InputError(
            "the loss does not depend on the parameters by anything that can be differentiated.",
            hint=f"look for detach, item, argmax or inference_mode in the closure, or {_INSTEAD}.",
        )
    return number(tangent)


@contextlib.contextmanager
def _differentiating() -> Iterator[None]:
    """In this context torch takes operators that have a forward derivative, where there are any."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    except RuntimeError as error:
        if not any(words in str(error) for words in _REFUSED):
            raise
        said = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise InputError(
            f"the closure has no forward derivative ({said}).",
            hint=f"{_INSTEAD}; nn.LSTM has one under torch.backends.mkldnn.flags(enabled=False).",
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
