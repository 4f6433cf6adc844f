"""MARINA on finite differences: workers send some coordinates of how their gradients changed."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias, overload

import torch
from torch.optim.optimizer import ParamsT

from shoestring.core.errors import InputError
from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.asking import Closure
from shoestring.zeroth.engine import MOST_SKIPPED, NoFiniteLossError
from shoestring.zeroth.entries import Entries
from shoestring.zeroth.kept import Group, Keeping, wide_zeros
from shoestring.zeroth.marina_rounds import ROUNDING, Round, coin
from shoestring.zeroth.sgd import check_momentum
from shoestring.zeroth.workers import Workers, digest

Moved: TypeAlias = list[tuple[torch.Tensor, Group]]

_SHARED: Final = ("coords", "probability", "seed", "draws")
_OF_GROUPS: Final = ("lr", "eps", "momentum")


class ZOMarina(Keeping):
    r"""Descent along a gradient that is kept, and brought up to date by some coordinates a round.

    .. math::

        g_t = \begin{cases}
        \frac{1}{n} \sum_i \tilde\nabla f_i(x_t) & \text{with chance } p, \text{ and at first} \\
        g_{t-1} + \frac{1}{n} \sum_i \frac{d}{K} \sum_{j \in S_i}
        \left( \tilde\nabla_j f_i(x_t) - \tilde\nabla_j f_i(x_{t-1}) \right) e_j & \text{else}
        \end{cases}, \qquad x_{t+1} = x_t - \gamma g_t

    With :math:`f_i` the loss of worker i of n, :math:`\tilde\nabla_j f_i(x) = (f_i(x + \epsilon
    e_j) - f_i(x - \epsilon e_j)) / 2 \epsilon`, :math:`S_i` a random set of K of all d coordinates
    that is drawn anew for each round and worker, and :math:`\gamma` the learning rate.

    A worker asks for its loss 2 d times with chance p and 4 K times else, and sends d or K numbers:
    with ``p = K / d`` fewer than 6 K evaluations and 2 K numbers in the mean. That suits tens to
    some thousands of weights. Two numbers are kept of each: of the gradient and of the last place.

    With one process each closure is the loss of a worker. With one worker in each process, set
    ``opt.workers = Workers()``. Each worker counts as much as another.

    Args:
        params: parameters, groups or named parameters.
        lr: :math:`\gamma`. ``guarantees`` has the largest that is proved to converge.
        eps: :math:`\epsilon`; where a dtype cannot tell numbers that near, the next ones are taken.
        coords: K; all coordinates where there are fewer.
        probability: p, of a whole gradient; by default ``K / d``.
        momentum: :math:`\mu`; :math:`g_t` is replaced by :math:`m \leftarrow \mu m + g_t`.
        seed: of coins and sets.

    Attributes:
        workers: those of other processes; None where there is one process.
        evaluations: how often this worker, or each of the closures, was called.
        floats_sent: numbers that a worker has sent, its sets and coins not: they are drawn alike.

    Raises:
        InputError: an option is outside its range.

    Source: our reading of Gorbunov et al., MARINA: faster non-convex distributed learning with
    compression (2021), algorithm 1, on differences along coordinates.

    Example:
        >>> x = torch.nn.Parameter(torch.ones(10, dtype=torch.float64))
        >>> opt = ZOMarina([x], lr=0.05, coords=2)
        >>> for _ in range(200):
        ...     loss = opt.step([lambda: (x - 1).square().sum(), lambda: (x + 1).square().sum()])
        >>> bool(x.square().sum() < 1e-6)
        True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        eps: float = 1e-3,
        *,
        coords: int = 16,
        probability: float | None = None,
        momentum: float = 0.0,
        seed: int = 0,
    ) -> None:
        if coords < 1:
            raise InputError(f"a round needs a coordinate, and coords={coords}.", hint="set 1.")
        if probability is not None and not 0 < probability <= 1:
            raise InputError(
                f"probability={probability} is no chance.", hint="take one above 0, and 1 at most."
            )
        check_momentum(momentum)
        shared = {"coords": coords, "probability": probability, "seed": seed, "draws": 0}
        self._begin()
        super().__init__(params, {"lr": lr, "eps": eps, "momentum": momentum, **shared})
        self._look_up()  # there is state from now on: a checkpoint is loaded into it

    def _begin(self) -> None:
        """Set what is not saved."""
        self.workers: Workers | None = None
        self.evaluations = self.floats_sent = self._skipped = 0
        self._met: Workers | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin()
        super().__setstate__(state)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure | Sequence[Closure]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Closure | Sequence[Closure] | None = None) -> float | None:
        """Make a round.

        Args:
            closure: returns the loss of this worker, without backward; or one for each worker,
                where all are in this process. Called 2 d times in a round that makes the gradient
                anew, as the first, and 4 K times in another, always under the same random numbers;
                it must be the loss of one batch throughout a call. None does nothing.

        Returns:
            The mean of the losses around the parameters.

        Raises:
            InputError: there is no closure, or several though there are workers; workers differ.
            NoFiniteLossError: in ten rounds in a row a loss was not finite.
        """
        if closure is None:
            return None
        closures = [closure] if callable(closure) else list(closure)
        if not closures or (self.workers and len(closures) > 1):
            raise InputError(
                f"there are {len(closures)} closures for one worker.",
                hint="give one; or several, without opt.workers.",
            )
        moved = self._look_up()
        self._meet(moved)
        loss = self._round(moved, closures)
        for group in self.param_groups:
            group["draws"] += 1
        return loss

    def _round(self, moved: Moved, closures: Sequence[Closure]) -> float:
        tensors = [parameter for parameter, _ in moved]
        entries = Entries(tensors, [float(group["eps"]) for _, group in moved])
        whole = self._is_whole(moved, len(entries))
        rank = self.workers.rank if self.workers else 0
        found = Round(self.param_groups[0], rank, entries, whole=whole)
        local = [found.slopes(index, closure) for index, closure in enumerate(closures)]
        loss = sum(found.losses) / max(len(found.losses), 1)
        if not found.whole:
            with self._at_previous(moved):
                before = [found.slopes(index, closure) for index, closure in enumerate(closures)]
            local = [now - then for now, then in zip(local, before, strict=True)]
        self.evaluations += found.asked // len(closures)
        wide = any(tensor.dtype is torch.float64 for tensor in tensors)
        dtype = torch.float64 if wide else torch.float32
        sent = [slopes.to(dtype) for slopes in local]
        received = self.workers.gather(sent[0]) if self.workers else sent
        self.floats_sent += sent[0].numel()
        places, mean = found.mean(received)
        if bool(mean.isfinite().all()):
            self._skipped = 0
            self._keep(moved, found, places, mean)
            self._move(moved)
        else:
            self._skip()
        return loss

    def _is_whole(self, moved: Moved, dimension: int) -> bool:
        """Return whether this round makes the gradient anew: a coin that all workers share."""
        if not dimension:
            raise InputError("no parameter is trained.", hint="let one require a gradient.")
        if any(not self.state[parameter]["rounds"] for parameter, _ in moved):
            return True
        shared = self.param_groups[0]
        chance = shared["probability"]
        if chance is None:
            chance = min(shared["coords"] / dimension, 1.0)
        return bool(coin(shared["seed"], shared["draws"]) < chance)

    def _keep(self, moved: Moved, found: Round, places: torch.Tensor, mean: torch.Tensor) -> None:
        """Bring the gradient that is kept up to date."""
        for which, span, inside in found.entries.runs(places):
            rows = self.state[moved[which][0]]["gradient"].view(-1)
            there, numbers = inside.to(rows.device), mean[span].to(rows.device)
            old = 0 if found.whole else rows[there].double()
            rows[there] = (old + numbers).to(rows.dtype)

    def _move(self, moved: Moved) -> None:
        """Descend along the gradient that is kept."""
        shared = self.param_groups[0]
        for k, (parameter, group) in enumerate(moved):
            state = self.state[parameter]
            update = state["gradient"]
            if group["momentum"]:
                if "momentum_buffer" not in state:  # a scheduler has turned it on
                    state["momentum_buffer"] = wide_zeros(parameter)
                update = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
            state["previous"].copy_(parameter)
            state["rounds"] += 1
            key = stream_key(shared["seed"], ROUNDING, shared["draws"], k)
            add_rounded_(parameter, update, scale=-group["lr"], key=key)

    def _skip(self) -> None:
        """Leave a round out: gradient and parameters stay as they are."""
        self._skipped += 1
        if self._skipped >= MOST_SKIPPED:
            raise NoFiniteLossError(
                f"in each of the last {self._skipped} rounds a loss was not finite.",
                hint="the parameters are as they were; lower lr or eps, or look at the batch.",
            )
        if self._skipped == 1:
            words = "a round was left out: a loss is not finite."
            warnings.warn(words, RuntimeWarning, stacklevel=6)

    @contextlib.contextmanager
    def _at_previous(self, moved: Moved) -> Iterator[None]:
        """In this context the parameters are where they were before the last round."""
        self._swap(moved)
        try:
            yield
        finally:
            self._swap(moved)

    def _swap(self, moved: Moved) -> None:
        for parameter, _ in moved:
            previous = self.state[parameter]["previous"]
            here = parameter.clone()
            parameter.copy_(previous)
            previous.copy_(here)

    def _meet(self, moved: Moved) -> None:
        """See that all workers are at the same round, with the same options; at first, weights."""
        if self.workers is None:
            return
        groups = self.param_groups
        aspects: dict[str, object] = {name: groups[0][name] for name in _SHARED}
        aspects |= {name: [group[name] for group in groups] for name in _OF_GROUPS}
        aspects["the shapes of parameters"] = [list(parameter.shape) for parameter, _ in moved]
        if self._met is not self.workers:
            kept = [self.state[parameter] for parameter, _ in moved]
            tensors = [entry[name] for entry in kept for name in sorted(entry)]
            aspects["its weights"] = digest(parameter for parameter, _ in moved)
            aspects["the optimizer's state"] = digest(
                value for value in tensors if isinstance(value, torch.Tensor)
            )
        self.workers.compare(aspects)
        self._met = self.workers

    def _state_of(self, parameter: torch.Tensor, group: Group) -> dict[str, Any]:
        first = {"rounds": 0, "gradient": wide_zeros(parameter)}
        held = {"momentum_buffer": wide_zeros(parameter)} if group["momentum"] else {}
        return {**first, "previous": parameter.detach().clone(), **held}
