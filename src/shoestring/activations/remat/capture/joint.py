"""A joint graph of AOTAutograd, read as operations and the storages that they share."""

from __future__ import annotations

import dataclasses
import enum
import operator
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import fx
from torch._ops import OpOverload

from shoestring.activations.remat.capture._torch import (
    JointOutputs,
    changes_arguments,
    joint_outputs,
    storage_key,
)
from shoestring.activations.remat.capture.pricing import Price, Prices
from shoestring.activations.remat.capture.randomness import dropout_from_mask, random_state
from shoestring.activations.remat.capture.rewrites import is_random, rewrite
from shoestring.activations.remat.capture.sizes import AS_CAPTURED, Sizes
from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.core.errors import RefusedError
from shoestring.measure.tracing.calls import tensors


class Role(enum.Enum):
    """What a node of a joint graph is to a schedule."""

    INPUT = "input"  # a parameter, a buffer or a part of the batch
    TANGENT = "tangent"  # the gradient of an output
    CONSTANT = "constant"
    SCALAR = "scalar"  # a size or another number
    VIEW = "view"  # another name of a storage, or a part of a tuple
    OPERATION = "operation"
    OUTPUT = "output"


Pricing: TypeAlias = Callable[[Sequence[fx.Node]], Prices]


@dataclasses.dataclass(frozen=True)
class Joint:
    """A joint graph and what a schedule is made for.

    Attributes:
        module: the joint graph.
        graph: its operations and storages.
        roles: of each of its nodes.
        operations: the node of each operation of `graph`; the output's for the border.
        outputs: what it returns.
        values: the value, if any, that a node's result lies in.
        states: the state of the generator before an operation that draws random numbers.
    """

    module: fx.GraphModule
    graph: Graph
    roles: dict[fx.Node, Role]
    operations: tuple[fx.Node, ...]
    outputs: JointOutputs
    values: dict[fx.Node, int]
    states: dict[fx.Node, fx.Node]


def read_joint(
    module: fx.GraphModule,
    *,
    forward_outputs: int,
    pricing: Pricing,
    outside: int = 0,
    sizes: Sizes = AS_CAPTURED,
) -> Joint:
    """Read a joint graph.

    Args:
        module: a joint graph of AOTAutograd. Its dropout and its reads of buffers that the forward
            changes are rewritten so that they can be computed again.
        forward_outputs: how many of its outputs are the forward's.
        pricing: tells what operations cost.
        outside: bytes that are needed between forward and backward beside the outputs and their
            gradients.
        sizes: tells what sizes are that change from batch to batch.

    Returns:
        The graph that schedules are made for, and how it hangs together with the joint graph.

    Raises:
        RefusedError: the graph has an operation that cannot be handled.
    """
    outputs = joint_outputs(module.graph, forward_outputs)
    states = rewrite(module.graph, outputs, sizes)
    return _Reader(module, outputs, states, sizes).read(pricing, outside)


