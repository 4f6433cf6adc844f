"""The catalogue and the code name each other, in both directions."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest
import torch

import shoestring
from shoestring import catalog
from shoestring.core import Fidelity, Technique

ROWS = catalog.rows()
TECHNIQUES = [row for row in ROWS if row.kind == "technique"]
ids = {"ids": lambda row: row.name}


def resolve(row: catalog.Row) -> object:
    module, _, name = row.path.partition(":")
    return getattr(importlib.import_module(module), name)


def techniques_in_the_package() -> set[type[Technique]]:
    """Return every concrete public technique that a module of the package defines."""
    found = set()
    for info in pkgutil.walk_packages(shoestring.__path__, "shoestring."):
        if info.name.startswith(("shoestring.cli", "shoestring.__main__")):
            continue
        if info.name.endswith("_triton"):  # triton is not on every machine
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if (
                inspect.isclass(value)
                and issubclass(value, Technique)
                and not inspect.isabstract(value)
                and value.__module__ == info.name
                and not name.startswith("_")
            ):
                found.add(value)
    return found


@pytest.mark.parametrize("row", ROWS, **ids)
def test_every_row_can_be_imported_from_its_path(row: catalog.Row) -> None:
    found = resolve(row)
    assert (found.__module__, found.__qualname__) == tuple(row.path.split(":"))
    assert inspect.getdoc(found)


@pytest.mark.parametrize("row", ROWS, **ids)
def test_a_row_says_what_it_is(row: catalog.Row) -> None:
    found = resolve(row)
    assert inspect.isclass(found) == (row.kind not in ("verb", "function"))
    assert (inspect.isclass(found) and issubclass(found, Technique)) == (row.kind == "technique")
    assert row.summary
    assert not row.summary.endswith(".")


@pytest.mark.parametrize("row", TECHNIQUES, **ids)
def test_a_techniques_row_has_its_name_what_it_saves_and_its_fidelity(row: catalog.Row) -> None:
    assert resolve(row).name == row.name
    assert row.saves
    words = row.fidelity.split(" or ")
    assert set(words) <= {fidelity.value for fidelity in Fidelity}


def test_every_technique_in_the_package_has_a_row() -> None:
    found = {f"{t.__module__}:{t.__qualname__}" for t in techniques_in_the_package()}
    assert found == {row.path for row in TECHNIQUES}


def test_every_optimizer_of_the_zeroth_room_has_a_row() -> None:
    found = {
        f"{value.__module__}:{name}"
        for name, value in vars(shoestring.zeroth).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
    }
    assert found == {row.path for row in ROWS if row.kind == "optimizer"}


def test_every_public_name_has_a_row_and_every_other_row_is_a_public_name() -> None:
    # These are imported from their rooms, as are those that are named with one.
    elsewhere = ("technique", "optimizer", "integration", "function")
    own = {row.name for row in ROWS if row.kind not in elsewhere and "." not in row.name}
    assert set(shoestring.__all__) == own


def test_names_and_paths_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({row.path for row in ROWS}) == len(ROWS)


def test_find_knows_every_name_and_suggests_a_near_one() -> None:
    for row in ROWS:
        assert catalog.find(row.name) is row
    with pytest.raises(catalog.UnknownNameError, match="no 'loar'") as caught:
        catalog.find("loar")
    assert caught.value.hint == "did you mean lora?"
    with pytest.raises(catalog.UnknownNameError, match="hint: see shoestring list"):
        catalog.find("quantum")


@pytest.mark.parametrize("row", ROWS, **ids)
def test_a_citation_is_well_formed_bibtex(row: catalog.Row) -> None:
    entry = catalog.cite(row.name)
    assert re.match(r"@(misc|inproceedings|software)\{[a-z0-9]+,\n", entry)
    assert entry.count("{") == entry.count("}")
    assert entry.endswith("}")
    assert all(re.fullmatch(r"  \w+ = \{.+\},", line) for line in entry.splitlines()[1:-1])
    if row.paper:
        assert row.paper.title in entry
        assert row.paper.arxiv in entry
        assert re.fullmatch(r"\d{4}\.\d{5}", row.paper.arxiv)
        assert all(", " in author for author in row.paper.authors)


def test_papers_have_one_key_each() -> None:
    papers = {row.paper for row in ROWS if row.paper}
    assert len({paper.key for paper in papers}) == len(papers)


@pytest.mark.parametrize("row", ROWS, **ids)
def test_the_thing_itself_is_cited_as_its_name_is(row: catalog.Row) -> None:
    assert catalog.cite(resolve(row)) == catalog.cite(row.name)


def test_an_instance_is_cited_as_its_class() -> None:
    assert catalog.cite(shoestring.Budget(memory="1GiB")) == catalog.cite("Budget")


@pytest.mark.parametrize("stranger", [int, print, 3, None])
def test_what_is_not_ours_is_not_cited(stranger: object) -> None:
    with pytest.raises(catalog.UnknownNameError, match="the catalogue has no"):
        catalog.cite(stranger)
