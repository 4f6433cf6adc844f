"""The guides' code: which guides are compared block by block, and their blocks in pairs."""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
FENCE = re.compile(r"^```python[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)

HERE = {
    "plain_loop": None,
    "lightning": "lightning",
    "accelerate": "accelerate",
    "mixed_precision_and_compile": None,
}
"""Guides that run in the tests' own process -> the package that they need."""

COMPARED = frozenset({*HERE, "distributed"})
"""Guides of which ``test_guides.py`` runs every python block."""


def pairs(name: str) -> list[tuple[str, str]]:
    """Return (plain, planned) code of a guide."""
    blocks = FENCE.findall((GUIDES / f"{name}.md").read_text(encoding="utf-8"))
    assert blocks
    assert len(blocks) % 2 == 0, "python blocks come in pairs"
    return list(zip(blocks[::2], blocks[1::2], strict=True))
