"""Compiled code, counted from the graphs that are made of it.

Under a dispatch mode torch.compile'd code runs eager, so what its backward computes a second time
is not seen. Here it is compiled once more, by steps that are inductor's own up to the graphs of a
forward and of a backward, and these are run operator by operator under the tracer.

What inductor does beyond that is left out: its passes over the joint graph (constants folded,
products padded, attention recognised) and the fusion of operators into kernels. Operators whose
FLOPs are counted, and those that draw random numbers, are not taken apart, so both are eager's.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import fx
from torch.fx.node import Argument, Target

from shoestring.core.trace import Phase
from shoestring.measure._torch import (
    HigherOrder,
    Overload,
    current_node,
    node_number,
    sequence_number,
    without_modes,
)
from shoestring.measure.counting._torch import (
    active_modes,
    compile_by_graphs,
    draws_again,
    eager_form,
    enter_region,
    is_compiling_off,
    limits_lifted,
    new_region,
    shapes_forgotten,
)
from shoestring.measure.formulas.algorithms import ALGORITHMS
from shoestring.measure.formulas.attention import LAYERS, attention_formula
from shoestring.measure.formulas.convolutions import CONVOLUTIONS
from shoestring.measure.formulas.products import PRODUCTS
from shoestring.measure.formulas.recurrent import RECURRENT
from shoestring.measure.formulas.trilinear import TRILINEAR
from shoestring.measure.tracing.tracer import Tracer

_REPEATED: Final = "shoestring_repeated"
_ROOT: Final = re.compile(r"^\w+\['[^']*'\]")
_NAMES: Final = re.compile(r"\w+")
_TOLD_OF_HOOKS: Final = r"Using `torch\.compile\(module\)` when there are global hooks"


@contextlib.contextmanager
def counted_graphs() -> Iterator[None]:
    """Run compiled code by its graphs inside the block, for a `GraphTracer` to see.

    Whatever torch.compile was called on, before or inside, is compiled anew when it is called;
    the next block uses that again. After the block the code compiled outside of it is used as
    before: what is made here has a place of its own, and no limit or guess of the compiler's
    takes note of it. Code that was told to run eager (``torch.compiler.set_stance``) still does.

    Example:
        >>> model = torch.nn.Linear(4, 3)
        >>> fast = torch.compile(model)
        >>> with counted_graphs(), GraphTracer() as tracer:
        ...     fast(torch.ones(2, 4)).sum().backward()
        >>> [op.name for op in tracer.trace(rows=2).ops if op.flops]
        ['aten.addmm.default', 'aten.mm.default']
    """
    if is_compiling_off():
        yield
        return
    with limits_lifted(), _BACKEND.forced():
        yield


class GraphTracer(Tracer):
    """A tracer that compiled code does not give way to; for use inside `counted_graphs`."""

    _place: str | None = None

    @functools.cached_property
    def _callers(self) -> dict[int, str]:
        """Paths of the modules that called compiled code, by the number of its autograd node."""
        return {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Return True: under any other mode compiled code runs eager."""
        return True

    def caller(self, phase: Phase | None) -> str:
        """Return the path of the module whose compiled code begins to run.

        Args:
            phase: forward or backward; None for code that has no backward.
        """
        if phase is Phase.BACKWARD:
            node = current_node()
            return "" if node is None else self._callers.get(node_number(node), "")
        if phase is Phase.FORWARD:  # its node in the graph of autograd has just been made
            self._callers[sequence_number() - 1] = self.places.path
        return self.places.path

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Undo at the end of the block what `at` says inside."""
        before = self._place, self.recomputing
        try:
            yield
        finally:
            self._place, self.recomputing = before

    def at(self, path: str, *, recomputing: bool) -> None:
        """Declare which operator of a graph runs next.

        Args:
            path: of the module it comes from.
            recomputing: whether it ran before, in the graph of the forward.
        """
        self._place, self.recomputing = path, recomputing

    def _where(self) -> tuple[Phase, str, int, int]:
        phase, module, source, node = super()._where()
        return phase, module if self._place is None else self._place, source, node


class _Backend:
    """What everything compiled inside the blocks is compiled by.

    There is one, so that a later block finds what an earlier one compiled.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._undo = contextlib.ExitStack()
        self._region: int | None = None

    @contextlib.contextmanager
    def forced(self) -> Iterator[None]:
        """Have everything compiled by this inside the block.

        The compiler's stance is the same for all threads: the first block changes it and the
        last one changes it back.
        """
        with self._lock:
            if not self._blocks:
                self._undo.enter_context(self._changes())
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if not self._blocks:
                    self._undo.close()

    @contextlib.contextmanager
    def _changes(self) -> Iterator[None]:
        if self._region is None:
            self._region = new_region()
        with (
            shapes_forgotten(),
            warnings.catch_warnings(),
            torch.compiler.set_stance("default", force_backend=self),
        ):
            warnings.filterwarnings("ignore", message=_TOLD_OF_HOOKS)
            yield

    @property
    def compiler_name(self) -> str:
        """Name, which torch asks for as each compiled call begins: the time to change the region.

        In the region of its own what is compiled here uses up no limit of torch's.
        """
        if self._region is not None:
            enter_region(self._region)
        return "shoestring"

    def __call__(self, module: fx.GraphModule, inputs: Sequence[object]) -> object:
        """Compile what torch.compile captured.

        Args:
            module: the capture.
            inputs: its inputs, fake.
        """
        return compile_by_graphs(
            module,
            inputs,
            forward=lambda graph, _: _Run(graph, Phase.FORWARD),
            backward=lambda graph, _: _Run(graph, Phase.BACKWARD),
            inference=lambda graph, _: _Run(graph, None),
            parted=_mark,
            keeps=_stays_whole,
        )


