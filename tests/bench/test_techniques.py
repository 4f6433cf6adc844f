import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import render, techniques, techniques_measure
from bench.harness import ROOT, source_hash
from bench.tables import FOOTNOTE, NOT_RUN, OLDER, RENDERERS
from bench.techniques import CELLS, NOTES, ROOMS, UNTIMED, make, measure_row
from bench.techniques_measure import Cell
from bench.techniques_reported import SIDES
from bench.techniques_table import SCHEMA
from shoestring import catalog
from shoestring.planner.techniques import technique_classes

NAMES = [row.name for row in catalog.rows() if row.kind == "technique"]
MIB = 2**20


def row(model: str, rows: int, **changes: object) -> dict[str, object]:
    return {
        "model": model,
        "batch": rows,
        "optimizer": "AdamW",
        "change": "checkpoint 4 blocks",
        "plain": 200 * MIB,
        "measured": 100 * MIB,
        "predicted": 101 * MIB,
        "time_ratio": 1.3,
        "time_spread": [1.25, 1.4],
        "predicted_time_ratio": 1.2,
        **changes,
    }


def untimed(model: str, rows: int) -> dict[str, object]:
    missing = ("time_ratio", "time_spread", "predicted_time_ratio")
    return row(model, rows, **dict.fromkeys(missing))


def written(results: Path, name: str, rows: list[dict[str, object]], **changes: object) -> Path:
    document = {
        "schema": SCHEMA,
        "technique": name,
        "rows": rows,
        "rooms": ["core"],
        "source_hash": source_hash(["core"]),
        "note": "All of them.",
        **changes,
    }
    path = results / "techniques" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")
    return path


def table(results: Path, name: str) -> str:
    return RENDERERS[f"technique-{name}"](results)


# --- the tables ------------------------------------------------------------------------------


def test_a_table_shows_peaks_errors_and_times(tmp_path: Path) -> None:
    rows = [row("gpt2", 24), row("bert", 1, optimizer="foreach AdamW", predicted=95 * MIB)]
    written(tmp_path, "remat", rows)
    text = table(tmp_path, "remat")
    assert "| model | batch | plain | with it | predicted | error | time | predicted time |" in text
    assert (
        "| gpt2 | 24 | 200 MiB | 100 MiB, 50 % | 101 MiB | +1.0 % | 1.30 (1.25 to 1.40) | 1.20 |"
    ) in text
    assert "| bert, foreach AdamW | 1 | 200 MiB | 100 MiB, 50 % | 95.0 MiB | -5.0 % |" in text
    assert text.endswith("All of them.")
    assert OLDER not in text


def test_what_differs_between_rows_is_a_column(tmp_path: Path) -> None:
    written(tmp_path, "bf16", [row("gpt2", 24), row("vit", 4, change="checkpoint 2 blocks")])
    lines = table(tmp_path, "bf16").splitlines()
    assert lines[0].startswith("| model | change | batch |")
    assert lines[1].startswith("| --- | --- | --: |")
    assert lines[3].startswith("| vit | checkpoint 2 blocks | 4 |")


def test_without_times_there_are_no_columns_for_them(tmp_path: Path) -> None:
    written(tmp_path, "lora", [untimed("llama", 4)])
    text = table(tmp_path, "lora")
    assert "| llama | 4 | 200 MiB | 100 MiB, 50 % | 101 MiB | +1.0 % |" in text
    assert "time" not in text


def test_a_step_that_failed_is_shown_as_failed(tmp_path: Path) -> None:
    failed = {"model": "t5", "batch": 4, "optimizer": "AdamW", "error": "ValueError: no"}
    written(tmp_path, "lora", [row("llama", 4), failed])
    lines = [line for line in table(tmp_path, "lora").splitlines() if line.startswith("|")]
    assert lines[3].startswith("| t5 | 4 | failed |")
    assert len({line.count("|") for line in lines}) == 1


