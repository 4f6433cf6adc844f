"""A backend of torch.compile that runs a step within a budget of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from torch import fx

from shoestring.activations.remat.capture._torch import aot_backend
from shoestring.activations.remat.capture.emission import emit
from shoestring.activations.remat.capture.joint import Pricing, read_joint
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.schedule import Schedule

Scheduler: TypeAlias = Callable[[Graph], Schedule]


class NotRunError(Exception):
    """A compiled forward was asked for and is there, but was not run."""


class RematBackend:
    """Compiles forward and backward into graphs that follow a schedule.

    The graphs are run operation by operation with torch's own kernels, so that what comes out is
    equal to the last bit to what the model gives without it.

    Args:
        scheduler: makes a schedule for a step.
        pricing: tells what operations cost.
        outside: bytes that are needed between forward and backward beside the outputs and their
            gradients.

    Attributes:
        schedules: those that were made, in order: one for each graph that was captured.
    """

    def __init__(self, scheduler: Scheduler, pricing: Pricing, *, outside: int = 0) -> None:
        self.schedules: list[Schedule] = []
        self._outside = outside
        self._scheduler = scheduler
        self._pricing = pricing
        self._running = True

    def __call__(self, module: fx.GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        """Compile a captured forward, as torch.compile asks for it.

        Args:
            module: the forward.
            inputs: examples.
        """
        compiled = aot_backend(self._cut)(module, inputs)

        def run(*arguments: object) -> object:
            if not self._running:
                raise NotRunError
            return compiled(*arguments)

        return run

    @contextmanager
    def only_compiling(self) -> Iterator[None]:
        """In this context a compiled forward raises `NotRunError` where it would run."""
        self._running = False
        try:
            yield
        finally:
            self._running = True

    def _cut(
        self,
        module: fx.GraphModule,
        inputs: object,
        *,
        num_fwd_outputs: int,
        static_lifetime_input_indices: Sequence[int] | None = None,
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        joint = read_joint(
            module,
            forward_outputs=num_fwd_outputs,
            pricing=self._pricing,
            outside=self._outside,
        )
        schedule = self._scheduler(joint.graph)
        self.schedules.append(schedule)
        return emit(joint, schedule.order)
