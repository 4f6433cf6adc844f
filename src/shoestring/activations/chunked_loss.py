"""The chunked loss as a technique: found in the trace, predicted, applied to one module."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations._torch import has_hooks
from shoestring.activations.deferred_logits import defer_head, is_deferred, undefer_head
from shoestring.activations.loss_rewrite import chunk_loss
from shoestring.activations.loss_sites import find_loss_sites
from shoestring.core.errors import InputError, NoEffectWarning, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique

_WORTHWHILE = 1 / 64


@dataclasses.dataclass(frozen=True)
class ChunkedLoss(Technique):
    """Never hold the whole logits: head and cross-entropy run on a few rows at a time.

    While the model trains, the head returns `DeferredLogits` in place of its product, and the
    cross-entropy of those is a `chunked_cross_entropy`. Gradients are the plain ones to
    rounding; the head's forward runs once more in the backward. Logits that are used in
    another way are computed whole, as without the technique.

    Args:
        head: dotted path of the module whose product the loss is taken of: a linear layer
            with a weight ``[V, d]`` and at most a bias.

    Example:
        >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
        >>> ChunkedLoss(head="1").apply(model)
        >>> type(model(torch.tensor([1, 2]))).__name__
        'DeferredLogits'
    """

    head: str

    name: ClassVar[str] = "chunked-loss"
    slot: ClassVar[Slot] = Slot.ACTIVATIONS

    def fidelity(self, profile: Profile) -> Fidelity:
        """Return EXACT.

        Args:
            profile: the step it would change.
        """
        return Fidelity.EXACT

    def refuse(self, profile: Profile) -> str:
        """Return why it cannot be used on this step; empty where it can.

        Args:
            profile: the step it would change.
        """
        if profile.step.custom:
            return "forward and backward cannot be told apart in a step of your own."
        for trace in profile.traces:
            sites, reasons = find_loss_sites(trace)
            if not any(site.head == self.head for site in sites):
                return reasons[0] if reasons else f"no cross-entropy is taken of {self.head!r}."
        return ""

    @classmethod
    def propose(cls, profile: Profile) -> Iterable[Self]:
        """Return the heads whose logits are at least a 64th of the peak.

        Args:
            profile: the step it would change.
        """
        sizes: dict[str, int] = {}
        for site in find_loss_sites(profile.trace)[0]:
            logits = site.num_rows * site.num_classes * site.itemsize
            sizes[site.head] = sizes.get(site.head, 0) + logits
        least = profile.trace.peak * _WORTHWHILE
        return [cls(head=head) for head, size in sizes.items() if size >= least]

    def predict(self, profile: Profile) -> Profile:
        """Return the profile of the step with the loss in chunks.

        Args:
            profile: the step before the change.
        """
        traces = tuple(
            chunk_loss(trace, self.head, profile.machine.rounded) for trace in profile.traces
        )
        return dataclasses.replace(profile, traces=traces)

    def describe(self) -> str:
        """Return the change in a few words."""
        return f"cross-entropy of {self.head} in chunks"

    def apply(self, model: nn.Module) -> None:
        """Let the head defer its logits.

        Args:
            model: keeps its class, state_dict keys and signatures; copies of it are changed
                likewise.

        Raises:
            InputError: the model has no such module.
            RefusedError: the module is no plain linear layer, or is changed already.
        """
        head = self._find(model)
        if is_deferred(head):
            raise RefusedError(
                f"{self.head!r} defers its logits already.", hint="remove the other plan first."
            )
        reason = _unfit(head)
        if reason:
            raise RefusedError(f"{self.head!r} {reason}.", hint="leave out chunked-loss.")
        defer_head(head)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            warnings.warn(
                "no parameter is trained, so no loss runs in chunks.", NoEffectWarning, stacklevel=2
            )

    def remove(self, model: nn.Module) -> None:
        """Let the head return its logits again.

        Args:
            model: a model that `apply` changed, or a copy of one.

        Raises:
            InputError: the model has no such module.
            RefusedError: the head is as it was.
        """
        head = self._find(model)
        if not is_deferred(head):
            raise RefusedError(f"{self.head!r} does not defer its logits.", hint="apply it first.")
        undefer_head(head)

    def _find(self, model: nn.Module) -> nn.Module:
        try:
            return model.get_submodule(self.head)
        except AttributeError:
            raise InputError(
                f"the model has no module {self.head!r}.", hint="make the plan for this model."
            ) from None


def _unfit(head: nn.Module) -> str:
    """Return why a module is no plain linear layer, or nothing."""
    if "forward" in vars(head):
        return "has a forward of its own that something else has set"
    if has_hooks(head):
        return "has hooks, which may expect whole logits"
    named = dict(head.named_parameters())
    weight, bias = named.get("weight"), named.get("bias")
    extra = set(named) - {"weight", "bias"} or any(True for _ in head.buffers())
    if weight is None or weight.dim() != 2 or extra or next(head.children(), None) is not None:
        return "is no linear layer with one weight and at most a bias"
    if bias is not None and bias.shape != weight.shape[:1]:
        return "has a bias that is not one number per class"
    if type(head).forward is nn.Linear.forward:
        return ""
    return "" if _acts_linear(head, weight, bias) else "does not compute what a linear layer does"


def _acts_linear(head: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Try a module of another class on two rows."""
    if weight.device.type == "meta":
        return False
    rows = torch.linspace(-1, 1, 2 * weight.shape[1], dtype=weight.dtype, device=weight.device)
    rows = rows.reshape(2, -1)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expected = F.linear(rows, weight, bias)
        try:
            got = head(rows)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
            return False
    return (
        isinstance(got, torch.Tensor)
        and got.shape == expected.shape
        and bool(torch.allclose(got, expected))
    )
