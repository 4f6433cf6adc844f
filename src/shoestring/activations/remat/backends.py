"""The backend for those who call torch.compile themselves."""

from __future__ import annotations

import functools

from shoestring.activations.remat.capture.pricing import CostKind, price_nodes
from shoestring.activations.remat.choose import schedule_graph
from shoestring.activations.remat.compiled import RematBackend
from shoestring.activations.remat.solvers.find import Solver
from shoestring.core.budget import Budget
from shoestring.measure._torch import check_version


def backend(
    *,
    activations: str | int,
    solver: str = "auto",
    cost: str = "measure",
    time_limit: float = 10.0,
) -> RematBackend:
    """Return a backend of torch.compile that runs each step within a budget of activations.

    As exact as `fit`, which is to be preferred where it works: it knows the largest batch and the
    loss. Here each graph that torch captures gets the whole budget by itself:

    - where the model breaks into several graphs, each has the given bytes, and what one keeps for
      its backward is not in the account of the others. With ``fullgraph=True`` there is one graph.
      DistributedDataParallel breaks it at its buckets, unless torch._dynamo.config.optimize_ddp is
      False;
    - what lies between forward and backward outside of the graph, such as a loss, comes on top;
    - a graph whose sizes change is for batches up to the one that it was captured with, and a
      larger one is captured anew. When torch has captured as often as it may, it goes on without
      any graph and without a budget, unless ``fullgraph=True`` is given;
    - evaluation, and whatever runs without gradients, is not scheduled.

    Args:
        activations: peak of forward and backward above parameters, buffers and inputs, gradients
            included: a size, or a percentage of the plain order's, of each graph.
        solver: ``auto``, ``closure``, ``rotor``, ``checkmate``, ``hilp`` or ``dtr``.
        cost: how seconds are told: ``measure``, ``flops`` or ``roofline``.
        time_limit: seconds for the solver, for each graph.

    Returns:
        The backend. Its `schedules` say what was captured.

    Raises:
        InputError: the budget is not understood.

    Example:
        >>> import torch
        >>> from shoestring.activations.remat.backends import backend
        >>> within = backend(activations="1GiB", cost="flops")
        >>> model = torch.compile(torch.nn.Linear(4, 1), backend=within)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> [schedule.overhead for schedule in within.schedules]
        [0.0]
    """
    check_version()
    Budget(activations=activations)
    choose = functools.partial(
        schedule_graph, activations=activations, solver=Solver(solver), time_limit=time_limit
    )
    return RematBackend(choose, functools.partial(price_nodes, kind=CostKind(cost)))
