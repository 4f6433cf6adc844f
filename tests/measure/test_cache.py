"""A cache file is parsed once for each state it is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.measure import cache
from shoestring.measure.cache import read_cache, write_cache

SCHEMA = "shoestring/some-cache/1"


def test_what_does_not_change_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.json"
    assert write_cache(path, SCHEMA, {"a": 1})
    parsed = []

    def noted(name: object, schema: str) -> dict[str, object]:
        parsed.append(name)
        return {"rows": {"a": 1}}

    monkeypatch.setattr(cache, "read_document", noted)
    assert [read_cache(path, SCHEMA) for _ in range(3)] == [{"a": 1}] * 3
    assert len(parsed) == 1


def test_what_another_process_wrote_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    for rows in ({"a": 1}, {"a": 2}, {"a": 2, "b": 3}):
        assert write_cache(path, SCHEMA, dict(rows))
        assert read_cache(path, SCHEMA) == rows
    path.unlink()
    assert read_cache(path, SCHEMA) == {}
    assert write_cache(path, SCHEMA, {"c": 4})
    assert read_cache(path, SCHEMA) == {"c": 4}


def test_each_caller_has_rows_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    assert write_cache(path, SCHEMA, {"a": 1})
    read_cache(path, SCHEMA)["b"] = 2
    assert read_cache(path, SCHEMA) == {"a": 1}
    assert read_cache(path, "shoestring/another-cache/1") == {}
