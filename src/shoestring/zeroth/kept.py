"""What every optimizer here keeps: its state in its own dtypes, and what it trains."""

from __future__ import annotations

import abc
from typing import Any, TypeAlias

import torch
from torch.optim.optimizer import StateDict

Group: TypeAlias = dict[str, Any]


class Keeping(torch.optim.Optimizer, abc.ABC):
    """An optimizer whose state is there from construction and keeps its dtypes when loaded."""

    @abc.abstractmethod
    def _state_of(self, parameter: torch.Tensor, group: Group) -> dict[str, Any]:
        """Return what is kept of a parameter from step to step, as it is at first.

        Args:
            parameter: one that is trained.
            group: its options.
        """

    def _look_up(self) -> list[tuple[torch.Tensor, Group]]:
        """Find what is trained, with its options; what shares memory with another only once."""
        found: dict[tuple[int, torch.Size], tuple[torch.Tensor, Group]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and parameter.numel():
                    found.setdefault((parameter.data_ptr(), parameter.shape), (parameter, group))
        for parameter, group in found.values():
            if not self.state[parameter]:
                self.state[parameter] = self._state_of(parameter, group)
        return list(found.values())

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load options and state; tensors of the state keep the dtypes they were saved in.

        Args:
            state_dict: of `state_dict`.
        """
        super().load_state_dict(state_dict)
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        ours = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, parameter in zip(saved, ours, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                if isinstance(value, torch.Tensor):  # torch has cast it to the parameter's dtype
                    self.state[parameter][name] = value.to(parameter.device, copy=True)


def wide_zeros(parameter: torch.Tensor) -> torch.Tensor:
    """Return zeros of a parameter's shape, in float32 at least, row by row.

    Args:
        parameter: of any dtype and layout.
    """
    wide = torch.float64 if parameter.dtype is torch.float64 else torch.float32
    return torch.zeros_like(parameter, dtype=wide, memory_format=torch.contiguous_format)
