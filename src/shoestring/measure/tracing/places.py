"""In which module the code is: hooks that all modules share, set while something is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import nn

from shoestring.measure._torch import never_compile, number_hook

Told = Callable[[str], None]

_NOWHERE: Final = ""
_NO_PARTS: Final = ("", "_orig_mod")
"""What stands in a path for nothing: the second is what torch.compile wraps a model in."""


class Places:
    """Follows the calls of modules, of whatever model.

    Nothing is set on a model: the hooks are those that torch keeps for all modules, so they see
    the calls of every thread, and each is asked for its own.

    Args:
        traced: whether the code that runs now, in this thread, is being traced.
    """

    def __init__(self, traced: Callable[[], bool]) -> None:
        self._traced = traced
        self._paths: dict[int, str] = {}
        self._known: list[nn.Module] = []  # alive, so that no id is used again
        self._stack: list[str] = []
        self._roots: list[nn.Module] = []

    @property
    def path(self) -> str:
        """Path of the innermost module that is being called; empty outside of all."""
        return self._stack[-1] if self._stack else _NOWHERE

    @property
    def inside(self) -> bool:
        """Whether a module is being called."""
        return bool(self._stack)

    @property
    def roots(self) -> tuple[nn.Module, ...]:
        """The models: what was named, and every module called that is part of no other."""
        return tuple(self._roots)

    def name(self, model: nn.Module, path: str = "") -> None:
        """Give a model and all that is in it their paths.

        Args:
            model: the model.
            path: its own.
        """
        self._roots.append(model)
        for inner, module in model.named_modules():
            if id(module) not in self._paths:
                self._known.append(module)
                parts = f"{path}.{inner}".split(".")
                self._paths[id(module)] = ".".join(p for p in parts if p not in _NO_PARTS)

    def enter(self, module: nn.Module) -> None:
        """Declare that a module is being called already, until nothing is followed any more.

        Args:
            module: any.
        """
        self._stack.append(self._path_of(module))

    @contextlib.contextmanager
    def following(self, entered: Told, left: Told) -> Iterator[None]:
        """Follow the calls while the context lasts.

        Args:
            entered: told the path of a module before its forward, and
            left: after it, also where it raised.
        """

        def enter(module: nn.Module, args: object) -> None:
            if torch.compiler.is_compiling():
                return
            if self._traced():
                path = self._path_of(module)
                self._stack.append(path)
                entered(path)

        def leave(module: nn.Module, args: object, output: object) -> None:
            if torch.compiler.is_compiling():
                return
            if self._stack and self._traced():
                left(self._stack.pop())

        hooks = torch.nn.modules.module
        handles = [
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(leave, always_call=True),
        ]
        for handle in handles:  # else compiled code would be compiled anew for each of them
            number_hook(handle)
        never_compile(enter)
        never_compile(leave)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stack.clear()

    def _path_of(self, module: nn.Module) -> str:
        path = self._paths.get(id(module))
        if path is None:
            own = type(module).__name__
            path = ".".join(filter(None, (self.path, own))) if self._stack else self._unused(own)
            self.name(module, path)
            if self._stack:
                self._roots.pop()
        return path

    def _unused(self, name: str) -> str:
        taken = set(self._paths.values())
        number = 2
        path = name
        while path in taken:
            path, number = f"{name}-{number}", number + 1
        return path
