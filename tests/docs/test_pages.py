"""The pages: one for each technique, links that lead somewhere, and a build without warnings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring import catalog

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TECHNIQUES = [row for row in catalog.rows() if row.kind == "technique"]
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("row", TECHNIQUES, ids=lambda row: row.name)
def test_a_technique_has_a_page_and_a_row(row: catalog.Row) -> None:
    page = (DOCS / "papers" / f"{row.name}.md").read_text()
    assert f"`{row.name}`" in page
    assert "**Fidelity.**" in page
    if row.paper is not None:
        title = " ".join(row.paper.title.split())
        assert str(row.paper.year) in page, title
    assert f"(papers/{row.name}.md)" in (DOCS / "choose.md").read_text()
    assert f"(papers/{row.name}.md)" in (DOCS / "index.md").read_text()


MEASURES = {"attacks", "flopco", "guarantees", "jaguar", "twin", "zo-compound", "zo-variants"}
"""Pages of what is no technique."""


def test_every_page_of_a_technique_has_one() -> None:
    names = {path.stem for path in (DOCS / "papers").glob("*.md")}
    assert names - MEASURES == {row.name for row in TECHNIQUES}
    assert names >= MEASURES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_pages_build_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "choose.html").is_file()
