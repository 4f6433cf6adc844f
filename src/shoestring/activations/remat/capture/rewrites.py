"""Changes to a joint graph after which more of it can be computed again.

None of them changes what the graph computes.
"""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch._ops import OpOverload

from shoestring.activations.remat.capture._torch import JointOutputs, find_argument
from shoestring.activations.remat.capture.randomness import dropout_from_mask, random_state
from shoestring.activations.remat.capture.sizes import AS_CAPTURED, Sizes
from shoestring.measure.tracing.calls import tensors

aten = torch.ops.aten


def rewrite(
    graph: fx.Graph, outputs: JointOutputs, sizes: Sizes = AS_CAPTURED
) -> dict[fx.Node, fx.Node]:
    """Apply all changes.

    Args:
        graph: a joint graph; changed in place.
        outputs: what it returns.
        sizes: tells what sizes are that change from batch to batch.

    Returns:
        For each operation that draws random numbers and can draw them again, the node that takes
        the state of the generator before it.
    """
    keep_what_changes(graph, outputs)
    draws = [node for node in graph.nodes if node.op == "call_function" and is_random(node)]
    states = {
        node: state for node in draws if (state := note_state(graph, node, sizes)) is not None
    }
    for node in draws:
        if node.target is aten.native_dropout.default:
            split_dropout(graph, node)
    return states


def keep_what_changes(graph: fx.Graph, outputs: JointOutputs) -> None:
    """Let what may run again in backward read copies of the buffers that the forward changes.

    These are statistics of batch normalisation and the like. The copies are made first of all.

    Args:
        graph: a joint graph; changed in place.
        outputs: what it returns.
    """
    returned = {node for node in outputs.forward if isinstance(node, fx.Node)}
    places = graph.find_nodes(op="placeholder")
    for changed in outputs.changed:
        readers = [node for node in changed.users if not _only_returned(node, returned)]
        value = changed.meta["val"]
        if not readers or not isinstance(value, torch.Tensor):
            continue
        with graph.inserting_after(places[-1]):
            copy = graph.call_function(aten.clone.default, (changed,))
        copy.meta["val"] = value  # whose storage the views of it share
        changed.meta["val"] = torch.empty_like(value)
        for reader in readers:
            reader.replace_input_with(changed, copy)


def _only_returned(node: fx.Node, returned: set[fx.Node]) -> bool:
    """Return whether nothing reads a node but the caller."""
    if node.op == "output":
        return True
    readers = [user for user in node.users if user.op != "output"]
    return node in returned and not readers


def note_state(graph: fx.Graph, node: fx.Node, sizes: Sizes = AS_CAPTURED) -> fx.Node | None:
    """Take the generator's state before an operation, where it is smaller than what is drawn.

    Args:
        graph: a joint graph; changed in place.
        node: an operation that draws random numbers.
        sizes: tells what sizes are that change from batch to batch.

    Returns:
        The node of the state; None where the result is as cheap to keep, or there is none.
    """
    results = tensors(node.meta.get("val"))
    if not results or node.meta.get("partitioner_tag") == "is_backward":
        return None
    device = results[0].device
    drawn = results[1:] if node.target is aten.native_dropout.default else results
    state = random_state(torch.device(device.type))
    if sum(sizes.bytes_of(tensor) for tensor in drawn) <= state.nbytes:
        return None
    with graph.inserting_before(node):
        noted = graph.call_function(random_state, (device,))
    noted.meta["val"] = torch.empty(state.shape, dtype=state.dtype, device=state.device)
    return noted


def split_dropout(graph: fx.Graph, node: fx.Node) -> None:
    """Let what reads the result of a dropout read one that can be made again from its mask.

    The mask has a quarter of the bytes of the result in float32.

    Args:
        graph: a joint graph; changed in place.
        node: a call of ``aten.native_dropout``.
    """
    parts = {part.args[1]: part for part in node.users if part.target is operator.getitem}
    probability = find_argument(node, "p")
    if 0 not in parts or not isinstance(probability, float):
        return
    with graph.inserting_after(parts.get(1, parts[0])):
        if 1 not in parts:
            parts[1] = graph.call_function(operator.getitem, (node, 1))
            parts[1].meta["val"] = node.meta["val"][1]
    scale = 1.0 / (1.0 - probability) if probability < 1 else 0.0
    with graph.inserting_after(max(parts[0], parts[1])):  # the later one
        again = graph.call_function(dropout_from_mask, (node.args[0], parts[1], scale))
    again.meta["val"] = parts[0].meta["val"]  # whose storage the views of it share
    again.meta["partitioner_tag"] = node.meta.get("partitioner_tag")
    parts[0].meta["val"] = torch.empty_like(again.meta["val"])
    node.meta["val"] = (parts[0].meta["val"], *node.meta["val"][1:])
    parts[0].replace_all_uses_with(again)


def is_random(node: fx.Node) -> bool:
    """Return whether a node draws random numbers.

    Args:
        node: of a joint graph.
    """
    if not isinstance(node.target, OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    # Attention is tagged, but draws nothing without dropout.
    return find_argument(node, "dropout_p") != 0
