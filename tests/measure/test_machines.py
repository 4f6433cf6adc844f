"""Machine sheets: each row has a source and a plausible, dense figure; this one is measured."""

from __future__ import annotations

import importlib.resources
import json

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.core.kernels import Kernel
from shoestring.core.machine import Pace
from shoestring.core.trace import Op, Phase
from shoestring.measure import host
from shoestring.measure.timing import machines
from shoestring.measure.timing.machines import (
    describe,
    free_memory,
    load_machine,
    machine_names,
    read_sheet,
)
from shoestring.measure.timing.microbench import Rates

CARDS = ("a100", "h100", "h200", "l4", "rtx-3090", "rtx-4090")
STATUS = {"datasheet", "reported", "estimate", "torch", "none"}
GIB = 2**30

# nominal GiB or GB, bandwidth in GB/s, dense bfloat16 and plain float32 in TFLOP/s
NOMINAL = {
    "a100": (80, 2039, 312, 19.5),
    "h100": (80, 3350, 989, 67),
    "h200": (141, 4800, 989, 67),
    "l4": (24, 300, 121, 30.3),
    "rtx-3090": (24, 936, 71, 35.6),
    "rtx-4090": (24, 1008, 165, 82.6),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    return tmp_path / "rates.json"


def leaves(rows, path=()):
    for key, row in rows.items():
        if "value" in row:
            yield (*path, key), row
        else:
            yield from leaves(row, (*path, key))


def test_names_are_the_files():
    assert machine_names() == ("this", *CARDS)
    folder = importlib.resources.files("shoestring.measure.timing") / "sheets"
    for file in folder.iterdir():
        document = json.loads(file.read_text("utf-8"))
        assert f"{document['name']}.json" == file.name
        assert document["schema"] == machines.SHEET_SCHEMA


@pytest.mark.parametrize("name", CARDS)
def test_every_row_has_a_source_and_a_status(name):
    rows = dict(leaves(read_sheet(name)))
    for head in ("name", "title", "device"):
        del rows[(head,)]
    assert len(rows) >= 19
    for path, row in rows.items():
        assert row["status"] in STATUS, path
        assert len(row["source"]) > 15, path
        assert "unit" in row, path
    guessed = {path for path, row in rows.items() if row["status"] == "estimate"}
    shares = {("achieved", key) for key in ("flops", "bandwidth", "link")}
    assert guessed == shares | {("op_seconds",), ("context",), ("reserve",)}


@pytest.mark.parametrize("name", CARDS)
def test_rates_are_dense(name):
    rows = read_sheet(name)
    chip = {key: row["value"] for key, row in rows["chip"].items()}
    flops = {key: row["value"] for key, row in rows["flops"].items()}
    # SMs x clock x multiply-adds a cycle x 2; a rate with sparsity is twice that.
    dense = chip["sms"] * chip["clock"] * chip["tensor_fma"] * 2
    assert flops["bfloat16"] == pytest.approx(dense, rel=0.01)
    assert flops["float16"] == flops["bfloat16"]
    assert flops["tf32"] == pytest.approx(flops["bfloat16"] / 2, rel=0.01)
    # float32 is the rate without TF32, torch's default for products.
    assert flops["float32"] <= flops["tf32"]
    assert "allow_tf32" in rows["flops"]["float32"]["note"]


@pytest.mark.parametrize("name", CARDS)
def test_figures_are_the_nominal_ones(name):
    memory, bandwidth, bfloat16, float32 = NOMINAL[name]
    rows = read_sheet(name)
    assert rows["bandwidth"]["value"] == pytest.approx(bandwidth * 1e9, rel=0.01)
    assert rows["flops"]["bfloat16"]["value"] == pytest.approx(bfloat16 * 1e12, rel=0.01)
    assert rows["flops"]["float32"]["value"] == pytest.approx(float32 * 1e12, rel=0.01)
    assert 0.9 * memory * GIB < rows["memory"]["value"] < memory * GIB
    lanes = {"h100": 64e9, "h200": 64e9}.get(name, 32e9)
    assert rows["link"]["value"] == lanes


@pytest.mark.parametrize("name", CARDS)
def test_rows_become_a_machine(name):
    rows, machine = read_sheet(name), load_machine(name)
    share = {key: row["value"] for key, row in rows["achieved"].items()}
    assert all(0.3 < value < 1 for value in share.values())
    for dtype, rate in machine.flops.items():
        assert rate == rows["flops"][dtype]["value"] * share["flops"]
    assert machine.bandwidth == rows["bandwidth"]["value"] * share["bandwidth"]
    assert machine.link == rows["link"]["value"] * share["link"]
    assert machine.memory == rows["memory"]["value"]
    assert machine.op_seconds == rows["op_seconds"]["value"]
    assert 1e-6 < machine.op_seconds < 5e-5
    assert 200 * 2**20 < machine.context == rows["context"]["value"] < 1000 * 2**20
    assert 0 < machine.reserve == rows["reserve"]["value"] < 0.2
    assert machine.block == rows["block"]["value"] == 512
    assert (machine.foreach, machine.fused_attention) == (True, True)
    assert machine.measured is rows["measured"]["value"]
    assert (machine.name, machine.device) == (name, "cuda")
    assert machine.rounded(513) == 1024
    assert machine.footprint(GIB) > GIB + machine.context


def test_foreach_is_torchs_default_on_cuda_only():
    from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

    supported = _get_foreach_kernels_supported_devices()
    assert load_machine("a100").device in supported
    assert "cpu" not in supported


@pytest.mark.parametrize(("dropout", "fused"), [(0.0, True), (0.1, False)])
def test_attention_with_dropout_is_not_fused_on_a_cpu(dropout, fused):
    query = torch.ones(1, 2, 8, 16)
    assert bool(torch._fused_sdp_choice(query, query, query, dropout_p=dropout)) is fused


@pytest.mark.parametrize(
    ("text", "name"), [("RTX 4090", "rtx-4090"), (" H200 ", "h200"), ("rtx_3090", "rtx-3090")]
)
def test_names_are_read_kindly(text, name):
    assert load_machine(text).name == name


@pytest.mark.parametrize("text", ["rtx-4091", "", "../secrets", "a100.json"])
def test_unknown_names(text):
    with pytest.raises(InputError, match="not known") as caught:
        load_machine(text)
    assert "rtx-4090" in caught.value.hint


def test_a_machine_is_returned_as_it_is():
    card = load_machine("l4")
    assert load_machine(card) is card


def test_free_memory_of_a_card_that_is_not_here():
    assert free_memory(load_machine("a100")) == load_machine("a100").memory


def test_describe_says_what_was_not_measured():
    text = describe(load_machine("rtx-4090"))
    assert "not yet measured on CUDA" in text
    assert "140 TFLOP/s" in text
    assert "estimates" in text
    assert "512 B" in text


# --- this machine ----------------------------------------------------------------------------


def test_this_machine_is_measured_once_and_disturbs_nothing(cache):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    machine = load_machine()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert machine.name == "this"
    assert machine == load_machine("this")
    assert set(machine.flops) == {"float32", "bfloat16", "float16", "float64"}
    assert all(1e7 < rate < 1e16 for rate in machine.flops.values())
    assert 1e8 < machine.bandwidth < 1e13
    assert 1e-7 < machine.op_seconds < 1e-2
    if machine.device == "cpu":
        assert set(machine.paces) == set(Kernel)
    assert cache.exists()
    assert "source" in describe(machine)
    if machine.device == "cpu":
        assert machine.memory == host.total_memory()
        assert 0 < free_memory(machine) <= machine.memory
        assert (machine.block, machine.context, machine.reserve) == (1, 0, 0.0)
        assert machine.footprint(GIB) == GIB
        assert (machine.foreach, machine.fused_attention) == (False, False)


def test_rates_order_operations_as_they_are(cache):
    machine = load_machine()
    large = Op("aten.mm.default", Phase.FORWARD, "", flops=2 * 2048**3, bytes_read=3 * 2048**2 * 4)
    small = Op("aten.mm.default", Phase.FORWARD, "", flops=2 * 8**3, bytes_read=3 * 8**2 * 4)
    assert machine.seconds(large) > 10 * machine.seconds(small) > 0


def kept(path):
    machines._rates.cache_clear()
    found = machines._rates("cpu", torch.get_num_threads(), path)
    machines._rates.cache_clear()
    return found


def test_what_is_kept(cache, monkeypatch):
    quiet = Rates({"float32": 2.0}, 3.0, 4.0)
    noisy = Rates({"float32": 1.0}, 9.0, 1.0, quiet=False)
    results = iter([noisy, noisy, quiet])
    monkeypatch.setattr(machines, "measure_rates", lambda device: next(results))
    assert kept(cache) == noisy
    assert kept(cache) == noisy
    best = Rates({"float32": 2.0}, 9.0, 1.0)
    assert kept(cache) == best
    assert kept(cache) == best  # read from disk: there is no fourth result
    cache.write_text(cache.read_text().replace("2.0", '"fast"'), "utf-8")
    results = iter([quiet])
    assert kept(cache) == quiet  # a damaged row is measured again
    cache.write_text("{", "utf-8")
    results = iter([quiet])
    assert kept(cache) == quiet


def test_a_busy_machine_is_tried_three_times(cache, monkeypatch):
    noisy = Rates({"float32": 1.0}, 9.0, 1.0, quiet=False)
    results = iter([noisy] * 3)
    monkeypatch.setattr(machines, "measure_rates", lambda device: next(results))
    assert [kept(cache) for _ in range(5)] == [noisy] * 5


def test_paces_are_kept(cache, monkeypatch):
    found = Rates(
        {"float32": 2.0}, 3.0, 4.0,
        paces={Kernel.NORM: Pace(1.0, 5.0, 0.0)}, op_costs={Phase.BACKWARD: 0.5},
    )  # fmt: skip
    results = iter([found])
    monkeypatch.setattr(machines, "measure_rates", lambda device: next(results))
    assert kept(cache) == found
    assert kept(cache) == found  # read from disk
    monkeypatch.setattr(machines, "_rates", lambda *_: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine = load_machine()
    assert (machine.paces, machine.op_costs) == (found.paces, found.op_costs)
    assert machine.op_cost(Phase.BACKWARD) == 0.5
    assert machine.op_cost(Phase.FORWARD) == machine.op_seconds == 4.0


@pytest.mark.parametrize(
    "damage",
    [
        {"paces": {"gravel": [1.0, 5.0, 0.0]}},
        {"paces": {"normalisation": [1.0, 0.0, 0.0]}},
        {"paces": {"normalisation": [1.0, 5.0]}},
        {"paces": {"normalisation": [1.0, 5.0, -1.0]}},
        {"op_costs": {"backward": "cheap"}},
        {"op_costs": {"sideways": 1.0}},
        {"tries": "many"},
        {"more": 1},
    ],
)
def test_a_damaged_row_is_measured_again(cache, monkeypatch, damage):
    good = Rates({"float32": 2.0}, 3.0, 4.0, paces={Kernel.NORM: Pace(1.0, 5.0, 0.0)})
    results = iter([good, good])
    monkeypatch.setattr(machines, "measure_rates", lambda device: next(results))
    kept(cache)
    document = json.loads(cache.read_text("utf-8"))
    for row in document["rows"].values():
        row.update(damage)
    cache.write_text(json.dumps(document), "utf-8")
    assert kept(cache) == good
    assert next(results, None) is None  # the second one was asked for


# --- what the system says --------------------------------------------------------------------


def test_limits_of_the_process_bound_what_is_free():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if before[0] != resource.RLIM_INFINITY:
        pytest.skip("a limit is set already")
    used = host._status_row("VmData")
    if not used:
        pytest.skip("the system does not say what is used")
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (used + 300 * 2**20, before[1]))
        assert 200 * 2**20 < host.free_memory() <= 300 * 2**20
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    ("names", "lines", "expected"),
    [
        (("memory.max", "memory.current"), "inactive_file 100\n", 1000 - (600 - 100)),
        (("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file 0\n", 400),
    ],
)
def test_limits_of_the_container_bound_what_is_free(tmp_path, monkeypatch, names, lines, expected):
    (tmp_path / names[0]).write_text("1000\n")
    (tmp_path / names[1]).write_text("600\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\n{lines}")
    unlimited = tmp_path / "inner"
    unlimited.mkdir()
    (unlimited / "memory.max").write_text("max\n")
    monkeypatch.setattr(host, "_cgroup_folders", lambda: [unlimited, tmp_path])
    assert host.free_memory() == expected
    assert host.total_memory() == 1000


def test_memory_is_told():
    assert host.total_memory() > 2**28
    assert 0 < host.free_memory() <= host.total_memory()
    assert host.cpu_name()
