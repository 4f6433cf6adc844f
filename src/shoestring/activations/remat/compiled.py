"""A backend of torch.compile that runs a step within a budget of activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

from torch import fx

from shoestring.activations.remat.capture._torch import aot_backend
from shoestring.activations.remat.capture.emission import emit
from shoestring.activations.remat.capture.joint import read_joint
from shoestring.activations.remat.capture.pieces import Pieces
from shoestring.activations.remat.capture.pricing import Prices
from shoestring.activations.remat.capture.sizes import Shapes, Sizes, read_inputs
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.graph import Graph

Scheduler: TypeAlias = Callable[[Graph], Schedule]


class SizedPricing(Protocol):
    """Tells what operations cost."""

    def __call__(self, nodes: Sequence[fx.Node], *, sizes: Sizes) -> Prices:
        """Price operations.

        Args:
            nodes: calls of operators of torch.
            sizes: tells what sizes are that change from batch to batch.
        """
        ...


class NotRunError(Exception):
    """A compiled forward was asked for and is there, but was not run."""


class LargerError(Exception):
    """A batch is larger than those that schedules may be made for."""


class RematBackend:
    """Compiles forward and backward into graphs that follow a schedule.

    The graphs are run operation by operation with torch's own kernels, so that what comes out is
    equal to the last bit to what the model gives without it. Gradients are accumulated when they
    are complete, some at a time, as they are in a backward that is not compiled.

    Where sizes change, a schedule is made for the largest batch that the graph may be run with;
    a larger one is captured anew.

    Args:
        scheduler: makes a schedule for a step.
        pricing: tells what operations cost.
        outside: bytes that are needed between forward and backward beside the outputs and their
            gradients.
        knows_largest: whether a batch that is larger than the first raises `LargerError`, except
            in `growing`. Else each graph is for batches up to the one that it was captured
            with.

    Attributes:
        scheduler: as given; asked for each graph that is captured.
        schedules: those that were made, in order: one for each graph that was captured.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        pricing: SizedPricing,
        *,
        outside: int = 0,
        knows_largest: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self.schedules: list[Schedule] = []
        self._pricing = pricing
        self._outside = outside
        self._knows_largest = knows_largest
        self._largest: list[tuple[Shapes, int]] = []
        self._growing = True
        self._running = True

    def __call__(self, module: fx.GraphModule, inputs: Sequence[object]) -> Callable[..., object]:
        """Compile a captured forward, as torch.compile asks for it.

        Args:
            module: the forward.
            inputs: examples.

        Raises:
            LargerError: the batch is larger than it may be.
        """
        found = read_inputs(module)
        shapes, outside = next(
            (known for known in self._largest if found.within(known[0])),
            (found.now, self._outside),
        )
        if shapes is found.now and not self._growing:
            raise LargerError
        pieces = Pieces()
        cut = _Cut(self, self._pricing, outside, found.bound(shapes), pieces)
        compiled = aot_backend(cut, compile_backward=pieces.compile)(module, inputs)
        if shapes is found.now and self._knows_largest:
            self._largest.append((shapes, outside))
            self._growing = False

        def run(*arguments: object) -> object:
            if not self._running:
                raise NotRunError
            return compiled(*pieces.pass_through(arguments))

        return run

    @contextmanager
    def growing(self, outside: int) -> Iterator[None]:
        """In this context a batch that is larger than all before is captured.

        Args:
            outside: bytes that it needs between forward and backward.
        """
        self._growing, self._outside = True, outside
        try:
            yield
        finally:
            self._growing = False

    @contextmanager
    def only_compiling(self) -> Iterator[None]:
        """In this context a compiled forward raises `NotRunError` where it would run."""
        self._running = False
        try:
            yield
        finally:
            self._running = True


class _Cut:
    """Cuts a joint graph into forward and backward, as a backend wants it.

    Args:
        backend: what it is done for.
        pricing: tells what operations cost.
        outside: bytes between forward and backward.
        sizes: tells what sizes are that change from batch to batch.
        pieces: of the backward; chosen here.
    """

    def __init__(
        self,
        backend: RematBackend,
        pricing: SizedPricing,
        outside: int,
        sizes: Sizes,
        pieces: Pieces,
    ) -> None:
        self._backend = backend
        self._pricing = pricing
        self._outside = outside
        self._sizes = sizes
        self._pieces = pieces

    def __call__(
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
            pricing=self._price,
            outside=self._outside,
            sizes=self._sizes,
        )
        schedule = self._backend.scheduler(joint.graph)
        self._backend.schedules.append(schedule)
        forward, backward = emit(joint, schedule.order)
        self._pieces.plan(backward, joint.outputs.changed)
        return forward, backward

    def _price(self, nodes: Sequence[fx.Node]) -> Prices:
        return self._pricing(nodes, sizes=self._sizes)
