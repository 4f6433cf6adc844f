"""The graphs of forward and backward that run a joint graph in a given order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import fx

from shoestring.activations.remat.capture._torch import note_saved
from shoestring.activations.remat.capture.joint import Joint, Role
from shoestring.activations.remat.capture.randomness import dropout_from_mask, replay
from shoestring.activations.remat.simulate import check_order


def emit(joint: Joint, order: Sequence[int]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Write the graphs of forward and backward that compute in an order.

    A tensor that the backward needs and does not compute is returned by the forward. Views are
    never: they are made again. Everything else stands in the graphs in the order given, and is
    freed after its last use, because the code of a graph drops each name there.

    Args:
        joint: what `read_joint` returned.
        order: indices of operations, with those of the forward as often as they are to run.

    Returns:
        The graphs, as AOTAutograd wants them of a function that cuts joint graphs.

    Raises:
        InvalidOrderError: the order cannot run.
    """
    check_order(joint.graph, order)
    cut = list(order).index(joint.graph.border)
    forward, backward = _Forward(joint), _Backward(joint)
    for index in order[:cut]:
        forward.run(index)
    for index in order[cut + 1 :]:
        backward.run(index)
    second = backward.finish()
    return forward.finish(backward.saved, backward.scalars), second


class _Region:
    """One of the two graphs, while it is written.

    Attributes:
        graph: what is written.
        there: what each node of the joint graph is in it, so far as it can be used.
    """

    def __init__(self, joint: Joint) -> None:
        self.joint = joint
        self.graph = fx.Graph()
        self.there: dict[fx.Node, fx.Node] = {}
        self._views: dict[int, list[fx.Node]] = {}
        self._last: fx.Node | None = None

    def run(self, index: int) -> None:
        """Write one operation, with the parts of its result.

        Args:
            index: of the operation.
        """
        node = self.joint.operations[index]
        for value in self.joint.graph.nodes[index].makes:
            for view in self._views.pop(value, []):
                self.there.pop(view, None)
        self.there[node] = self._drawn(node) or self.write(node)
        self._last = node
        for part in node.users:
            if self._is_part(part, node):
                # At once, so that the tuple does not keep parts that nothing needs.
                self.there[part] = self.graph.node_copy(part, self.find)

    def write(self, node: fx.Node) -> fx.Node:
        """Write an operation.

        Args:
            node: of the joint graph.
        """
        return self.graph.node_copy(node, self.find)

    def _drawn(self, node: fx.Node) -> fx.Node | None:
        """Return the result of a dropout that was drawn just now, where that is what is asked."""
        if node.target is not dropout_from_mask:
            return None
        mask = node.args[1]
        assert isinstance(mask, fx.Node), "the mask is a part of what the dropout returned"
        draw = mask.all_input_nodes[0]
        if draw is not self._last:
            return None
        return next((self.there[part] for part in draw.users if part.args[1] == 0), None)

    def _is_part(self, part: fx.Node, whole: fx.Node) -> bool:
        several = isinstance(whole.meta.get("val"), (tuple, list))
        return several and self.joint.roles[part] is Role.VIEW

    def find(self, node: fx.Node) -> fx.Node:
        """Return what a node of the joint graph is in this graph, and write views on demand.

        Args:
            node: of the joint graph.
        """
        if node not in self.there:
            role = self.joint.roles[node]
            if role is Role.VIEW and not self._comes_whole(node):
                self.there[node] = self.graph.node_copy(node, self.find)
                value = self.joint.values.get(node)
                if value is not None:
                    self._views.setdefault(value, []).append(node)
            else:
                self.there[node] = self.bring(node, role)
        return self.there[node]

    def _comes_whole(self, node: fx.Node) -> bool:
        """Return whether a node is a part of an operation's result, which is kept by itself."""
        whole = node.all_input_nodes[0]
        return self.joint.roles[whole] is Role.OPERATION and self._is_part(node, whole)

    def bring(self, node: fx.Node, role: Role) -> fx.Node:
        """Return a node that is not computed here.

        Args:
            node: of the joint graph.
            role: of it.
        """
        raise NotImplementedError

    def close(self, outputs: Sequence[fx.node.Argument], notes: Sequence[object]) -> fx.GraphModule:
        """Write the output and return the graph as a module.

        Args:
            outputs: in this graph.
            notes: what torch wants said of each.
        """
        output = self.graph.output(tuple(outputs))
        output.meta["desc"] = list(notes)
        output.meta["output_stack_traces"] = [None] * len(outputs)
        self.graph.lint()
        return fx.GraphModule(self.joint.module, self.graph)


