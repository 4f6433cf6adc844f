"""plan.json may come from anywhere: it is read as it was written, or refused in a sentence."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import shoestring
from shoestring import Budget, Plan
from shoestring.core import InputError, NoEffectWarning, ShoestringError


class Net(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
            for _ in range(4)
        )
        self.head = nn.Linear(width, 500)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def mean(output: torch.Tensor, batch: object) -> torch.Tensor:
    return output.square().mean()


@functools.cache
def made() -> Plan:
    prof = shoestring.profile(
        Net(), torch.zeros(2048, 32), optimizer=torch.optim.AdamW, loss=mean, machine="h100"
    )
    return shoestring.plan(prof, Budget(memory=prof.footprint - 1), largest=True)


def document() -> dict[str, object]:
    found = json.loads(made().to_json())
    assert isinstance(found, dict)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


def test_what_is_loaded_is_what_was_saved(path: Path) -> None:
    made().save(path)
    loaded = Plan.load(path)
    assert made().steps
    assert loaded == made()
    assert loaded.table() == made().table()
    net = Net()
    loaded.apply(net)
    assert loaded.applied(net)
    loaded.remove(net)


def change(edit: Callable[[dict[str, object]], object]) -> Callable[[], str]:
    def text() -> str:
        found = copy.deepcopy(document())
        edit(found)
        return json.dumps(found)

    return text


def steps(found: dict[str, object]) -> list[dict[str, object]]:
    value = found["steps"]
    assert isinstance(value, list)
    return value


FAULTS: dict[str, tuple[Callable[[], str], str]] = {
    "truncated": (lambda: made().to_json()[:-100], "is cut short"),
    "empty": (lambda: "", "is empty"),
    "not JSON": (lambda: "plan: yes", "is not JSON"),
    "a list": (lambda: "[]", "is not a document"),
    "other schema": (
        change(lambda d: d.update(schema="shoestring/profile/1")),
        "has schema 'shoestring/profile/1'",
    ),
    "unknown technique": (
        change(lambda d: steps(d)[0].update(name="alchemy")),
        "unknown technique 'alchemy'",
    ),
    "reported technique": (
        change(lambda d: steps(d).append({"name": "lora", "options": {"rank": 4}})),
        "unknown technique 'lora'",
    ),
    "extra key": (change(lambda d: d.update(colour="red")), "unknown key 'colour'"),
    "missing key": (change(lambda d: d.pop("rows")), "lacks the key 'rows'"),
    "extra option": (
        change(lambda d: steps(d)[0].update(options={"colour": "red"})),
        "no option 'colour'",
    ),
    "huge number": (change(lambda d: d.update(budget=10**30)), "which is too large"),
    "huge size": (change(lambda d: d.update(budget=2**62)), "whole number from 0 to 2"),
    "negative size": (change(lambda d: d.update(budget=-1)), "whole number from 0 to 2"),
    "huge float": (lambda: '{"schema": "shoestring/plan/1", "x": 1e999}', "too large"),
    "not a number": (lambda: '{"schema": "shoestring/plan/1", "x": NaN}', "NaN"),
    "text for a flag": (
        change(lambda d: d.update(measured_on_machine="no")),
        "must be true or false",
    ),
    "deep": (lambda: '{"schema": "shoestring/plan/1", "x": ' + "[" * 500 + "]" * 500 + "}", "deep"),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_damaged_plan_is_refused(path: Path, name: str) -> None:
    make, words = FAULTS[name]
    text = make()
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        Plan.load(path)
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]


def test_a_missing_plan_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        Plan.load(path)
    with pytest.raises(InputError, match="is not a file"):
        Plan.load(path.parent)


def test_another_model_is_refused_and_left_alone(path: Path) -> None:
    made().save(path)
    other = Net(width=48)
    before = set(vars(other))
    with pytest.raises(InputError, match="made for another model"):
        Plan.load(path).apply(other)
    assert set(vars(other)) == before


def test_a_plan_is_not_saved_into_a_folder_that_is_not_there(path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        made().save(path / "deeper.json")
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_may_not_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal of the system is played."""

    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(permission denied\)"):
        made().save(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_leaves_the_older_plan(path: Path, tmp_path: Path) -> None:
    made().save(path)
    older = path.read_bytes()
    code = """
        import resource, sys
        from shoestring import Plan
        from shoestring.core import InputError
        plan = Plan.load(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        try:
            plan.save(sys.argv[1])
        except InputError as error:
            print(error.message)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written (file too large)" in done.stdout
    assert path.read_bytes() == older
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


# --- any change at all -----------------------------------------------------------------------

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(["remat", "exact", "torch.optim.AdamW", "steps", "x" * 10001]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(tree: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    found = [path] if path else []
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        found += places(value, (*path, key))
    return found


@given(st.data())
def test_any_mutation_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tree = copy.deepcopy(document())
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(places(tree)))
        parent: object = tree
        for key in above:
            parent = parent[key]  # type: ignore[index]
        how = data.draw(st.sampled_from(["set", "delete", "add"]))
        if how == "set":
            parent[last] = data.draw(VALUES)  # type: ignore[index]
        elif how == "delete" and isinstance(parent, dict):
            del parent[last]
        elif isinstance(parent, dict):
            parent[data.draw(st.text(max_size=8))] = data.draw(VALUES)
    check_readable(tmp_path_factory.getbasetemp() / "mutated.json", json.dumps(tree).encode())


@given(st.data())
def test_any_damage_to_the_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = made().to_json().encode()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    damaged = text[:start] + data.draw(st.binary(max_size=20)) + text[stop:]
    check_readable(tmp_path_factory.getbasetemp() / "damaged.json", damaged)


def check_readable(path: Path, content: bytes) -> None:
    """A plan comes out, or an InputError; and what comes out can be shown and written again."""
    path.write_bytes(content)
    try:
        plan = Plan.load(path)
    except InputError as error:
        assert error.message
        assert error.hint
    else:
        # What it asks for is done and undone, or refused: it never breaks the model.
        net = Net()
        with warnings.catch_warnings(), contextlib.suppress(ShoestringError):
            warnings.simplefilter("ignore", NoEffectWarning)  # of options that change nothing
            plan.apply(net)
            plan.remove(net)
        assert set(vars(net)) == set(vars(Net()))
        assert plan.table()
        plan.save(path)
        assert Plan.load(path) == plan
