"""A check on the user's own model that computing its blocks again changes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

from shoestring.activations.remat.check_bytes import bytes_of_check
from shoestring.activations.remat.check_calls import Call, calls_of_blocks, first_rows
from shoestring.activations.remat.check_state import unchanged
from shoestring.core.errors import RefusedError, ShoestringError
from shoestring.core.units import format_bytes
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.blocks import Named, repeated_blocks
from shoestring.measure.tracing.fake import Batch, output_tensors

Wrap: TypeAlias = Callable[[nn.Module], Callable[..., object]]
Outcome: TypeAlias = Mapping[str, torch.Tensor | None]

_SEED = 5  # of the gradients that a block's outputs are given


@dataclasses.dataclass(frozen=True, slots=True)
class BlockCheck:
    """What was checked.

    Attributes:
        checked: paths of the blocks that were run plainly and computed again; ``""`` is the
            whole model.
        blocks: how many blocks the model has, those that are alike counted each.
        unchecked: path of a distinct block that could not be compared, and why.
        seconds: that the check took.
        largest: the largest difference in anything that was compared.
    """

    checked: tuple[str, ...]
    blocks: int
    unchecked: tuple[tuple[str, str], ...]
    seconds: float
    largest: float

    def __str__(self) -> str:
        count = len(self.checked)
        whole = self.checked == ("",) or (not count and self.blocks == 1)
        noun = "distinct block" if count == 1 else "distinct blocks"
        what = "the model as one block" if whole else f"{count} {noun} of {self.blocks}"
        if count:
            size = "equal to the last bit" if not self.largest else f"within {self.largest:.3g}"
            words = [f"checked {what} in {self.seconds:.1f} s: {size}"]
        else:
            words = [f"checked no block of {self.blocks}"]
        words += [f"{named(path)} was not checked: {why}" for path, why in self.unchecked]
        return "; ".join(words)


def check_blocks(
    model: nn.Module, batch: Batch, wrap: Wrap, *, budget_bytes: int | None = None
) -> BlockCheck:
    """Prove on a slice of a batch that blocks which are computed again give what they gave.

    The model runs forward once on two rows, keeping nothing for a backward; meanwhile the
    arguments of one call of each distinct block are copied. Blocks are alike if their classes,
    settings, shapes and arguments are. Each distinct block then runs alone, forward and backward,
    once as it is and once as `wrap` returns it, from the same random numbers. Outputs, gradients
    of arguments and parameters, changes of arguments and buffers, and the random numbers'
    state after forward and after backward must be equal to the last bit.

    Afterwards the model, its gradients and the random numbers' state are as they were, also
    where something was raised. Only what a forward writes to its parameters is not put back.

    Args:
        model: a model without blocks that repeat counts as one block.
        batch: a real batch; its first two rows are taken.
        wrap: returns a function with a block's signature that computes the block again in
            backward. It may change the block: that is undone.
        budget_bytes: most bytes that checking one block may take, foreseen without running it:
            what is kept of all blocks' arguments, the block's own forward and backward, and its
            results. Where two rows take more, one is taken. None for no limit.

    Returns:
        Which blocks were checked, and which could not be.

    Raises:
        RefusedError: something differs, or a block runs as it is and not computed again.

    Example:
        >>> from torch.utils.checkpoint import checkpoint
        >>> blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)]
        >>> model = nn.Sequential(nn.Linear(4, 4), *blocks)
        >>> again = lambda block: lambda x: checkpoint(block, x, use_reentrant=False)
        >>> check_blocks(model, torch.ones(2, 4), again).checked
        ('1',)
    """
    begun = time.perf_counter()
    blocks = repeated_blocks(model) or (("", model),)
    checked: list[str] = []
    unchecked: list[tuple[str, str]] = []
    largest = 0.0
    calls, reasons = _calls(model, batch, blocks, budget_bytes)
    unchecked += reasons
    known = dict(blocks)
    for path, call in calls.items():
        compared = _compare(path, known[path], call, wrap)
        if isinstance(compared, str):
            unchecked.append((path, compared))
        else:
            checked.append(path)
            largest = max(largest, compared)
    taken = time.perf_counter() - begun
    return BlockCheck(tuple(checked), len(blocks), tuple(unchecked), taken, largest)


def named(path: str) -> str:
    """Return a block for people.

    Args:
        path: dotted, empty for the whole model.
    """
    return f"block {path!r}" if path else "the model"


def _calls(
    model: nn.Module, batch: Batch, blocks: Sequence[Named], budget: int | None
) -> tuple[dict[str, Call], list[tuple[str, str]]]:
    """Return a call of each distinct block that fits, and why the others have none."""
    try:
        found = calls_of_blocks(model, first_rows(batch, 2), blocks)
    except Exception as error:  # noqa: BLE001 - the user's own code runs
        return {}, [(blocks[0][0], f"the model does not run on two rows ({_line(error)})")]
    if not found.calls and not found.reasons:
        return {}, [(blocks[0][0], "the forward calls none")]
    reasons = list(found.reasons.items())
    if budget is None:
        return found.calls, reasons
    known = dict(blocks)
    fitting = {
        p: c for p, c in found.calls.items() if _excess(known[p], c, found.calls, budget) == ""
    }
    if len(fitting) == len(found.calls):
        return fitting, reasons
    try:
        single = calls_of_blocks(model, first_rows(batch, 1), blocks).calls
    except Exception as error:  # noqa: BLE001
        single, failed = {}, f"the model does not run on one row ({_line(error)})"
    else:
        failed = "the forward does not call it with one row"
    for path in found.calls.keys() - fitting.keys():
        why = _excess(known[path], single[path], single, budget) if path in single else failed
        if why:
            reasons.append((path, why))
        else:
            fitting[path] = single[path]
    return fitting, reasons


def _excess(block: nn.Module, call: Call, calls: Mapping[str, Call], budget: int) -> str:
    """Return why a check of a block is not within the budget; nothing if it is."""
    kept = sum(other.nbytes for other in calls.values())
    try:
        need = kept + bytes_of_check(block, call)
    except Exception as error:  # noqa: BLE001 - the user's own code, on tensors without data
        return f"its bytes cannot be foreseen ({_line(error)})"
    if need <= budget:
        return ""
    return f"one row takes {format_bytes(need)}, {format_bytes(budget)} are allowed"


def _compare(path: str, block: nn.Module, call: Call, wrap: Wrap) -> float | str:
    """Return the largest difference of a block computed again, or why it cannot be compared."""
    try:
        plain = _outcome(block, call, _itself)
    except Exception as error:  # noqa: BLE001
        return f"it does not run alone ({_line(error)})"
    try:
        again = _outcome(block, call, wrap)
    except ShoestringError:
        raise
    except Exception as error:
        raise RefusedError(
            f"{named(path)} runs as it is, but not computed again: {_line(error)}",
            hint="report it with the model; check=False leaves the check out.",
        ) from error
    differences = _differences(plain, again)
    name = next((name for name, size in differences.items() if size > 0), None)
    if name is None:
        return max(differences.values(), default=0.0)
    del again
    if any(_differences(plain, _outcome(block, call, _itself)).values()):
        return "it gives other figures each time, from the same random numbers too"
    raise RefusedError(
        f"{named(path)} computed again gives another {name}: the difference is "
        f"{differences[name]:.3g}.",
        hint="a block must not change its arguments, and may draw random numbers from torch's "
        "own generators only; else leave it out.",
    )


def _itself(block: nn.Module) -> Callable[..., object]:
    return block


def _outcome(block: nn.Module, call: Call, wrap: Wrap) -> Outcome:
    """Run a block forward and backward, and return all that one can see of it, by name."""
    found: dict[str, torch.Tensor | None] = {}
    with rng_untouched(), unchanged(block) as changes, torch.enable_grad(), _quiet():
        function = wrap(block)
        given = call.fresh()
        results = list(output_tensors(function(*given.args, **given.kwargs)))
        found |= {f"random state after forward ({k})": t for k, t in _random_states().items()}
        open_ends = [t for t in results if t.requires_grad]
        sources = dict(given.leaves)
        for name, parameter in block.named_parameters():
            if parameter.requires_grad:
                sources[f"gradient of {name}"] = parameter
        found |= {f"output {i}": t.detach() for i, t in enumerate(results)}
        if open_ends and sources:
            gradients = torch.autograd.grad(
                open_ends, list(sources.values()), _gradients(open_ends), allow_unused=True
            )
            for (name, source), gradient in zip(sources.items(), gradients, strict=True):
                found[name] = _added(gradient, source.grad)
        found |= {f"random state after backward ({k})": t for k, t in _random_states().items()}
        found |= {f"{name} afterwards": t for name, t in given.changed().items()}
        found |= {f"buffer {name}": t for name, t in changes().items()}
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let nobody see that the compiler looks for gradients of arguments that are no leaves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
        yield


def _added(gradient: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    """Return a gradient with what a backward put into ``.grad`` by itself."""
    if gradient is None or other is None:
        return other if gradient is None else gradient
    return gradient + other


def _gradients(outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return gradients for outputs, the same ones each time."""
    generator = torch.Generator().manual_seed(_SEED)
    drawn = []
    for output in outputs:
        complex_ = output.is_complex()
        dtype = torch.complex64 if complex_ else torch.float32
        noise = torch.randn(output.shape, generator=generator, dtype=dtype)
        drawn.append(noise.to(device=output.device, dtype=output.dtype))
    return drawn


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"cuda:{index}"] = state
    return states


def _differences(plain: Outcome, other: Outcome) -> dict[str, float]:
    """Return by name how far two outcomes are apart; infinitely where one has no such tensor."""
    names = [*plain, *(name for name in other if name not in plain)]
    return {name: _distance(plain.get(name), other.get(name)) for name in names}


def _distance(a: torch.Tensor | None, b: torch.Tensor | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return float("inf")
    if torch.equal(a, b):
        return 0.0
    both_nan = torch.isnan(a) & torch.isnan(b)
    wide = torch.complex128 if a.is_complex() else torch.float64
    apart = torch.where((a == b) | both_nan, 0.0, (a.to(wide) - b.to(wide)).abs())
    return float(torch.nan_to_num(apart, nan=float("inf")).max())


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:160]
