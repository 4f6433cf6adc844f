"""Modes of several threads may overlap, and leave torch as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import (
    is_in_any_mode_without_ignore_compile_internals,
    is_in_torch_dispatch_mode,
)

from shoestring.measure._torch import DispatchMode, is_active


class Seen(DispatchMode):
    """Notes the operators of its own thread."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class Passed(Seen):
    """One that compiled code does not give way to."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True


def told() -> tuple[bool, bool, bool]:
    return (
        is_in_torch_dispatch_mode(),
        is_in_torch_dispatch_mode(include_infra_modes=False),
        is_in_any_mode_without_ignore_compile_internals(),
    )


def overlapping(
    here: DispatchMode, there: DispatchMode, inside: Callable[[], object], *, here_first: bool
) -> None:
    """Begin one in this thread and one in another, and end first what began first."""
    begin, begun, end = (threading.Event() for _ in range(3))

    def other() -> None:
        begin.wait()
        with there:
            begun.set()
            end.wait()

    thread = threading.Thread(target=other)
    thread.start()
    if not here_first:
        begin.set()
        begun.wait()
    with here:
        if here_first:
            begin.set()
            begun.wait()
        inside()
        if not here_first:
            end.set()
            thread.join()
    end.set()
    thread.join()


either = pytest.mark.parametrize("here_first", [True, False])


@either
def test_after_overlapping_modes_none_is_told_of(here_first: bool) -> None:
    within: list[tuple[bool, bool, bool]] = []
    overlapping(Seen(), Seen(), lambda: within.append(told()), here_first=here_first)
    assert within == [(True, True, True)]
    assert told() == (False, False, False)


def test_while_one_thread_has_a_mode_it_is_told_of() -> None:
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        with Seen():
            begun.set()
            ended.wait()

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with Seen():
        pass
    assert told() == (True, True, True)
    ended.set()
    thread.join()
    assert told() == (False, False, False)


@either
def test_under_a_mode_that_ignores_compiled_code_it_is_compiled_once(here_first: bool) -> None:
    overlapping(Seen(), Seen(), lambda: None, here_first=here_first)
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    fast = torch.compile(lambda x: x.sin() + 1, backend=backend)
    with Passed():
        for _ in range(3):
            fast(torch.ones(3))
    assert len(compiled) == 1


def test_modes_within_each_other() -> None:
    with Passed() as outer:
        assert told() == (True, True, False)
        with Seen() as inner:
            assert told() == (True, True, True)
            torch.ones(2).sin()
        assert told() == (True, True, False)
        assert is_active(outer)
        assert not is_active(inner)
    assert told() == (False, False, False)
    assert "aten::sin" in inner.names
    assert "aten::sin" in outer.names


@either
def test_each_sees_its_own_thread_alone(here_first: bool) -> None:
    here, there = Seen(), Seen()
    overlapping(here, there, lambda: torch.ones(2).cos(), here_first=here_first)
    assert "aten::cos" in here.names
    assert there.names == []
