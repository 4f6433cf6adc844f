"""Every example of README and docs runs as it is written.

Blocks of one page run in order, in one temporary folder: ```python blocks share a namespace
(with ``>>>`` prompts, their output is compared), and lines ``$ shoestring ...`` of ```console
blocks must exit with 0. A block after ``<!-- not run: reason -->`` is left out. So are the
guides whose blocks ``tests/integrations/test_guides.py`` runs to compare them.
"""

from __future__ import annotations

import dataclasses
import doctest
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import shoestring
from tests.integrations.guides import COMPARED, GUIDES

ROOT = Path(__file__).parents[2]
SOURCE = str(Path(shoestring.__file__).resolve().parents[1])
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if p.is_file()]
FENCE = re.compile(r"^```(python|console)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S[^\n]* -->\s*\Z")


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a page."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page that are to be run."""
    return [
        Block(match[1], match[2], page.count("\n", 0, match.start(2)))
        for match in FENCE.finditer(page)
        if not NOT_RUN.search(page, 0, match.start())
    ]


def elsewhere(page: Path) -> bool:
    """Return whether test_guides.py runs all blocks of a page."""
    languages = {match[1] for match in FENCE.finditer(page.read_text(encoding="utf-8"))}
    return page.parent == GUIDES and page.stem in COMPARED and languages == {"python"}


def is_run(page: Path) -> bool:
    """Return whether a page has blocks, and each is run here or by test_guides.py."""
    text = page.read_text(encoding="utf-8")
    return elsewhere(page) or len(blocks(text)) == len(FENCE.findall(text)) > 0


def run_python(block: Block, name: str, namespace: dict[str, object]) -> None:
    if ">>>" in block.text:
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        test = doctest.DocTestParser().get_doctest(block.text, {}, name, name, block.line)
        test.globs = namespace
        report: list[str] = []
        runner.run(test, out=report.append, clear_globs=False)
        assert not runner.failures, "".join(report)
    else:
        # Empty lines above, so that a traceback names the page's own line.
        exec(compile("\n" * block.line + block.text, name, "exec"), namespace)


def run_console(block: Block, folder: Path) -> None:
    lines = block.text.replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("$ shoestring"):
            command = [sys.executable, "-m", "shoestring", *shlex.split(line, comments=True)[2:]]
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": SOURCE},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def run_page(page: str, name: str, folder: Path) -> int:
    """Run a page's blocks and return how many there were."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = blocks(page)
    for block in found:
        if block.language == "python":
            run_python(block, name, namespace)
        else:
            run_console(block, folder)
    return len(found)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if not elsewhere(page)], ids=named)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # a reader's warnings are no errors
        run_page(page.read_text(encoding="utf-8"), str(page), tmp_path)


@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=named)
def test_every_block_of_a_guide_is_run(guide: Path) -> None:
    assert is_run(guide)


PAGE = """
```python
x = 2
```

<!-- not run: it needs a GPU -->
```python
raise SystemExit
```

text

```python
>>> x + 1
3
```

```console
$ shoestring \\
    cite lora   # a comment
@misc{...
$ not-ours
```
"""


def test_a_page_runs_in_order_without_what_is_marked(tmp_path: Path) -> None:
    assert [block.language for block in blocks(PAGE)] == ["python", "python", "console"]
    assert run_page(PAGE, "page", tmp_path) == 3
    assert run_page("no code", "page", tmp_path) == 0


def test_a_page_without_code_or_with_a_block_that_is_left_out_is_not_run(tmp_path: Path) -> None:
    page = tmp_path / "plain_loop.md"  # the name of a guide that is compared, but no guide
    for text, expected in (("no code", False), (PAGE, False), (PAGE.replace("not run", ""), True)):
        page.write_text(text, encoding="utf-8")
        assert is_run(page) is expected
        assert not elsewhere(page)


@pytest.mark.parametrize(
    "page",
    [
        PAGE.replace("x = 2", "x = 2; assert x == 3"),
        PAGE.replace("\n3\n", "\n4\n"),
        PAGE.replace("cite lora", "cite loar"),
        PAGE.replace("<!-- not run: it needs a GPU -->", "<!-- not run: -->"),
        PAGE.replace("GPU -->\n", "GPU -->\ntext\n"),
    ],
)
def test_a_page_that_does_not_hold_fails(page: str, tmp_path: Path) -> None:
    assert page != PAGE
    with pytest.raises((AssertionError, SystemExit)):
        run_page(page, "page", tmp_path)
