"""Make the steps of a run again from its log, without a batch or a forward pass."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterable

import torch
from torch import nn

from shoestring.catalog import UnknownNameError, find
from shoestring.core.errors import InputError
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.log import Log


def replay(model: nn.Module | Iterable[torch.Tensor], log: Log) -> ZerothOrder:
    """Bring parameters from where a run began to where it ended, to the last bit.

    On the same kind of device; signs are the same on all, normal numbers are not.

    Args:
        model: with the weights that the run began with, or its trained parameters in their order.
        log: of the run.

    Returns:
        The optimizer as it stood after the run, ready to go on.

    Raises:
        InputError: the log is of an unknown optimizer, or of other parameters.

    Example:
        >>> from shoestring.zeroth import ZOSGD, replay
        >>> x, y = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        >>> opt = ZOSGD([x], lr=0.1)
        >>> for _ in range(5):
        ...     loss = opt.step(lambda: x.square().sum())
        >>> again = replay([y], opt.log)
        >>> torch.equal(x, y)
        True
    """
    make = _maker(log.optimizer)
    given = model.parameters() if isinstance(model, nn.Module) else model
    parameters = [parameter for parameter in given if parameter.requires_grad and parameter.numel()]
    shapes = [list(parameter.shape) for parameter in parameters]
    if shapes != log.shapes or sum(log.sizes) != len(shapes):
        raise InputError(
            f"the log is of {len(log.shapes)} parameters of other shapes than these {len(shapes)}.",
            hint="give the model that the run began with, with the same parameters trained.",
        )
    groups = []
    for size in log.sizes:
        groups.append({"params": parameters[:size]})
        parameters = parameters[size:]
    try:
        optimizer = make(groups, **log.options)
    except TypeError as error:
        raise InputError(
            f"the log's options are not those of {log.optimizer} ({error}).",
            hint="it may be damaged, or of another version.",
        ) from error
    first = zip(itertools.cycle(log.names), log.settings[0] if len(log) else ())
    momentum = any(value for name, value in first if name == "momentum")
    if log.start and (momentum or optimizer.keeps_state):
        raise InputError(
            f"the log begins at step {log.start} of a run, and {log.optimizer} keeps a state.",
            hint="load the optimizer's checkpoint of that step, and use catch_up.",
        )
    for group in optimizer.param_groups:
        group["draws"] = log.start
    for deltas, settings in zip(log.deltas, log.settings, strict=True):
        optimizer.repeat(deltas, settings)
    return optimizer


def _maker(name: str) -> Callable[..., ZerothOrder]:
    """Return an optimizer of this room; the name may come from anywhere."""
    try:
        module, _, attribute = find(name).path.partition(":")
    except UnknownNameError:
        module, attribute = "", ""
    room = __name__.rpartition(".")[0]
    kind = getattr(importlib.import_module(module), attribute) if module.startswith(room) else None
    if not (inspect.isclass(kind) and issubclass(kind, ZerothOrder)):
        raise InputError(
            f"the log is of {name!r}, which is no optimizer here.",
            hint="shoestring list has those there are.",
        )
    return kind
