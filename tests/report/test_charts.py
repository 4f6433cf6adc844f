"""In Chromium: what is drawn is what the JSON says, in every look, offline and without errors."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoestring.core.run_folder import Entry, RunFolder
from shoestring.report import write_report
from shoestring.report.figure import KIND_COLOURS
from tests.report import browser, runs

NUMBER = r"-?[0-9.]+(?:e-?\d+)?"
Point = tuple[float, float]


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, source: runs.Made, log: list[Entry]
) -> list[Path]:
    home = tmp_path_factory.mktemp("runs")
    begun = {"status": "running", "step": 18, "measured": {}}
    return [
        runs.write(home / "first", source, log),
        runs.write(home / "second", source, log[:20], **begun),
    ]


@pytest.fixture
def tab(chromium: browser.Browser) -> Iterator[browser.Page]:
    page = chromium.page()
    yield page
    page.send("Page.close")


@pytest.fixture
def drawn(tab: browser.Page, folders: list[Path]) -> browser.Page:
    """The page of the first run, drawn at 1280 px."""
    tab.resize(1280)
    tab.open(write_report(folders[:1]))
    return tab


def spec(page: browser.Page, ident: str) -> dict[str, object]:
    found = json.loads(str(page.evaluate(f"document.getElementById('{ident}-spec').textContent")))
    assert isinstance(found, dict)
    return found


def data(page: browser.Page, ident: str, name: str) -> list[dict[str, object]]:
    sets = spec(page, ident)["datasets"]
    assert isinstance(sets, dict)
    return list(sets[name])


def marks(page: browser.Page, ident: str, kind: str) -> list[dict[str, str]]:
    """Return the attributes of the marks of a kind, as the browser holds them."""
    code = f"""
        [...document.querySelectorAll('#{ident} .mark-{kind}.role-mark > *')].map(
            (e) => Object.fromEntries([...e.attributes].map((a) => [a.name, a.value])))
    """
    found = page.evaluate(code)
    assert isinstance(found, list)
    return found


def vertices(path: str) -> list[Point]:
    return [(float(x), float(y)) for x, y in re.findall(rf"({NUMBER}),({NUMBER})", path)]


def places(found: list[dict[str, str]]) -> list[Point]:
    return [vertices(mark["transform"])[0] for mark in found]


def label(mark: dict[str, str]) -> dict[str, str]:
    return dict(part.split(": ", 1) for part in mark["aria-label"].split("; "))


def numbers(points: list[dict[str, object]], name: str) -> list[float]:
    return [float(str(point[name])) for point in points]


def assert_linear(values: list[float], pixels: list[float], *, rising: bool) -> None:
    """Every value stands where a linear axis through two of them puts it."""
    low, high = values.index(min(values)), values.index(max(values))
    slope = (pixels[high] - pixels[low]) / (values[high] - values[low])
    assert (slope > 0) == rising
    assert abs(pixels[high] - pixels[low]) > 50
    for value, pixel in zip(values, pixels, strict=True):
        assert pixel == pytest.approx(pixels[low] + slope * (value - values[low]), abs=0.01)


@pytest.mark.parametrize("step", ["plain", "planned"])
def test_the_areas_are_the_bytes(drawn: browser.Page, source: runs.Made, step: str) -> None:
    ident = f"run-memory-{step}"
    memory = getattr(source.timeline, step)
    areas = marks(drawn, ident, "area")
    kinds = {name: sizes for name, sizes in memory.kinds.items() if any(sizes)}
    seen = {
        name
        for m in (source.timeline.plain, source.timeline.planned)
        for name, sizes in m.kinds.items()
        if any(sizes)
    }
    assert {mark["fill"] for mark in areas} == {KIND_COLOURS[name] for name in seen}
    layers = spec(drawn, ident)["layer"]
    assert isinstance(layers, list)
    top = layers[0]["encoding"]["y"]["scale"]["domain"][1]
    by_colour = {mark["fill"]: vertices(mark["d"]) for mark in areas}
    for name, sizes in kinds.items():
        corners = by_colour[KIND_COLOURS[name]]
        assert len(corners) == 2 * len(sizes)
        upper, lower = corners[: len(sizes)], corners[: len(sizes) - 1 : -1]
        for size, (x, above), (also_x, below) in zip(sizes, upper, lower, strict=True):
            assert x == also_x
            assert below - above == pytest.approx(240 * size / top, abs=0.01)
    # They are stacked without gaps: the highest edge of all is the peak.
    edge = min(y for corners in by_colour.values() for _, y in corners)
    assert 240 * (1 - memory.peak / top) == pytest.approx(edge, abs=0.01)


def test_both_steps_have_one_scale_and_the_budget_is_on_it(
    drawn: browser.Page, source: runs.Made
) -> None:
    assert source.plan.budget is not None
    tops = set()
    for step in ("plain", "planned"):
        ident = f"run-memory-{step}"
        layers = spec(drawn, ident)["layer"]
        assert isinstance(layers, list)
        top = layers[0]["encoding"]["y"]["scale"]["domain"][1]
        tops.add(top)
        (rule,) = marks(drawn, ident, "rule")
        (_, y), *_ = vertices(rule["transform"])
        assert y == pytest.approx(240 * (1 - source.plan.budget / top), abs=0.51)
        texts = drawn.evaluate(f"document.getElementById('{ident}').textContent")
        assert "budget 2.59 MiB" in str(texts)
    assert len(tops) == 1


def test_the_strip_is_the_phases(drawn: browser.Page, source: runs.Made) -> None:
    for step in ("plain", "planned"):
        phases = getattr(source.timeline, step).phases
        strip = marks(drawn, f"run-memory-{step}", "rect")
        assert [label(mark)["phase"] for mark in strip] == [p for p, _ in itertools.groupby(phases)]


def test_the_curves_are_the_log(drawn: browser.Page, log: list[Entry]) -> None:
    lines = marks(drawn, "run-0-curve", "line")
    dots = marks(drawn, "run-0-curve", "symbol")
    expected = {kind: [e for e in log if e.kind == kind] for kind in ("train", "eval")}
    assert [len(vertices(line["d"])) for line in lines] == [len(e) for e in expected.values()]
    entries = [entry for part in expected.values() for entry in part]
    assert len(dots) == len(entries)
    values = [entry.values["loss"] for entry in entries]
    for mark, entry in zip(dots, entries, strict=True):
        said = label(mark)
        assert (said["name"], int(said["step"])) == (entry.kind, entry.step)
        assert float(said["value"]) == pytest.approx(entry.values["loss"], rel=1e-9)
    assert_linear(values, [y for _, y in places(dots)], rising=False)
    assert_linear([e.step for e in entries], [x for x, _ in places(dots)], rising=True)
    on_lines = [point for line in lines for point in vertices(line["d"])]
    for (x, y), (line_x, line_y) in zip(places(dots), on_lines, strict=True):
        assert (x, y) == (pytest.approx(line_x, abs=0.01), pytest.approx(line_y, abs=0.01))


def test_every_value_of_the_log_has_a_chart(drawn: browser.Page, log: list[Entry]) -> None:
    names = {name for entry in log for name in entry.values}
    assert drawn.evaluate("document.querySelectorAll('[id$=-curve] svg').length") == len(names)


def test_the_plans_are_where_they_cost(drawn: browser.Page, source: runs.Made) -> None:
    plan = source.plan
    points = data(drawn, "run-pareto", "points")
    dots = marks(drawn, "run-pareto", "symbol")
    assert len(dots) == len(points)
    assert {row.label for row in plan.pareto} <= {str(point["label"]) for point in points}
    sizes = numbers(points, "bytes")
    assert_linear(sizes, [x for x, _ in places(dots)], rising=True)
    assert_linear(numbers(points, "seconds"), [y for _, y in places(dots)], rising=False)
    (chosen,) = (mark for mark in dots if label(mark)["role"] == "chosen")
    assert int(label(chosen)["memory"]) == plan.predicted.footprint
    (rule,) = marks(drawn, "run-pareto", "rule")
    assert plan.budget is not None
    (x, _), *_ = vertices(rule["transform"])
    (low, low_x), (high, high_x) = ((f(sizes), f(x for x, _ in places(dots))) for f in (min, max))
    expected = low_x + (plan.budget - low) / (high - low) * (high_x - low_x)
    assert x == pytest.approx(expected, abs=0.51)


@pytest.mark.parametrize("which", ["bytes", "flops"])
def test_the_bars_are_as_long_as_they_should_be(
    drawn: browser.Page, source: runs.Made, which: str
) -> None:
    bars = data(drawn, f"run-{which}", "bars")
    found = marks(drawn, f"run-{which}", "rect")
    assert len(found) == len(bars)
    lengths = [float(re.search(rf"h({NUMBER})v", mark["d"])[1]) for mark in found]  # type: ignore[index]
    values = [float(label(mark)["value"]) for mark in found]
    assert sorted(values) == sorted(numbers(bars, "value"))
    scale = max(lengths) / values[lengths.index(max(lengths))]
    assert lengths == pytest.approx([scale * value for value in values], abs=0.01)
    (whole,) = (row for row in source.timeline.modules if row["path"] == "")
    names = ("flops",) if which == "flops" else ("parameters", "gradients", "optimizer", "saved")
    assert sum(values) == sum(float(whole[name]) for name in names)


def test_losses_of_several_runs_are_on_one_chart(
    tab: browser.Page, folders: list[Path], log: list[Entry], tmp_path: Path
) -> None:
    tab.resize(1280)
    tab.open(write_report(folders, tmp_path / "both.html"))
    lines = marks(tab, "runs-curve", "line")
    counts = [
        sum(e.kind == kind for e in part) for kind in ("train", "eval") for part in (log, log[:20])
    ]
    assert [len(vertices(line["d"])) for line in lines] == counts
    assert len({line["stroke"] for line in lines}) == 2
    assert tab.errors == []


# --- looks ---------------------------------------------------------------------------------

LOOKS = [(1280, False), (1280, True), (390, False), (390, True)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_it_is_drawn_in_every_look(
    chromium: browser.Browser,
    tab: browser.Page,
    folders: list[Path],
    tmp_path: Path,
    width: int,
    dark: bool,
    count: int,
) -> None:
    out = write_report(folders[:count], tmp_path / "page.html")
    tab.resize(width, phone=width < 500)
    tab.media(dark=dark)
    tab.open(out)
    assert tab.evaluate("document.documentElement.dataset.charts") == "drawn"
    assert tab.errors == []
    assert tab.requests == [out.as_uri()]
    plots = tab.evaluate("document.querySelectorAll('[data-spec]').length")
    assert tab.evaluate("document.querySelectorAll('[data-spec] svg').length") == plots
    assert int(str(plots)) >= 9
    assert int(str(tab.evaluate("document.scrollingElement.scrollWidth"))) <= width
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(FAINT) == []
    found = picture(chromium, tab.capture(tmp_path / "page.png"))
    assert found["width"] == width
    assert int(str(found["height"])) > 1500
    assert found["paper"] == ("#14171b" if dark else "#fcfcfb")
    # The opaque bars show these colours as they are.
    expected = {KIND_COLOURS[name] for name in ("parameters", "saved activations", "gradients")}
    assert isinstance(found["seen"], list)
    assert expected <= set(found["seen"])


OUTSIDE = """
    [...document.querySelectorAll('main *')].filter((e) => {
        const box = e.getBoundingClientRect();
        return box.width && box.right > innerWidth + 0.5 && !e.closest('.scroll, svg');
    }).map((e) => e.outerHTML.slice(0, 100))
