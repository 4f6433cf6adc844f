"""The names of published packages for rematerialisation, for code that was written for them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from shoestring.activations.remat import fitting
from shoestring.core.errors import InputError


class Rockmate(nn.Module):
    """A module that gives what another gives, within a budget of activations.

    The other one stays as it is; both have the same parameters and buffers.

    Args:
        original_mod: the model.
        model_inputs: one batch: a tensor, a tuple by position or a dict by keywords.
        budget: bytes of activations in forward and backward, gradients included; None for
            `solve_sched` to be given one later.
        solve_sched: whether to find the schedule at once.
        model_kwargs: further arguments by keyword.

    Raises:
        InputError: it is to be solved without a budget.

    Example:
        >>> model = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.GELU()) for _ in range(8)])
        >>> smaller = Rockmate(model, torch.randn(512, 64), 1_500_000)
        >>> smaller.op_sched.peak <= 1_500_000
        True
        >>> smaller(torch.randn(512, 64)).sum().backward()

    Source:
        Zhao et al., "Rockmate: an Efficient, Fast, Automatic and Generic Tool for
        Re-materialization in PyTorch", ICML 2023.
    """

    _solver: str = "auto"

    def __init__(
        self,
        original_mod: nn.Module,
        model_inputs: torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor],
        budget: int | None = None,
        *,
        solve_sched: bool = True,
        model_kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.budget = budget
        self.op_sched: fitting.AnySchedule | None = None
        self._batch = _batch(original_mod, model_inputs, model_kwargs)
        # Not among the modules: it is the one that is changed, and shares all it has.
        object.__setattr__(self, "original_mod", original_mod)
        self.fitted = copy.copy(original_mod)
        if solve_sched:
            self.solve_sched()

    def solve_sched(self, budget: int | None = None) -> None:
        """Find a schedule, in place of the one before.

        Args:
            budget: bytes; the one given before by default.

        Raises:
            InputError: none was given.
            InfeasibleError: no schedule fits.
        """
        self.budget = self.budget if budget is None else budget
        if self.budget is None:
            raise InputError("there is no budget.", hint="pass budget= in bytes.")
        if "forward" in vars(self.fitted) and self.op_sched is not None:
            fitting.remove(self.fitted)
        self.op_sched = fitting.fit(
            self.fitted, self._batch, activations=self.budget, solver=self._solver
        )

    def forward(self, *args: object, **kwargs: object) -> object:
        """Return what the model returns.

        Args:
            *args: of the model.
            **kwargs: of the model.
        """
        return self.fitted(*args, **kwargs)


def _batch(
    model: nn.Module,
    inputs: torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor],
    more: Mapping[str, torch.Tensor] | None,
) -> torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
    """Return all arguments as one batch."""
    if not more:
        return dict(inputs) if isinstance(inputs, Mapping) else inputs
    if isinstance(inputs, Mapping):
        return {**inputs, **more}
    given = (inputs,) if isinstance(inputs, torch.Tensor) else inputs
    names = list(inspect.signature(model.forward).parameters)
    return {**dict(zip(names, given, strict=False)), **more}


class HiRemate(Rockmate):
    """`Rockmate` for models of any form, not chains of blocks alone.

    Args:
        model: the model.
        model_inputs: one batch.
        budget: bytes of activations in forward and backward.
        algorithms: ``"hilp"``, ``"rotor"`` or both; both leave the choice of solvers open.
        solve_sched: whether to find the schedule at once.
        model_kwargs: further arguments by keyword.

    Raises:
        InputError: an algorithm is not known.

    Source:
        Gusak et al., "HiRemate: Hierarchical Approach for Efficient Re-materialization of Large
        Neural Networks", ICML 2025.
    """

    def __init__(
        self,
        model: nn.Module,
        model_inputs: torch.Tensor | tuple[torch.Tensor, ...] | Mapping[str, torch.Tensor],
        budget: int | None = None,
        algorithms: Sequence[str] = ("hilp", "rotor"),
        *,
        solve_sched: bool = True,
        model_kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        unknown = set(algorithms) - {"hilp", "rotor"}
        if unknown or not algorithms:
            raise InputError(
                f"algorithms={list(algorithms)} names none that is known.",
                hint='use "hilp", "rotor" or both.',
            )
        self._solver = "auto" if len(set(algorithms)) > 1 else algorithms[0]
        super().__init__(
            model, model_inputs, budget, solve_sched=solve_sched, model_kwargs=model_kwargs
        )
