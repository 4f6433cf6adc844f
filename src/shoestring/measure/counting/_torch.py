"""Everything of torch's compiler that counting uses; it is imported where it is used.

That import takes a second. A test calls each name, so that a new release that moves one fails
here and nowhere else.
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

Compiled = Callable[[list[object]], object]
"""What runs a graph: takes the inputs in a list, which it empties."""

GraphCompiler = Callable[[torch.fx.GraphModule, Sequence[object]], Compiled]

_LIMITS: Final = {"recompile_limit": 2**20, "accumulated_recompile_limit": 2**20}
_EAGER_FORMS: Final = (
    torch._C.DispatchKey.CompositeExplicitAutograd,
    torch._C.DispatchKey.BackendSelect,
)
_DRAWS_AGAIN: Final = frozenset({"run_with_rng_state", "graphsafe_run_with_rng_state"})


def active_modes() -> list[TorchDispatchMode]:
    """Return the dispatch modes at work in the calling thread, the outermost first."""
    return list(_get_current_dispatch_mode_stack())


def is_compiling_off() -> bool:
    """Return whether compiled code was told to run eager, by ``torch.compiler.set_stance``."""
    import torch._dynamo.eval_frame as frames

    return frames._stance.stance == "force_eager"


def new_region() -> int:
    """Return a new place for compiled code, apart from that which torch.compile makes."""
    import torch._dynamo.eval_frame as frames

    return next(frames._next_isolate_recompiles_id)


def enter_region(region: int) -> None:
    """Let the compiled call that has just begun use and keep its code in a region.

    The end of the call undoes it.

    Args:
        region: from `new_region`.
    """
    torch._C._dynamo.eval_frame.set_eval_frame_isolate_recompiles_id(region)


def regions_of(code: types.CodeType) -> list[int]:
    """Return the region of each piece of code that was compiled from one; -1 for torch's own.

    Args:
        code: of the function that was compiled.
    """
    entries = torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code)
    return [entry.isolate_recompiles_id for entry in entries]


def limits_lifted() -> contextlib.AbstractContextManager[object]:
    """Return a context in which this thread may compile the same code any number of times."""
    import torch._dynamo as compiler

    found: contextlib.AbstractContextManager[object] = compiler.config.patch(_LIMITS)
    return found


@contextlib.contextmanager
def shapes_forgotten() -> Iterator[None]:
    """Let the compiler keep nothing of what it learns inside the block of changing sizes."""
    import torch._dynamo.pgo as learnt

    before = copy.deepcopy(dict(learnt.get_code_state()))
    try:
        yield
    finally:
        state = learnt.get_code_state()
        state.clear()
        state.update(before)


def compile_by_graphs(
    module: torch.fx.GraphModule,
    inputs: Sequence[object],
    *,
    forward: GraphCompiler,
    backward: GraphCompiler,
    inference: GraphCompiler,
    parted: Callable[[torch.fx.GraphModule, torch.fx.GraphModule], None],
    keeps: Callable[[object], bool],
) -> Callable[..., object]:
    """Compile what torch.compile captured as inductor does, up to the graphs of operators.

    Args:
        module: what was captured.
        inputs: its inputs, fake.
        forward: makes what runs the graph of a forward.
        backward: makes what runs the graph of a backward.
        inference: makes what runs a graph that has no backward.
        parted: told the graphs of a forward and of its backward when they have been made.
        keeps: whether an operator stays whole that inductor would take apart.

    Returns:
        What runs the module.
    """
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch import config
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    def partition(
        joint: torch.fx.GraphModule,
        joint_inputs: object,
        *,
        num_fwd_outputs: int,
        static_lifetime_input_indices: list[int] | None = None,
    ) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
        parts = min_cut_rematerialization_partition(
            joint,
            joint_inputs,
            compiler="inductor",
            num_fwd_outputs=num_fwd_outputs,
            static_lifetime_input_indices=static_lifetime_input_indices,
        )
        parted(*parts)
        return parts

    table = {op: form for op, form in select_decomp_table().items() if not keeps(op)}
    with config.patch(unlift_effect_tokens=True):
        return aot_autograd(
            fw_compiler=forward,
            bw_compiler=backward,
            inference_compiler=inference,
            decompositions=table,
            partition_fn=partition,
            keep_inference_input_mutations=True,
        )(module, inputs)


def draws_again(target: object) -> bool:
    """Return whether an operator draws the random numbers of another once more.

    Args:
        target: of a graph's node.
    """
    return isinstance(target, torch._ops.HigherOrderOperator) and target.name() in _DRAWS_AGAIN


def eager_form(operator: torch._ops.HigherOrderOperator) -> Callable[..., object] | None:
    """Return what runs an operator on functions by the operators in them; None if nothing does.

    Args:
        operator: such as ``cond``.
    """
    return next((operator.py_kernels[k] for k in _EAGER_FORMS if k in operator.py_kernels), None)
