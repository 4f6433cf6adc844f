"""Fused optimizers: scalar operations for each parameter, as their loops do them.

With g the gradient, after weight decay added to it (2) or of AdamW on the parameter (1):
  Adam: m + (1 - b1)(g - m) (3); b2 v + (1 - b2) g g (4); sqrt(v) / c + eps (3); p - lr m / d (3)
  Adagrad: s + g g (2); sqrt(s) + eps (2); p - lr g / d (3)
  SGD: p - lr g (2); with momentum b m + (1 - damping) g (2, or 3 with damping), nesterov (2)
The largest v (amsgrad), the sign (maximize) and the loss scale are 1 each.
"""

from __future__ import annotations

from typing import Any, Final

from shoestring.measure.formulas.cost import FLOATS, Arguments, Cost, Formula, Options


def _per_parameter(args: Arguments, kwargs: Options, each: int) -> Cost:
    each += int(bool(kwargs["maximize"])) + int(kwargs.get("grad_scale") is not None)
    return Cost(0, 0, each * sum(p.numel() for p in args[0] if p.dtype in FLOATS))


def _adam(decay: int) -> Formula:
    """Return the formula of Adam whose weight decay is so many operations."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        each = 13 + decay * int(kwargs["weight_decay"] != 0) + int(bool(kwargs["amsgrad"]))
        return _per_parameter(args, kwargs, each)

    return formula


def _adagrad(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_fused_adagrad(self, grads, state_sums, state_steps, ...)``."""
    return _per_parameter(args, kwargs, 7 + 2 * int(kwargs["weight_decay"] != 0))


def _sgd(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_fused_sgd(self, grads, momentum_buffers, ...)``; the first momentum is a copy."""
    each = 2 + 2 * int(kwargs["weight_decay"] != 0)
    if kwargs["momentum"] != 0:
        if not kwargs["is_first_step"]:
            each += 2 + int(kwargs["dampening"] != 0)
        each += 2 * int(bool(kwargs["nesterov"]))
    return _per_parameter(args, kwargs, each)


OPTIMIZERS: Final[dict[str, Formula]] = {
    "aten::_fused_adam": _adam(2),
    "aten::_fused_adamw": _adam(1),
    "aten::_fused_adagrad": _adagrad,
    "aten::_fused_sgd": _sgd,
}
"""Formulas of fused optimizers, by the operator's name."""