"""

# Texts with less contrast than 4.5 against what is behind them.
FAINT = """
    (() => {
        const read = (text) => (text.match(/[0-9.]+/g) || []).map(Number);
        const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
            const part = c[i] / 255;
            const linear = part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
            return sum + weight * linear;
        }, 0);
        const behind = (e) => {
            for (let one = e; one; one = one.parentElement) {
                const colour = read(getComputedStyle(one).backgroundColor);
                if (colour.length === 3 || colour[3] > 0) return colour;
            }
            return [255, 255, 255];
        };
        const faint = [];
        for (const e of document.querySelectorAll('body *:not(script):not(noscript)')) {
            const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
            if (!own || !e.getClientRects().length) continue;
            const style = getComputedStyle(e);
            const colour = read(e.closest('svg') ? style.fill : style.color);
            const [a, b] = [light(colour), light(behind(e))].sort((x, y) => y - x);
            if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(e.outerHTML.slice(0, 100));
        }
        return faint;
    })()
"""


PICTURE = """
    (async () => {
        const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes], {type: "image/png"}));
        const canvas = new OffscreenCanvas(image.width, image.height);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, image.width, image.height).data;
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4) {
            seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
        }
        const hex = (n) => "#" + n.toString(16).padStart(6, "0");
        const corner = (data[0] << 16) | (data[1] << 8) | data[2];
        return {width: image.width, height: image.height, paper: hex(corner),
                seen: [...seen].map(hex)};
    })()
