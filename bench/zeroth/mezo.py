"""MeZO's step in four passes over the parameters, as its published program makes it.

Written again from the paper's algorithm: a generator seeded before each pass, normal numbers drawn
for one tensor after the other, and sums that make new tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch


class MeZO(torch.optim.Optimizer):
    """Zeroth-order SGD in four passes.

    Args:
        params: trained, in their order.
        lr: learning rate.
        eps: how far apart the loss is asked for.
        seed: of numpy's generator, which draws a seed for each step.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, eps: float = 1e-3, seed: int = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})
        self._seeds = np.random.RandomState(seed)

    def _pass(self, seed: int, scale: float) -> None:
        torch.manual_seed(seed)
        for group in self.param_groups:
            for parameter in group["params"]:
                z = torch.normal(
                    0.0, 1.0, parameter.shape, dtype=parameter.dtype, device=parameter.device
                )
                parameter.data = parameter.data + scale * z

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor]) -> float:  # type: ignore[override]
        """Make a step.

        Args:
            closure: returns the loss; called twice.

        Returns:
            The mean of the two losses.
        """
        (group,) = self.param_groups
        seed, eps = int(self._seeds.randint(1000000000)), group["eps"]
        self._pass(seed, eps)
        ahead = float(closure())
        self._pass(seed, -2 * eps)
        behind = float(closure())
        self._pass(seed, eps)
        self._pass(seed, -group["lr"] * (ahead - behind) / (2 * eps))
        return (ahead + behind) / 2