_BACKEND: Final = _Backend()
_COUNTED: Final = frozenset(
    (*PRODUCTS, *CONVOLUTIONS, *LAYERS, *RECURRENT, *TRILINEAR, *ALGORITHMS)
)
_COUNTED_WHOLE: Final = frozenset(("flex_attention", "flex_attention_backward"))


def _stays_whole(operator: object) -> bool:
    """Return whether an operator's FLOPs are counted, or it draws random numbers."""
    if not isinstance(operator, Overload):
        return False
    name = operator.name().partition(".")[0]
    return (
        name in _COUNTED
        or torch.Tag.nondeterministic_seeded in operator.tags
        or attention_formula(operator, "full") is not None
    )


def _mark(forward: fx.GraphModule, backward: fx.GraphModule) -> None:
    """Mark what the graph of a backward repeats.

    Both graphs are copies of parts of one graph, and a copy keeps its name: what has a name in
    both is run in both. What was traced in the forward but only the backward needs is not in
    the forward's graph, so it is not repeated. What draws random numbers is wrapped, in each
    graph in another wrapper, where it is repeated.
    """
    names = {node.name for node in forward.graph.nodes if node.op == "call_function"}
    for node in backward.graph.nodes:
        again = node.name in names and node.meta.get("partitioner_tag") != "is_backward"
        if node.op == "call_function" and (again or draws_again(node.target)):
            node.meta[_REPEATED] = True


class _Run:
    """Runs one graph, and tells the tracers what it runs.

    Args:
        module: the graph.
        phase: what it is the graph of; None if it has no backward.
    """

    def __init__(self, module: fx.GraphModule, phase: Phase | None) -> None:
        self._boxed_call = True  # so torch passes the inputs in a list, which may be emptied
        self._module = module
        self._phase = phase
        self._inside = {node: _inside(node) for node in module.graph.nodes}

    def __call__(self, inputs: list[object]) -> object:
        tracers = [mode for mode in active_modes() if isinstance(mode, GraphTracer)]
        callers = [(tracer, tracer.caller(self._phase)) for tracer in tracers]
        with contextlib.ExitStack() as stack:
            for tracer in tracers:
                stack.enter_context(tracer.running())
            return _Operators(self._module, self._inside, callers).boxed_run(inputs)


class _Operators(fx.Interpreter):
    """Runs the operators of a graph one after another.

    Args:
        module: the graph.
        inside: paths of the modules that its nodes come from, in the module it was made of.
        callers: tracers, each with the path of that module.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        inside: Mapping[fx.Node, str],
        callers: Sequence[tuple[GraphTracer, str]],
    ) -> None:
        super().__init__(module)
        self._inside = inside
        self._callers = callers

    def run_node(self, n: fx.Node) -> object:
        """Run one.

        Args:
            n: its node.
        """
        inside, again = self._inside[n], _REPEATED in n.meta
        for tracer, caller in self._callers:
            tracer.at(".".join(filter(None, (caller, inside))), recomputing=again)
        return super().run_node(n)

    def call_function(
        self, target: Target, args: tuple[Argument, ...], kwargs: dict[str, Argument]
    ) -> object:
        """Call one.

        Args:
            target: what to call.
            args: its positional arguments.
            kwargs: its keyword arguments.
        """
        if isinstance(target, HigherOrder):
            return _run_by_parts(target, args, kwargs)
        return super().call_function(target, args, kwargs)


def _run_by_parts(
    operator: HigherOrder, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    """Run an operator on functions, such as ``cond``, by the operators in them."""
    form = eager_form(operator)
    if form is None or operator.name() in _COUNTED_WHOLE:
        return operator(*args, **kwargs)
    if not any(isinstance(value, fx.GraphModule) for value in args):
        return form(*args, **kwargs)
    modes = active_modes()  # which the form itself refuses

    def seen(function: fx.GraphModule) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            with contextlib.ExitStack() as stack:
                for mode in modes:
                    stack.enter_context(mode)
                return function(*inputs)

        return run

    with without_modes():
        return form(*(seen(a) if isinstance(a, fx.GraphModule) else a for a in args), **kwargs)


def _inside(node: fx.Node) -> str:
    """Return the path of the module that a node comes from, in the module that was compiled.

    Torch writes it as an expression: ``L['self'].encoder.layer[0]``.
    """
    stack = node.meta.get("nn_module_stack") or node.meta.get("fwd_nn_module_stack")
    if not stack:
        return ""
    expression, _ = list(stack.values())[-1]
    return ".".join(_NAMES.findall(_ROOT.sub("", expression)))