class _Reader:
    def __init__(
        self,
        module: fx.GraphModule,
        outputs: JointOutputs,
        states: dict[fx.Node, fx.Node],
        sizes: Sizes,
    ) -> None:
        self._module = module
        self._at = sizes
        self._outputs = outputs
        self._states = states
        self._roles: dict[fx.Node, Role] = {}
        self._sizes: list[Value] = []
        self._by_storage: dict[int, int] = {}
        self._values: dict[fx.Node, int] = {}
        self._made: dict[fx.Node, tuple[int, ...]] = {}
        self._held: set[int] = set()

    def read(self, pricing: Pricing, outside: int) -> Joint:
        tangents: list[int] = []
        for node in self._module.graph.nodes:
            role = self._roles[node] = self._role(node)
            if role in (Role.INPUT, Role.TANGENT, Role.CONSTANT, Role.OPERATION):
                made = self._claim(node)
                if role is Role.TANGENT:
                    tangents.extend(made)
                elif role is not Role.OPERATION:
                    self._held.update(made)
            self._locate(node)
        return self._assemble(tangents, pricing, outside)

    def _role(self, node: fx.Node) -> Role:
        if node.op == "placeholder":
            name = str(node.target)
            if name.startswith("tangents"):
                return Role.TANGENT
            if not name.startswith("primals"):
                raise RefusedError(
                    f"the step takes {name!r}, which cannot be scheduled.",
                    hint="remat.fit computes again without capture where it must.",
                )
            return Role.INPUT if isinstance(node.meta["val"], torch.Tensor) else Role.SCALAR
        if node.op == "get_attr":
            return Role.CONSTANT
        if node.op == "output":
            return Role.OUTPUT
        return self._role_of_call(node)

    def _role_of_call(self, node: fx.Node) -> Role:
        value = node.meta.get("val")
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)):
            return Role.SCALAR
        if node.target is operator.getitem:
            return Role.VIEW
        if node.target in (random_state, dropout_from_mask):
            return Role.OPERATION
        if not isinstance(node.target, OpOverload) or changes_arguments(node.target):
            raise RefusedError(
                f"{node.target} cannot be scheduled.",
                hint="remat.fit computes again without capture where it must.",
            )
        results = tensors(value)
        aliases = [storage_key(tensor) in self._by_storage for tensor in results]
        if results and all(aliases):
            return Role.VIEW
        if any(aliases):
            raise RefusedError(
                f"{node.target} returns both new tensors and views.",
                hint="remat.fit computes again without capture where it must.",
            )
        return Role.OPERATION

    def _claim(self, node: fx.Node) -> tuple[int, ...]:
        """Number the storages that a node is the first to have."""
        made = []
        for tensor in tensors(node.meta.get("val")):
            key = storage_key(tensor)
            if key not in self._by_storage:
                self._by_storage[key] = len(self._sizes)
                self._sizes.append(Value(node.name, self._at.bytes_of(tensor)))
                made.append(self._by_storage[key])
        self._made[node] = tuple(made)
        return tuple(made)

    def _locate(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if self._roles[node] is Role.VIEW and isinstance(value, (tuple, list)):
            value = value[0]  # a tensor in pieces
        if isinstance(value, torch.Tensor):
            self._values[node] = self._by_storage[storage_key(value)]

    def _reads(self, node: fx.Node) -> tuple[int, ...]:
        """Return the values of a node's arguments, and the random state that it starts from."""
        inputs = [*node.all_input_nodes, *([self._states[node]] if node in self._states else [])]
        return tuple(dict.fromkeys(self._values[n] for n in inputs if n in self._values))

    def _assemble(self, tangents: list[int], pricing: Pricing, outside: int) -> Joint:
        operations = [node for node in self._roles if self._roles[node] is Role.OPERATION]
        late = self._backward()
        before = [node for node in operations if node not in late]
        after = [node for node in operations if node in late]
        output = self._module.graph.output_node()
        prices = pricing(operations)
        nodes = [
            self._node(node, prices[node], repeatable=self._repeatable(node)) for node in before
        ]
        returned = self._found(self._outputs.forward)
        nodes.append(Node("loss", 0.0, returned, tuple(tangents), outside))
        nodes.extend(self._node(node, prices[node], repeatable=False) for node in after)
        graph = Graph(
            nodes=tuple(nodes),
            values=tuple(self._sizes),
            border=len(before),
            held=frozenset(self._held),
            results=frozenset(self._found(self._outputs.backward)) - self._held,
        )
        graph.check()
        return Joint(
            module=self._module,
            graph=graph,
            roles=self._roles,
            operations=(*before, output, *after),
            outputs=self._outputs,
            values=self._values,
            states=self._states,
        )

    def _repeatable(self, node: fx.Node) -> bool:
        """Return whether a node of the forward gives the same in backward."""
        if any(read in self._outputs.changed for read in node.all_input_nodes):
            return False
        if node.target is random_state or not self._made[node]:
            return False  # the state is another one then; and what makes nothing has an effect
        return node in self._states or not is_random(node)

    def _node(self, node: fx.Node, price: Price, *, repeatable: bool) -> Node:
        return Node(
            name=node.name,
            seconds=price.seconds,
            reads=self._reads(node),
            makes=self._made[node],
            workspace=price.workspace,
            repeatable=repeatable,
            kind=getattr(node.target, "__name__", node.name).partition(".")[0],
        )

    def _found(self, returned: tuple[fx.node.Argument, ...]) -> tuple[int, ...]:
        values = (self._values.get(n) for n in returned if isinstance(n, fx.Node))
        return tuple(dict.fromkeys(value for value in values if value is not None))

    def _backward(self) -> set[fx.Node]:
        """Return what belongs to the backward: what needs a tangent, and what torch tells so.

        A node that torch tells so but that something of the forward needs stays there.
        """
        late: set[fx.Node] = set()
        for node, role in self._roles.items():
            if role is Role.TANGENT or any(n in late for n in node.all_input_nodes):
                late.add(node)
        early: set[fx.Node] = set()
        for node in reversed(list(self._roles)):
            if node in late:
                continue
            tagged = node.meta.get("partitioner_tag") == "is_backward"
            returned = any(n is node for n in self._outputs.forward)
            if tagged and not returned and not any(user in early for user in node.users):
                late.add(node)
            else:
                early.add(node)
        return late
