import json
import re
from pathlib import Path

import pytest

from bench import render, tables
from bench.harness import RESULTS, make_result, source_hash, write_result
from bench.honesty_results import sources
from bench.tables import FOOTNOTE, NOT_RUN, OLDER, RENDERERS

PAGE = "# Title\n\n<!-- bench:{name} -->\n<!-- /bench -->\n\nThe end.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of one page with results of every kind."""
    results = tmp_path / "bench" / "results"
    speed(results, "trace-speed/small", [1.0, 1.0, 1.0], limit=1.0)
    peer(results, "alpha", ours=100, theirs=80)
    peer(results, "beta", ours=104, theirs=None)
    for rows in (2, 8):
        cell(results, "alpha", rows, "adamw", predicted=101)
        cell(results, "alpha", rows, "sgd", predicted=97)
    (tmp_path / "README.md").write_text(PAGE.format(name="trace-speed"), "utf-8")
    return tmp_path


def speed(results: Path, scenario: str, ours: list[float], *, limit: float) -> None:
    write_result(
        make_result(
            scenario,
            ours="ours",
            peer="theirs",
            samples={"ours": ours, "peer": [4.0]},
            unit="CPU s",
            rooms=("core",),
            command=("bench.trace_speed",),
            limit=limit,
            note="a small step",
        ),
        results,
    )


def peer(results: Path, case: str, *, ours: int, theirs: int | None) -> None:
    write_result(
        make_result(
            f"peers/{case}-theirs",
            ours="ours",
            peer="theirs",
            peer_version="1.0+cpu",
            peer_options={"tensors": "fake"},
            samples={"measured": [100], "ours": [ours], "peer": [] if theirs is None else [theirs]},
            unit="bytes",
            rooms=("core",),
            command=("bench.peers",),
        ),
        results,
    )


def cell(results: Path, case: str, rows: int, optimizer: str, *, predicted: int) -> None:
    document = {
        "schema": tables.HONESTY,
        "case": case,
        "rows": rows,
        "optimizer": optimizer,
        "predicted": {"peak": predicted * 2**20},
        "measured": {"peak": 100 * 2**20},
        "torch": "2.13.0",
        "source_hash": sources("2.13.0")["source_hash"],
        "error": predicted / 100 - 1,
        "error_above_static": predicted / 100 - 1,
    }
    path = results / "honesty" / f"{case.replace('/', '-')}-{rows}-{optimizer}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), "utf-8")


def test_a_page_is_rendered_once_and_then_stands(root: Path) -> None:
    assert render.main(["--check"], root=root) == 1
    assert render.main([], root=root) == 0
    page = (root / "README.md").read_text("utf-8")
    assert page.startswith("# Title\n\n<!-- bench:trace-speed -->\n")
    assert page.endswith("\n<!-- /bench -->\n\nThe end.\n")
    assert "| a small step | 0.25 | 0.25 to 0.25 | theirs | met |" in page
    assert render.main(["--check"], root=root) == 0
    assert render.render(page, root / "bench" / "results") == page


def test_a_figure_typed_by_hand_is_caught(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render.main([], root=root)
    page = root / "README.md"
    honest = page.read_text("utf-8")
    page.write_text(honest.replace("| 0.25 |", "| 0.15 |"), "utf-8")
    assert render.main(["--check"], root=root) == 1
    assert "README.md differs" in capsys.readouterr().err
    assert "0.15" in page.read_text("utf-8"), "a check writes nothing"
    assert render.main([], root=root) == 0
    assert page.read_text("utf-8") == honest


def test_a_new_result_makes_the_page_differ(root: Path) -> None:
    render.main([], root=root)
    speed(root / "bench" / "results", "trace-speed/small", [8.0], limit=1.0)
    assert render.main(["--check"], root=root) == 1
    render.main([], root=root)
    assert "| a small step | 2.00 | 2.00 to 2.00 | theirs | **missed** |" in (
        root / "README.md"
    ).read_text("utf-8")


def test_pages_of_docs_are_rendered_too(root: Path) -> None:
    render.main([], root=root)
    page = root / "docs" / "guides" / "deep.md"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE.format(name="peers"), "utf-8")
    assert render.main(["--check"], root=root) == 1
    render.main([], root=root)
    assert "theirs 1.0" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "page",
    [
        "<!-- bench:nothing -->\n<!-- /bench -->\n",
        "<!-- bench: -->\n<!-- /bench -->\n",
        "<!-- bench:peers -->\n",
        "<!-- /bench -->\n",
        "<!-- bench:peers -->\n<!-- bench:demo -->\n<!-- /bench -->\n",
    ],
)
def test_wrong_markers_are_told(page: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "README.md").write_text(page, "utf-8")
    assert render.main([], root=root) == 2
    assert "README.md" in capsys.readouterr().err
    assert (root / "README.md").read_text("utf-8") == page


def test_what_was_not_run_says_so(tmp_path: Path) -> None:
    assert {name: make(tmp_path) for name, make in RENDERERS.items()} == dict.fromkeys(
        RENDERERS, NOT_RUN
    )


def test_peers_are_compared_with_what_was_measured(root: Path) -> None:
    text = tables.peers(root / "bench" / "results")
    # Errors of 0 and 4 %, then one of 20 % and a failure.
    assert "| shoestring.profile | trace without data | 2.0 % | +4.0 % | 2 of 2 |" in text
    assert "| theirs 1.0 | trace without data | 20.0 % | -20.0 % | 0 of 2 |" in text


