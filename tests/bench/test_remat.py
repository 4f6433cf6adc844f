"""The bench of rematerialisation: what is compared is the same thing, and what stands is kept."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch._functorch import config
from torch._functorch.partitioners import min_cut_rematerialization_partition

from bench.remat import records, run, steps, table
from bench.remat._torch import CapturedJoint, capture_joint, prepare_selection
from bench.remat.memory import floor
from bench.remat.models import SUBJECTS, gpt, tokens
from bench.remat.thin import read, recomputed_by
from bench.tables import FOOTNOTE, NOT_RUN
from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate

# --- torch's choice, in terms of ours --------------------------------------------------------


@pytest.fixture(scope="module")
def captured() -> CapturedJoint:
    """Return the joint graph of a small GPT."""
    model = gpt(2, width=32, heads=4, vocabulary=64, length=32)()
    return capture_joint(model, tokens(4, 32, 64))


@pytest.mark.parametrize("budget", [0.7, 0.4, 0.1])
def test_what_torch_saves_is_read_as_what_torch_runs_again(
    captured: CapturedJoint, budget: float
) -> None:
    """Against the graphs that torch itself cuts with the same choice."""
    saved = prepare_selection(captured.copied())(budget)
    joint = read(captured.copied())
    again = {joint.operations[k].name for k in recomputed_by(joint, saved)}
    theirs = captured.copied()
    with config.patch(activation_memory_budget=budget):
        _, backward = min_cut_rematerialization_partition(
            theirs.module, (), num_fwd_outputs=theirs.forward_outputs
        )
    border = joint.graph.border
    forward = {operation.name for operation in joint.operations[:border]}
    calls = [node.name for node in backward.graph.nodes if node.op == "call_function"]
    assert again == forward.intersection(calls)
    assert again


# --- steps -----------------------------------------------------------------------------------


def test_differences_are_named_and_measured() -> None:
    plain = {"loss": [torch.ones(2)], "gradients": [torch.zeros(3)], "buffers": []}
    other = {**copy.deepcopy(plain), "gradients": [torch.tensor([0.0, 0.5, -2.0])]}
    assert steps.differences(plain, plain) == {}
    assert steps.differences(other, plain) == {"gradients": 2.0}
    broken = {**plain, "loss": [torch.full((2,), torch.nan)]}
    assert steps.differences(broken, plain) == {"loss": float("inf")}


def test_sides_take_turns() -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) for name in "abc"}
    samples = steps.take_turns(sides, seconds=1.0, rounds=2)
    assert calls == list("abcabc")
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 2, "b": 2, "c": 2}


def test_nothing_is_known_in_a_fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from shoestring.measure.cache import cache_folder

    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    with steps.fresh_cache():
        assert cache_folder() != tmp_path
        assert not list(cache_folder().iterdir())
    assert cache_folder() == tmp_path


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_models_are_of_their_sizes(name: str) -> None:
    expected = {"gpt12": 42.3e6, "resnet50": 25.6e6, "unet": 4.33e6, "fno": 1.64e6}
    with torch.device("meta"):
        model = SUBJECTS[name].build()
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(expected[name], rel=0.01)


# --- results and their tables ----------------------------------------------------------------


def fitted(share: float, *, predicted: float, overhead: float) -> dict[str, object]:
    """Return what is measured of one budget; the plain step takes 1000 bytes."""
    return {
        "predicted_peak": int(1000 * share),
        "peak": int(1000 * share),
        "total": 1500,
        "floor": 200,
        "predicted_overhead": predicted,
        "overhead": overhead,
        "different": {},
    }


def test_no_order_stays_under_the_floor() -> None:
    names = {"w": 5, "x": 64, "y": 16, "g": 32, "dy": 8, "dw": 500, "dx": 40}
    values = tuple(Value(name, size) for name, size in names.items())
    nodes = (
        Node("f", 1.0, (0,), (1,)),
        Node("h", 1.0, (0, 1), (2,)),
        Node("loss", 0.0, (2,), (3,)),
        Node("bh", 1.0, (0, 2, 3), (4, 5)),
        Node("bf", 1.0, (1, 4), (6,), workspace=100),
    )
    graph = Graph(nodes, values, 2, frozenset({0}), frozenset({5, 6}))
    # The last one reads x and dy, makes dx in its workspace, and dw is there by then.
    assert floor(graph) == 64 + 8 + 40 + 100 + 500
    assert floor(graph) <= simulate(graph, graph.plain).peak
    # A gradient that nothing before needs may come later: only the end has both.
    apart = (*nodes[:4], nodes[4]._replace(reads=(1, 3), workspace=0))
    assert floor(Graph(apart, values, 2, frozenset({0}), frozenset({5, 6}))) == 16 + 32 + 8 + 500


@pytest.mark.parametrize("seed", range(3))
def test_the_floor_is_below_the_best_of_all_orders(seed: int) -> None:
    from shoestring.activations.remat.answer import OverBudgetError
    from shoestring.activations.remat.solvers.checkmate import solve_checkmate

    graph = _drawn(seed)
    with pytest.raises(OverBudgetError):
        solve_checkmate(graph, floor(graph) - 1, time_limit=5.0)


def _drawn(seed: int) -> Graph:
    """Return a chain of drawn sizes, each with a gradient that stays."""
    sizes = torch.randint(1, 9, (20,), generator=torch.Generator().manual_seed(seed)).tolist()
    links = 4
    values = [Value(f"v{k}", 64 * sizes[k]) for k in range(3 * links + 1)]
    forward = [Node(f"f{k}", 1.0, (k - 1,) if k else (), (k,)) for k in range(links)]
    loss = Node("loss", 0.0, (links - 1,), (links,))
    backward = [
        Node(f"b{k}", 1.0, (links - 1 - k, links + 2 * k), (links + 2 * k + 1, links + 2 * k + 2))
        for k in range(links)
    ]
    results = frozenset({links + 2 * k + 1 for k in range(links)} | {3 * links})
    return Graph((*forward, loss, *backward), tuple(values), links, frozenset(), results)


def write_memory(folder: Path, **half: float) -> None:
    """Write a cell whose third is within its bars."""
    cell = {
        "title": "U-Net",
        "rows": 4,
        "peak": 1000,
        "total": 2000,
        "half": fitted(half.pop("share"), **half),
        "third": fitted(0.3, predicted=0.2, overhead=0.2),
    }
    records.write("memory", "unet-4", cell, made_with=records.sources("memory"), results=folder)


@pytest.mark.parametrize(
    ("share", "predicted", "overhead", "bold"),
    [
        (0.5, 0.15, 0.16, 0),
        (0.501, 0.15, 0.16, 1),
        (0.5, 0.16, 0.16, 1),
        (0.5, 0.1, 0.16, 1),
        (0.6, 0.2, 0.3, 3),
    ],
)
def test_a_bar_that_is_missed_is_bold(
    tmp_path: Path, share: float, predicted: float, overhead: float, bold: int
) -> None:
    write_memory(tmp_path, share=share, predicted=predicted, overhead=overhead)
    lines = table.memory(tmp_path).splitlines()[2:4]
    assert [line.count("**") for line in lines] == [2 * bold, 0]


def test_what_is_not_exact_is_bold_however_small(tmp_path: Path) -> None:
    cell = fitted(0.3, predicted=0.1, overhead=0.1) | {"different": {"gradients": 0.1}}
    figures = {"title": "U-Net", "rows": 4, "peak": 1000, "total": 2000, "half": cell}
    figures["third"] = fitted(0.3, predicted=0.1, overhead=0.1)
    made_with = records.sources("memory")
    records.write("memory", "unet-4", figures, made_with=made_with, results=tmp_path)
    assert table.memory(tmp_path).splitlines()[2].count("**") == 2


@pytest.mark.parametrize("name", table.TABLES)
def test_without_results_a_table_says_so(tmp_path: Path, name: str) -> None:
    assert table.TABLES[name](tmp_path) == NOT_RUN


def test_older_figures_are_marked(tmp_path: Path) -> None:
    write_memory(tmp_path, share=0.5, predicted=0.1, overhead=0.1)
    assert FOOTNOTE not in table.memory(tmp_path)
    path = records.path_of("memory", "unet-4", tmp_path)
    path.write_text(path.read_text().replace(records.sources("memory"), "0" * 16))
    assert not records.is_current("memory", "unet-4", tmp_path)
    assert table.memory(tmp_path).endswith(FOOTNOTE)


def test_a_peer_that_fails_or_is_wrong_is_bold(tmp_path: Path) -> None:
    made_with = records.sources("peers")
    names = {"model": "GPT", "peer": "other", "plain_peak": 1000}
    records.write(
        "peers", "a", {**names, "error": "RuntimeError: no"}, made_with=made_with, results=tmp_path
    )
    figures = {
        **names,
        "peer_peak": 500,
        "peak": 490,
        "peer_different": {"gradients": 0.1},
        "different": {},
        "peer_overhead": 0.3,
        "overhead": 0.2,
        "ratio": 0.92,
        "spread": [0.9, 0.95],
    }
    records.write("peers", "b", figures, made_with=made_with, results=tmp_path)
    fails, wrong = table.peers(tmp_path).splitlines()[2:4]
    assert "**fails**: RuntimeError: no" in fails
    assert "**wrong**: gradients" in wrong
    assert wrong.count("**") == 2


# --- the run ---------------------------------------------------------------------------------


def test_what_stands_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    first = run.cells_of("selection")[0]
    monkeypatch.setattr(run, "is_current", lambda part, name: name == first)

    def runner(part: str, name: str) -> bool:
        done.append((part, name))
        return True

    assert run.main(["selection"], runner=runner) == 0
    assert done == [("selection", name) for name in run.cells_of("selection")[1:]]
    done.clear()
    assert run.main([f"selection/{first}", "--again"], runner=runner) == 0
    assert done == [("selection", first)]


def test_a_cell_that_fails_does_not_keep_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    monkeypatch.setattr(run, "is_current", lambda part, name: False)

    def runner(part: str, name: str) -> bool:
        done.append(name)
        return len(done) > 1

    assert run.main(["selection"], runner=runner) == 1
    assert tuple(done) == run.cells_of("selection")
    assert f"selection/{done[0]} failed" in capsys.readouterr().err


def test_the_picture_holds_what_torch_offers_on_its_model(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    from bench.remat import picture
    from bench.remat.peers import CELLS, COMPARISONS

    made_with = records.sources("peers")
    for place, name in enumerate(CELLS):
        compared = COMPARISONS[name]
        figures = {"model": compared.model, "peer": compared.peer, "peer_peak": 100 + place}
        if name == picture.CELL:
            figures["error"] = "RuntimeError: it does not run"
        figures |= {"peer_overhead": 0.25}
        records.write("peers", name, figures, made_with=made_with, place=place, results=tmp_path)
    found = picture.others(records.read_part("peers", tmp_path))
    assert {other.overhead for other in found} == {0.25}
    assert [other.name for other in found] == [
        "checkpoint, each block",
        "checkpoint, every second block",
        "torch's memory budget 0.7",
        "torch's memory budget 0.2",
    ]
    assert found[0].peak == 100 + CELLS.index("checkpoint-gpt-1") - steps.SCALARS


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SystemExit):
        run.main(["everything"])