"""


def picture(chromium: browser.Browser, data: bytes) -> dict[str, object]:
    """Return size, colour of the upper left corner, and all colours of a capture."""
    blank = chromium.page()
    found = blank.evaluate(PICTURE % base64.b64encode(data).decode())
    blank.send("Page.close")
    assert isinstance(found, dict)
    return found


# --- use -----------------------------------------------------------------------------------


def test_long_names_do_not_widen_the_page(
    tab: browser.Page, source: runs.Made, log: list[Entry], tmp_path: Path
) -> None:
    long = "a" * 300
    named = [Entry(e.step, e.kind, {**e.values, long: 1.0 + e.step}) for e in log]
    changes = dict.fromkeys(("model", "task", "note", "command", "machine"), long)
    folder = runs.write(tmp_path / long[:200], source, named, data={long: long}, **changes)
    tab.resize(390, phone=True)
    tab.open(write_report([folder]))
    assert int(str(tab.evaluate("document.scrollingElement.scrollWidth"))) <= 390
    assert tab.evaluate(OUTSIDE) == []


def test_hostile_names_do_nothing(
    tab: browser.Page, source: runs.Made, log: list[Entry], tmp_path: Path
) -> None:
    bad = "<img src=x onerror=document.title='bad'><script>document.title='bad'</script>"
    named = [Entry(e.step, e.kind, {**e.values, bad: 1.0 + e.step}) for e in log]
    folder = runs.write(tmp_path / "run", source, named, model=bad, note=bad, command=bad)
    timeline = RunFolder(folder).timeline()
    timeline.modules.append({**timeline.modules[0], "path": bad.replace(".", "")})
    RunFolder(folder).write_timeline(timeline)
    tab.resize(1280)
    tab.open(write_report([folder]))
    assert tab.errors == []
    assert tab.requests == [(folder / "report.html").as_uri()]
    assert str(tab.evaluate("document.title")).startswith("Training run of <img")
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    (bar,) = marks(tab, "run-bytes", "rect")[:1]
    x = tab.evaluate(
        "document.querySelector('#run-bytes .mark-rect path').getBoundingClientRect().x"
    )
    y = tab.evaluate(
        "document.querySelector('#run-bytes .mark-rect path').getBoundingClientRect().y"
    )
    # A tooltip is markup made from data: it must be text too.
    tab.evaluate("document.querySelector('#run-bytes').scrollIntoView({block: 'center'})")
    y = tab.evaluate(
        "document.querySelector('#run-bytes .mark-rect path').getBoundingClientRect().y"
    )
    tab.send(
        "Input.dispatchMouseEvent", type="mouseMoved", x=float(str(x)) + 2, y=float(str(y)) + 3
    )
    assert "<" in label(bar)["label"]
    assert "<img" in str(tab.evaluate("document.getElementById('vg-tooltip-element').textContent"))
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    assert tab.errors == []


def test_the_keyboard_reaches_everything_and_shows_where_it_is(drawn: browser.Page) -> None:
    seen = []
    for _ in range(60):
        drawn.send("Input.dispatchKeyEvent", type="keyDown", key="Tab", windowsVirtualKeyCode=9)
        drawn.send("Input.dispatchKeyEvent", type="keyUp", key="Tab", windowsVirtualKeyCode=9)
        at = drawn.evaluate(
            "(() => { const e = document.activeElement; return [e.tagName, e.className,"
            " getComputedStyle(e).outlineStyle, e.textContent.slice(0, 30)]; })()"
        )
        assert isinstance(at, list)
        if at[0] == "BODY":
            break
        seen.append(at)
    assert seen[0][3] == "Skip to the content"
    assert all(outline == "solid" for _, _, outline, _ in seen)
    folded = drawn.evaluate("document.querySelectorAll('summary').length")
    assert sum(name == "SUMMARY" for name, _, _, _ in seen) == folded
    assert sum(name == "A" for name, _, _, _ in seen) == 7


def test_a_screen_reader_is_told_of_charts_and_tables(drawn: browser.Page) -> None:
    nodes = drawn.send("Accessibility.getFullAXTree")["nodes"]
    assert isinstance(nodes, list)
    roles = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    charts = [name for role, name in roles if role in ("image", "img")]
    assert len(charts) == drawn.evaluate("document.querySelectorAll('[data-spec]').length")
    assert any("the peak of 4.32 MiB is in backward" in name for name in charts)
    assert [name for role, name in roles if role == "main"] == [""]
    assert ("region", "Memory") in roles
    assert ("table", "Ways to run the step, predicted") in roles
    assert not any("graphics" in role for role, _ in roles)


def test_it_can_be_printed(drawn: browser.Page) -> None:
    drawn.media(dark=True, print_=True)
    assert drawn.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert drawn.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert drawn.printed().startswith(b"%PDF")
    assert drawn.errors == []
    assert drawn.evaluate("document.querySelectorAll('details[open]').length") == 0


def test_without_scripts_the_tables_are_there(
    tab: browser.Page, folders: list[Path], log: list[Entry]
) -> None:
    out = write_report(folders[:1])
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.send("Page.navigate", url=out.as_uri())
    text = ""
    for _ in range(100):
        time.sleep(0.05)
        tree = tab.send("DOM.getDocument", depth=0)["root"]
        assert isinstance(tree, dict)
        with contextlib.suppress(RuntimeError):  # the document may change in between
            text = str(tab.send("DOM.getOuterHTML", nodeId=tree["nodeId"])["outerHTML"])
        if "</footer>" in text:
            break
    assert "The charts need JavaScript" in text
    table = re.search(r"<caption>loss by step</caption>.*?</table>", text, re.DOTALL)
    assert table
    assert table[0].count("<tr") == 1 + sum(entry.kind == "train" for entry in log)