def test_the_zoo_shows_the_larger_batch_and_the_worst_of_all(root: Path) -> None:
    text = tables.honesty(root / "bench" / "results")
    assert "| alpha | 8 | 100 MiB | 101 MiB | +1.0 % | -3.0 % |" in text
    assert "**0 of 1 models** pass" in text
    assert "alpha, 8 rows, sgd: below by 3.0%" in text


def test_drawn_architectures_leave_out_those_passed_over(root: Path) -> None:
    results = root / "bench" / "results"
    folder = results / "honesty"
    cell(results, "CAUSAL_LM/one", 2, "adamw", predicted=100)
    cell(results, "MASKED_LM/two", 2, "adamw", predicted=106)
    cell(results, "MASKED_LM/third", 2, "adamw", predicted=100)
    head = {"schema": tables.HONESTY}
    (folder / "summary-random-7.json").write_text(json.dumps(head), "utf-8")
    passed = {**head, "seed": 7, "MASKED_LM/third": "died"}
    (folder / "passed-over-7.json").write_text(json.dumps(passed), "utf-8")
    text = tables.honesty_random(results)
    assert "1 of 2 architectures drawn with seed 7" in text
    assert "missed: two. 1 more" in text
    assert "third" not in text
    assert "| alpha |" not in text
    assert "CAUSAL_LM" not in tables.honesty(results)


@pytest.mark.parametrize(("seconds", "verdict"), [(9.0, "met."), (10.5, "**missed**.")])
def test_the_line_is_shown_with_what_it_printed(
    seconds: float, verdict: str, tmp_path: Path
) -> None:
    document = {
        "schema": tables.FORWARDED,
        "command": "shoestring plan thing",
        "output": "  row one\n> row two\n",
        "error": "error: nothing fits.\n",
        "samples": [seconds, seconds - 1, seconds + 1],
        "limit": 10.0,
        "rooms": ["core"],
        "source_hash": source_hash(["core"]),
        "machine": {"cpu": "one", "cores": 2},
    }
    path = tmp_path / "forwarded.json"
    path.write_text(json.dumps(document), "utf-8")
    text = tables.forwarded(tmp_path)
    assert text.startswith("```text\n$ shoestring plan thing\n\n  row one\n> row two\n\nerror:")
    assert text.endswith(verdict)
    path.write_text(json.dumps({**document, "source_hash": "0" * 16}), "utf-8")
    assert tables.forwarded(tmp_path).endswith(FOOTNOTE)


def test_the_demo_is_shown_without_its_times(tmp_path: Path) -> None:
    def run(title: str, **changes: object) -> dict[str, object]:
        return {
            "title": title,
            "limit": 9,
            "predicted": 2**20,
            "peak": 2**20,
            "resident": 3 * 2**20,
            "seconds": [9.0, 9.0, 9.0, 2.0],
            "accuracy": 0.5,
            "exit_code": 0,
            "error": "",
            **changes,
        }

    dead = run("limited", exit_code=1, seconds=[], accuracy=None, error="std::bad_alloc")
    document = {
        "schema": tables.DEMO,
        "budget": 2**21,
        "runs": [run("plain", limit=None), dead, run("shoestring", seconds=[9.0, 9.0, 9.0, 3.0])],
        "claims": [
            {"text": "it finishes", "holds": True, "figure": "finished"},
            {"text": "it fits", "holds": False, "figure": "no"},
        ],
    }
    (tmp_path / "demo.json").write_text(json.dumps(document), "utf-8")
    text = tables.demo(tmp_path)
    assert "| enforced budget | none | 2.00 MiB | 2.00 MiB |" in text
    assert "| result | finished 4 steps | killed in step 1 | finished 4 steps |" in text
    assert "| time of a step, against plain | 1.00 |  | 1.50 |" in text
    assert "- yes: it finishes (finished)" in text
    assert "- **NO**: it fits (no)" in text


def test_older_code_is_marked(root: Path) -> None:
    results = root / "bench" / "results"
    for table in ("trace-speed", "peers", "honesty"):
        assert OLDER not in RENDERERS[table](results), table
    paths = list(results.rglob("*.json"))
    for path in paths:
        document = {**json.loads(path.read_text("utf-8")), "source_hash": "0" * 16}
        path.write_text(json.dumps(document), "utf-8")
    assert f"0.25{OLDER}" in tables.trace_speed(results)
    assert f"2.0 %{OLDER}" in tables.peers(results)
    assert f"-3.0 %{OLDER}" in tables.honesty(results)
    for table in ("trace-speed", "peers", "honesty", "honesty-summary"):
        assert FOOTNOTE in RENDERERS[table](results), table


def test_real_results_render_and_times_only_against_bars() -> None:
    for name, make in RENDERERS.items():
        text = make(RESULTS)
        assert text
        assert text == text.strip()
        if name == "forwarded":
            continue  # predicted times, and a bar
        lines = [line for line in text.splitlines() if not line.endswith(("| met |", "missed** |"))]
        assert not re.search(r"\d ?(ms|s|min|CPU s)\b", "\n".join(lines))


def test_pages_equal_their_rendering() -> None:
    assert render.main(["--check"]) == 0


def test_every_table_is_on_a_page() -> None:
    shown = {name for page in render.pages() for name in render.asked(page.read_text("utf-8"))}
    assert {"honesty-random", "peers", "trace-speed", "demo", "forwarded"} <= shown
    assert shown & {"honesty", "honesty-summary"}
