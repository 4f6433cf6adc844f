"""A dispatch mode that prices what runs."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from shoestring.measure.formulas import Cost, op_cost

aten = torch.ops.aten


class Counting(TorchDispatchMode):
    """Adds up the costs of what runs, by operator."""

    def __init__(self, causal: str = "full") -> None:
        super().__init__()
        self.causal = causal
        self.found: dict[str, Cost] = {}
        self.unknown: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        cost = op_cost(func, args, kwargs or {}, out, causal=self.causal)
        name = func.overloadpacket.__name__
        if cost is None:
            self.unknown[str(func)] += 1
        else:
            old = self.found.get(name, Cost(0, 0, 0))
            self.found[name] = Cost(*map(sum, zip(old, cost, strict=True)))
        return out

    def of(self, *names: str) -> Cost:
        """Return the cost of some operators, or of all."""
        chosen = [self.found[name] for name in names or self.found]
        return Cost(*map(sum, zip(*chosen, strict=True))) if chosen else Cost(0, 0, 0)

    @property
    def flops(self) -> int:
        assert not self.unknown
        return self.of().flops

    @property
    def elementwise(self) -> int:
        assert not self.unknown
        return self.of().elementwise


def cost_of(func, *args, **kwargs) -> Cost:
    """Run an operator and price the call."""
    cost = op_cost(func, args, kwargs, func(*args, **kwargs))
    assert cost is not None, func
    return cost


def flops_of(func, *args, **kwargs) -> int:
    return cost_of(func, *args, **kwargs).flops
