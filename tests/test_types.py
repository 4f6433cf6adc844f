"""What the type checker does not see: public signatures without Any, and few ignores."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoestring

ROOT = Path(shoestring.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
IGNORE = re.compile(r"#\s*type:\s*ignore(?P<code>\[[a-z, -]+\])?(?P<reason>\s+#\s*\S.*)?")
MOST_IGNORES = 10

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """Yield the functions and methods that are public by name, all the way up."""
    for node in tree.body:
        if isinstance(node, Function) and (node.name == "__init__" or node.name[0] != "_"):
            yield node
        elif isinstance(node, ast.ClassDef) and node.name[0] != "_":
            yield from public_functions(node)


def complaints(function: Function) -> list[str]:
    """Return the parts of a signature that have no annotation, or one with Any."""
    spec = function.args
    given = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    parts = {arg.arg: arg.annotation for arg in given if arg and arg.arg not in ("self", "cls")}
    parts["return"] = function.returns
    return [
        f"{function.name}, line {function.lineno}: {name}"
        for name, annotation in parts.items()
        if annotation is None or re.search(r"\bAny\b", ast.unparse(annotation))
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_public_signatures_are_annotated_without_any(file: Path) -> None:
    functions = public_functions(ast.parse(file.read_text(encoding="utf-8")))
    assert [complaint for function in functions for complaint in complaints(function)] == []


def test_the_check_itself_sees_any() -> None:
    tree = ast.parse("class A:\n def f(self, x: list[Any], *, y=1) -> int: ...\n def _g(x): ...")
    found = [complaint for function in public_functions(tree) for complaint in complaints(function)]
    assert found == ["f, line 2: x", "f, line 2: y"]


def test_ignores_are_few_and_each_has_its_code_and_reason() -> None:
    found = [
        (f"{file.relative_to(ROOT)}:{number}", match)
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := IGNORE.search(line))
    ]
    assert [place for place, match in found if not (match["code"] and match["reason"])] == []
    assert len(found) <= MOST_IGNORES, [place for place, _ in found]