class _Forward(_Region):
    def __init__(self, joint: Joint) -> None:
        super().__init__(joint)
        for node, role in joint.roles.items():
            if node.op == "placeholder" and role is not Role.TANGENT:
                self.there[node] = self.graph.node_copy(node)

    def bring(self, node: fx.Node, role: Role) -> fx.Node:
        if role not in (Role.SCALAR, Role.CONSTANT):
            raise AssertionError(f"{node.name} is not there in forward")
        return self.graph.node_copy(node, self.find)

    def finish(self, saved: Sequence[fx.Node], scalars: Sequence[fx.Node]) -> fx.GraphModule:
        """Return the forward.

        Args:
            saved: tensors that the backward takes.
            scalars: numbers that it takes.
        """
        outputs = self.joint.outputs
        returned = [self.find(n) if isinstance(n, fx.Node) else n for n in outputs.forward]
        extra = [self.find(node) for node in (*saved, *scalars)]
        notes = (*outputs.forward_notes, *note_saved(len(extra)))
        return self.close([*returned, *extra], notes)


class _Backward(_Region):
    def __init__(self, joint: Joint) -> None:
        super().__init__(joint)
        self.saved: list[fx.Node] = []
        self.scalars: list[fx.Node] = []
        tangents = [node for node, role in joint.roles.items() if role is Role.TANGENT]
        for node in tangents:
            self.there[node] = self.graph.node_copy(node)
        # Torch passes numbers first, then what is saved, then the tangents.
        self._tensors_end = self.there[tangents[0]]
        self._first_tensor: fx.Node | None = None
        self._after_tangent = self._find_late_scalars()

    def write(self, node: fx.Node) -> fx.Node:
        state = self.joint.states.get(node)
        if state is None:
            return super().write(node)
        args = fx.node.map_arg(node.args, self.find)
        kwargs = fx.node.map_arg(node.kwargs, self.find)
        call = (self.find(state), state.args[0], node.target, args, kwargs)
        again = self.graph.call_function(replay, cast("tuple[fx.node.Argument, ...]", call))
        again.meta = dict(node.meta)
        return again

    def bring(self, node: fx.Node, role: Role) -> fx.Node:
        if role is Role.CONSTANT or node in self._after_tangent:
            return self.graph.node_copy(node, self.find)
        if role is Role.SCALAR:
            with self.graph.inserting_before(self._first_tensor or self._tensors_end):
                place = self._place(node)
            self.scalars.append(node)
            return place
        with self.graph.inserting_before(self._tensors_end):
            place = self._place(node)
        self._first_tensor = self._first_tensor or place
        self.saved.append(node)
        return place

    def _place(self, node: fx.Node) -> fx.Node:
        place = self.graph.placeholder(node.name)
        place.meta = dict(node.meta)
        return place

    def _find_late_scalars(self) -> set[fx.Node]:
        """Return the numbers that only the backward can tell, such as the size of a tangent."""
        late: set[fx.Node] = set()
        for node, role in self.joint.roles.items():
            if role is Role.TANGENT or any(n in late for n in node.all_input_nodes):
                late.add(node)
        return {node for node in late if self.joint.roles[node] is Role.SCALAR}

    def finish(self) -> fx.GraphModule:
        """Return the backward."""
        outputs = self.joint.outputs
        returned = [self.find(n) if isinstance(n, fx.Node) else n for n in outputs.backward]
        return self.close(returned, outputs.backward_notes)