def test_figures_of_older_code_are_marked(tmp_path: Path) -> None:
    written(tmp_path, "lora", [row("llama", 4)], source_hash="0" * 16)
    text = table(tmp_path, "lora")
    assert f"50 %{OLDER} | 101 MiB | +1.0 %{OLDER} | 1.30 (1.25 to 1.40){OLDER} |" in text
    assert text.endswith(FOOTNOTE)


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    assert [table(tmp_path, name) for name in NAMES] == [NOT_RUN] * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_a_technique_shows_its_table(name: str) -> None:
    page = ROOT / "docs" / "papers" / f"{name}.md"
    assert render.asked(page.read_text("utf-8"))[:1] == [f"technique-{name}"]


# --- what is measured ------------------------------------------------------------------------


def test_every_technique_has_steps_and_a_note() -> None:
    assert sorted(CELLS) == sorted(NOTES) == sorted(NAMES)
    assert all(3 <= len(cells) <= 5 for cells in CELLS.values())
    assert all(len(set(cells)) == len(cells) for cells in CELLS.values())
    for cells in CELLS.values():
        for cell in cells:
            assert cell.case.name == cell.model
            assert cell.optimizer in techniques_measure.OPTIMIZERS
    assert sorted(SIDES) == sorted(kind.name for kind in technique_classes() if kind.reported)
    assert set(NAMES) >= UNTIMED


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Measure no steps, and tell how many would have been measured."""
    measured: list[Cell] = []

    def fake(name: str, cell: Cell) -> dict[str, object]:
        measured.append(cell)
        return row(cell.model, cell.rows, optimizer=cell.optimizer)

    monkeypatch.setattr(techniques, "measure_row", fake)
    return lambda: len(measured)


def test_a_result_that_stands_is_kept(tmp_path: Path, count: Callable[[], int]) -> None:
    made = make("lora", results=tmp_path)
    wanted = len(CELLS["lora"])
    assert count() == wanted
    path = tmp_path / "techniques" / "lora.json"
    assert json.loads(path.read_text("utf-8")) == made
    assert made["rooms"] == list(ROOMS)
    assert NOT_RUN not in table(tmp_path, "lora")
    assert make("lora", results=tmp_path) == made
    assert count() == wanted
    make("lora", results=tmp_path, again=True)
    assert count() == 2 * wanted


@pytest.mark.parametrize(
    "change",
    [
        {"source_hash": "0" * 16},
        {"torch": "2.12.0"},
        {"schema": "shoestring/bench/technique/0"},
        {"rows": []},
        {"rows": [{"model": "llama", "batch": 4, "optimizer": "AdamW", "error": "died"}]},
        {"note": "Another."},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_result_that_is_older_or_another_is_made_anew(
    change: dict[str, object], tmp_path: Path, count: Callable[[], int]
) -> None:
    made = make("lora", results=tmp_path)
    path = tmp_path / "techniques" / "lora.json"
    path.write_text(json.dumps({**made, **change}), "utf-8")
    before = count()
    assert make("lora", results=tmp_path) == made
    assert count() == before + len(CELLS["lora"])


def test_a_failed_step_is_written_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CELLS, "micro-batches", (Cell("resnet", 4),))
    made = make("micro-batches", results=tmp_path)
    (found,) = made["rows"]  # type: ignore[misc]
    assert found["error"].startswith("RefusedError: micro-batches: the samples")
    assert "resnet 4 AdamW: RefusedError" in capsys.readouterr().err
    assert "| resnet | 4 | failed |" in table(tmp_path, "micro-batches")


@pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning")
@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("release-gradients", Cell("tabular", 2)),
        ("sliced-step", Cell("tabular", 2, "foreach AdamW")),
        ("offload", Cell("unet", 2)),
        ("zeroth-order", Cell("unet", 2)),
    ],
)
def test_a_step_is_measured(name: str, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(techniques_measure, "ROUNDS", 1)
    monkeypatch.setattr(techniques_measure, "SAMPLE_SECONDS", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measure_row(name, cell)
    finally:
        torch.set_num_threads(threads)
    assert "error" not in found
    assert found["measured"] < 0.9 * found["plain"]  # type: ignore[operator]
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.05)
    assert (found["time_ratio"] is None) == (name in UNTIMED)
