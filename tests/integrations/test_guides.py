"""The guides' code runs, trains what the plain version trains, and is hardly longer.

On every page python blocks come in pairs: the plain version, and the version with a plan.
Here the two versions are compared; ``tests/docs/test_snippets.py`` runs the other pages.
"""

from __future__ import annotations

import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch

import shoestring
from shoestring.measure.tracing.allocator import measure_step, standing
from tests.integrations.guides import GUIDES, HERE, pairs
from tests.integrations.planned import Weights, apart, close, one_thread
from tests.two import run_on_two

pytest.importorskip("transformers")

SOURCE = str(Path(shoestring.__file__).resolve().parents[1])
MOST_LINES_MORE = 15
END = "dist.destroy_process_group()\n"

# float32 differs by rounding alone, which AdamW enlarges; float16 keeps 11 bits.
APART = {"float32": 1e-3, "float16": 2**-6}


def lines(code: str) -> int:
    """Count lines of code: neither blank nor a comment."""
    return sum(1 for line in code.splitlines() if line.strip() and line.strip()[0] != "#")


ALONE = {"count", "rematerialisation", "zeroth", "zeroth_trainers", "zeroth_workers"}
"""Guides whose code stands beside nothing plain."""

CASES = [(name, number) for name in HERE for number in range(len(pairs(name)))]


@pytest.mark.parametrize("name", sorted({path.stem for path in GUIDES.glob("*.md")} - ALONE))
def test_a_plan_takes_at_most_fifteen_lines_more(name: str) -> None:
    for plain, planned in pairs(name):
        assert "plan.apply(" not in plain
        assert "shoestring" in planned
        assert lines(planned) - lines(plain) <= MOST_LINES_MORE


def test_lines_are_counted_without_blanks_and_comments() -> None:
    assert lines("import torch\n\n# why\n    x = 1  # what\n   \n") == 2


def run(code: str, folder: Path) -> dict[str, object]:
    """Run a block as a script of its own; modules defined in it are found by Lightning."""
    module = types.ModuleType("guide")
    sys.modules["guide"] = module
    before = Path.cwd()
    os.chdir(folder)
    try:
        with one_thread():
            exec(compile(code, "guide", "exec"), module.__dict__)
    finally:
        os.chdir(before)
        del sys.modules["guide"]
    return module.__dict__


def trained(namespace: dict[str, object]) -> Weights:
    model = namespace["model"] if "model" in namespace else namespace["module"].model
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def untrained(code: str, folder: Path) -> Weights:
    """Return the weights that the plain version begins with."""
    halted = re.sub(
        r"^(for (batch|layer) in |trainer = ).*", "", code, flags=re.MULTILINE | re.DOTALL
    )
    assert halted != code
    return trained(run(halted, folder))


@pytest.mark.parametrize(("name", "number"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_both_versions_of_a_guide_train_the_same(name: str, number: int, tmp_path: Path) -> None:
    package = HERE[name]
    if package is not None:
        pytest.importorskip(package)
    torch._dynamo.reset()
    plain, planned = pairs(name)[number]
    start = untrained(plain, tmp_path)
    expected = trained(run(plain, tmp_path))
    namespace = run(planned, tmp_path)
    plan = namespace["plan"] if "plan" in namespace else namespace["module"].plan
    assert plan.steps, "the guide's budget asks for nothing"
    assert plan.predicted.footprint <= plan.budget
    most = APART["float16" if "float16" in plain else "float32"]
    assert apart(expected, trained(namespace), start) < most


@pytest.mark.filterwarnings("ignore")
def test_the_loop_of_the_guide_stays_within_its_budget(tmp_path: Path) -> None:
    namespace = run(pairs("plain_loop")[0][1], tmp_path)
    model, plan, optimizer = (namespace[key] for key in ("model", "plan", "optimizer"))
    batch = namespace["batches"][0]

    def step() -> None:
        with plan.context():
            for part, weight in plan.split(batch):
                (weight * model(**part).loss).backward()
        optimizer.step()
        optimizer.zero_grad()

    with one_thread():
        step()
        found = measure_step(step, roots=lambda: standing(model, batch, optimizer))
    close(optimizer)
    assert found.peak <= plan.budget < plan.plain.peak
    assert found.peak == pytest.approx(plan.predicted.peak, rel=0.05)


# --- two processes -------------------------------------------------------------------------

# A group that what wraps the model still holds would end with the interpreter, and gloo's threads
# with it, which may end the process: https://github.com/pytorch/pytorch/pull/179291.
DRIVER = """
import gc
import sys
from pathlib import Path

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
for script in sorted(folder.glob("*.py")):
    store = (folder / f"{script.stem}.store").as_uri()
    begin = f'init_process_group("gloo", init_method={store!r}, world_size=2, rank={rank})'
    code = script.read_text(encoding="utf-8").replace('init_process_group("gloo")', begin)
    exec(compile(code, script.name, "exec"), {"__name__": "__main__"})
    gc.collect()
"""
KEEP = """
kept = {n: getattr(p.detach(), "full_tensor", p.detach)() for n, p in model.named_parameters()}
torch.save(kept, f"OUT-{dist.get_rank()}.pt")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every pair of the guide on two processes, which keep the weights they end with."""
    folder = tmp_path_factory.mktemp("distributed")
    for number, (plain, planned) in enumerate(pairs("distributed")):
        start = re.sub(r"^for batch in .*(?=^dist)", "", plain, flags=re.MULTILINE | re.DOTALL)
        assert start != plain
        checked = re.sub(r"^(?=plan\.apply\()", "assert plan.steps\n", planned, flags=re.MULTILINE)
        assert checked != planned
        for kind, code in (("start", start), ("plain", plain), ("planned", checked)):
            assert code.count(END) == 1
            name = f"{number}-{kind}"
            keep = KEEP.replace("OUT", str(folder / name))
            (folder / f"{name}.py").write_text(code.replace(END, keep + END), encoding="utf-8")
    run_on_two(lambda rank: ("-c", DRIVER, str(folder), str(rank)), folder)
    return folder


@pytest.mark.timeout(200)
@pytest.mark.parametrize("number", range(len(pairs("distributed"))), ids=["ddp", "fsdp2"])
def test_both_versions_train_the_same_on_two_processes(number: int, ran: Path) -> None:
    def load(kind: str, rank: int = 0) -> Weights:
        return torch.load(ran / f"{number}-{kind}-{rank}.pt", weights_only=True)

    for kind in ("plain", "planned"):
        assert all(torch.equal(w, load(kind, 1)[n]) for n, w in load(kind).items())
    assert apart(load("plain"), load("planned"), load("start")) < APART["float32"]
