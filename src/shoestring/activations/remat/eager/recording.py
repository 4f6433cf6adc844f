"""Let a model's forward record what is to be computed again, in place."""

from __future__ import annotations

import contextlib
import functools
import types
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Final, cast

import torch
from torch import nn

from shoestring.activations.remat.eager.sites import Site
from shoestring.activations.remat.eager.tape import Tape
from shoestring.core.errors import NoEffectWarning, RefusedError
from shoestring.measure._torch import is_active
from shoestring.measure.tracing.places import Places

_PLAIN: Final = "_shoestring_unrecorded_forward"


def record(model: nn.Module, sites: Collection[Site]) -> None:
    """Let a model keep less from forward to backward, and compute it again there.

    Args:
        model: changed in place: object, class, state_dict keys and signature stay, and copies of
            it are changed likewise.
        sites: of the operations whose results are not kept.

    Raises:
        RefusedError: the model is changed so already, or its forward was replaced by a function
            that does not take the model.
    """
    if is_recorded(model):
        raise RefusedError(
            "the model computes activations again already.", hint="remove the other plan first."
        )
    own = model.__dict__.get("forward")
    plain = type(model).forward if own is None else _function(model, own)
    model.__dict__[_PLAIN] = own
    model.__dict__["forward"] = types.MethodType(recorded(plain, frozenset(sites)), model)


def forget(model: nn.Module) -> None:
    """Undo `record`.

    Args:
        model: one that `record` changed, or a copy of one.

    Raises:
        RefusedError: it was not changed.
    """
    if not is_recorded(model):
        raise RefusedError("the model keeps all activations.", hint="apply a plan first.")
    own = model.__dict__.pop(_PLAIN)
    del model.__dict__["forward"]
    if own is not None:
        model.__dict__["forward"] = own


def is_recorded(model: nn.Module) -> bool:
    """Return whether `record` changed a model.

    Args:
        model: any.
    """
    own = getattr(model.__dict__.get("forward"), "__func__", None)
    # What was pickled comes back with the forward of its class.
    return _PLAIN in model.__dict__ and own is not getattr(type(model), "forward", None)


def _function(model: nn.Module, own: object) -> Callable[..., object]:
    if isinstance(own, types.MethodType) and own.__self__ is model:
        return own.__func__
    raise RefusedError(
        "the model's forward was replaced by a function that does not take the model.",
        hint="apply the plan before other tools wrap its forward.",
    )


def recorded(plain: Callable[..., object], sites: frozenset[Site]) -> Callable[..., object]:
    """Return a forward that records where gradients are, and is the plain one elsewhere.

    Args:
        plain: the forward as a function of the model and its arguments.
        sites: of the operations whose results are not kept.
    """
    idle = [True]
    running: list[Tape] = []

    @functools.wraps(plain, updated=())
    def forward(self: nn.Module, *args: object, **kwargs: object) -> object:
        # A model that calls itself is recorded once, as a whole.
        if not torch.is_grad_enabled() or any(map(is_active, tuple(running))):
            return plain(self, *args, **kwargs)
        places = Places(lambda: is_active(tape))
        places.name(self)
        tape = Tape(sites, lambda: places.path)
        hooks = torch.autograd.graph.saved_tensors_hooks(tape.pack, tape.unpack)
        running.append(tape)
        try:
            with places.following(_ignore, _ignore), _explained(), hooks, tape:
                places.enter(self)
                output = plain(self, *args, **kwargs)
        finally:
            running.remove(tape)
            tape.close()
        if idle.pop() if idle else False:
            _warn_where_idle(tape.found, len(sites))
        return output

    # The compiler stays off: what runs again is what ran, operator by operator.
    return cast("Callable[..., object]", torch.compiler.disable(forward))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what to do where torch does not let a transform of torch.func see hooks."""
    try:
        yield
    except RuntimeError as error:
        if "yet support saved tensor hooks" not in str(error):
            raise
        raise RefusedError(
            "the model uses a transform of torch.func, in which nothing can be computed again.",
            hint="remove the plan, and plan with other techniques.",
        ) from error


def _ignore(path: str) -> None:
    """Do nothing when a module is entered or left."""


def _warn_where_idle(found: int, wanted: int) -> None:
    if wanted and not found:
        warnings.warn(
            "the forward ran none of the operations that were to be computed again.",
            NoEffectWarning,
            stacklevel=4,
        )
