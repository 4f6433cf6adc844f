"""What kernels hold beside inputs and outputs: probed, cached, and never in the way."""

from __future__ import annotations

import json
import time

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from shoestring.measure._torch import record_allocations
from shoestring.measure.cache import read_cache
from shoestring.measure.tracing.workspace import SCHEMA, Workspace, WorkspaceProbe

aten = torch.ops.aten


class Noting(TorchDispatchMode):
    """Shows every call to a probe, as the tracer does."""

    def __init__(self, probe: WorkspaceProbe) -> None:
        super().__init__()
        self.probe, self.calls, self.seconds = probe, 0, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = time.perf_counter()
        self.probe.note(func, args, kwargs or {})
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def probe(tmp_path) -> WorkspaceProbe:
    return WorkspaceProbe(tmp_path / "workspaces.json")


def probed(probe: WorkspaceProbe, func, *args, **kwargs) -> Workspace:
    key = probe.note(func, args, kwargs)
    assert key is not None
    return probe.resolve()[key]


def allocated(func, *args, **kwargs) -> tuple[int, int]:
    """Peak and end of the blocks that one call makes, read by hand."""
    func(*args, **kwargs)
    with record_allocations() as events:
        out = func(*args, **kwargs)
        live = out  # noqa: F841 - the output must outlive the call
    own: dict[int, int] = {}
    peak = 0
    for event in events:
        if event.nbytes > 0:
            own[event.address] = event.nbytes
        else:
            own.pop(event.address, None)
        peak = max(peak, sum(own.values()))
    return peak, sum(own.values())


def convolution_args(*, dtype=torch.float32):
    x, weight = torch.ones(4, 8, 32, 32, dtype=dtype), torch.ones(16, 8, 3, 3, dtype=dtype)
    return x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1


def test_convolution_equals_the_allocators_account(probe):
    args = convolution_args()
    found = probed(probe, aten.convolution.default, *args)
    peak, end = allocated(aten.convolution.default, *args)
    assert found.outputs == (4 * 16 * 32 * 32 * 4,)
    assert found.transient == peak - end > 0
    assert 0 < found.seconds < 10


def test_a_kernel_that_holds_nothing(probe):
    found = probed(probe, aten.cat.default, [torch.ones(10), torch.ones(20)])
    assert (found.transient, found.outputs) == (0, (120,))


def test_a_product_of_strange_strides_copies(probe):
    straight = probed(probe, aten.bmm.default, torch.ones(3, 64, 64), torch.ones(3, 64, 64))
    every_other = torch.ones(3, 64, 128)[:, :, ::2]
    copied = probed(probe, aten.bmm.default, every_other, torch.ones(3, 64, 64))
    assert straight.transient == 0
    peak, end = allocated(aten.bmm.default, every_other, torch.ones(3, 64, 64))
    assert copied.transient == peak - end > 0


def test_mixed_types_are_copied_to_the_common_one(probe):
    integers = torch.ones(1000, dtype=torch.int64)
    found = probed(probe, aten.mul.Tensor, integers, torch.ones(1000))
    assert found.outputs == (4000,)
    assert found.transient == 4000


def test_one_type_needs_no_probe(probe):
    x = torch.ones(1000)
    for func, args in (
        (aten.mul.Tensor, (x, x)),
        (aten.add_.Tensor, (x, x)),
        (aten.gelu.default, (x,)),
        (aten.tanh_backward.default, (x, x)),
    ):
        assert probe.note(func, args, {}) is None
        peak, end = allocated(func, *args)
        assert peak == end, func  # and rightly so


def test_views_lists_and_factories_need_no_probe(probe):
    x = torch.ones(4, 4)
    assert probe.note(aten.view.default, (x, [16]), {}) is None
    assert probe.note(aten.t.default, (x,), {}) is None
    assert probe.note(aten.detach.default, (x,), {}) is None
    assert probe.note(aten._foreach_add_.List, ([x], [x]), {}) is None
    assert probe.note(aten.zeros.default, ([4],), {}) is None
    assert probe.resolve() == {}
    assert probe.skipped == []


def test_in_place_and_out_make_no_outputs(probe):
    left, right, out = torch.ones(8, 16), torch.ones(16, 4), torch.ones(8, 4)
    assert probed(probe, aten.addmm_.default, out, left, right).outputs == ()
    assert probed(probe, aten.mm.out, left, right, out=out).outputs == ()


def test_lists_with_holes_and_indices(probe):
    x, index = torch.ones(5, 7, 3), torch.tensor([0, 4, 1])
    assert probed(probe, aten.index.Tensor, x, [None, index]).outputs == (5 * 3 * 3 * 4,)
    holes = probed(probe, aten.index_put.default, x, [None, index], torch.ones(5, 3, 3), True)
    assert holes.outputs == (5 * 7 * 3 * 4,)
    assert probed(probe, aten.stack.default, [x, x], 1).outputs == (2 * 5 * 7 * 3 * 4,)


def test_recurrent_layers_have_a_workspace_that_fakes_do_not_show(probe):
    x = torch.ones(20, 8, 16)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = nn.LSTM(16, 32)
        with Noting(probe):
            model(torch.empty_like(x))[0].sum().backward()
    spaces = {key.name: space for key, space in probe.resolve().items()}
    assert probe.skipped == []
    forward = spaces["aten::mkldnn_rnn_layer"]
    assert forward.outputs[0] == 20 * 8 * 32 * 4
    assert forward.outputs[3] > forward.outputs[0]
    assert spaces["aten::mkldnn_rnn_layer_backward"].transient > 0


def test_random_numbers_threads_and_modes_stay_as_they_were(probe):
    x = torch.ones(100)
    probe.note(aten.native_dropout.default, (x, 0.5, True), {})
    probe.note(aten.bernoulli_.float, (x, 0.5), {})
    probe.note(aten.mm.default, (torch.ones(3, 3), torch.ones(3, 3)), {})
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.no_grad():
        assert len(probe.resolve()) == 3
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.equal(x, torch.ones(100))  # the caller's tensors are not used


def test_limits(tmp_path):
    tight = WorkspaceProbe(tmp_path / "a.json", limit_bytes=1000)
    assert tight.note(aten.mm.default, (torch.ones(20, 20), torch.ones(20, 20)), {}) is not None
    assert tight.resolve() == {}
    assert tight.skipped == [("aten::mm", 1, "too large to run")]
    # A small input may have a large output.
    wide = WorkspaceProbe(tmp_path / "b.json", limit_bytes=1_000_000)
    wide.note(aten.mm.default, (torch.ones(1000, 1), torch.ones(1, 1000)), {})
    assert wide.resolve() == {}
    slow = WorkspaceProbe(tmp_path / "c.json", limit_flops=100)
    slow.note(aten.mm.default, (torch.ones(20, 20), torch.ones(20, 20)), {})
    assert slow.resolve() == {}
    assert [row.name for row in slow.skipped] == ["aten::mm"]
    hasty = WorkspaceProbe(tmp_path / "d.json", limit_seconds=0.0)
    hasty.note(aten.mm.default, (torch.ones(2, 2), torch.ones(2, 2)), {})
    assert hasty.resolve() == {}
    assert hasty.skipped[0].reason == "no time left"
    patient = WorkspaceProbe(tmp_path / "d.json")  # that reason is not kept
    patient.note(aten.mm.default, (torch.ones(2, 2), torch.ones(2, 2)), {})
    assert len(patient.resolve()) == 1


def test_what_cannot_run_is_skipped_with_its_reason(probe):
    probe.note(aten.linalg_cholesky_ex.default, (torch.ones(2, 3),), {})
    probe.note(aten.mm.default, (torch.ones(2, 3), torch.ones(3, 2)), {})
    assert [key.name for key in probe.resolve()] == ["aten::mm"]
    (skipped,) = probe.skipped
    assert (skipped.name, skipped.calls) == ("aten::linalg_cholesky_ex", 1)
    assert "RuntimeError" in skipped.reason


def test_operators_of_others_are_not_run(probe):
    ran = []

    @torch.library.custom_op("shoestring_test::writes_a_file", mutates_args=())
    def writes_a_file(x: torch.Tensor) -> torch.Tensor:
        ran.append(x)
        return x.clone()

    func = torch.ops.shoestring_test.writes_a_file.default
    assert probe.note(func, (torch.ones(3),), {}) is None
    assert probe.resolve() == {}
    assert ran == []
    assert probe.skipped == [(func.name(), 1, "not an operator of torch")]


def test_another_profiler_is_no_error(probe):
    probe.note(aten.mm.default, (torch.ones(2, 2), torch.ones(2, 2)), {})
    with torch.autograd.profiler.profile():
        assert probe.resolve() == {}
    assert probe.skipped[0].reason == "the allocator could not be watched"


def test_second_time_is_read_from_disk(tmp_path):
    path = tmp_path / "deep" / "workspaces.json"
    args = convolution_args()
    first = WorkspaceProbe(path)
    found = probed(first, aten.convolution.default, *args)
    second = WorkspaceProbe(path)
    second._measure = None  # calling it would raise
    assert probed(second, aten.convolution.default, *args) == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace("workspaces/1", "workspaces/0"),
        lambda text: "[" * 100_000,
        lambda text: json.dumps({"schema": SCHEMA, "rows": 3}),
        lambda text: text.replace('":[', '":["x",'),
        lambda text: text.replace('":[', '":[-1,'),
        lambda text: "\x00\xff",
    ],
)
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    path = tmp_path / "workspaces.json"
    args = convolution_args()
    found = probed(WorkspaceProbe(path), aten.convolution.default, *args)
    path.write_text(damage(path.read_text()), "utf-8")
    again = probed(WorkspaceProbe(path), aten.convolution.default, *args)
    assert (again.transient, again.outputs) == (found.transient, found.outputs)
    (rows,) = read_cache(path, SCHEMA).values()
    assert [row[0] for row in rows.values()] == [found.transient]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    probe = WorkspaceProbe(tmp_path / "file" / "workspaces.json")
    assert probed(probe, aten.convolution.default, *convolution_args()).transient > 0


def test_the_key_tells_numbers_apart(probe):
    x = torch.ones(4, dtype=torch.int64)
    keys = [probe.note(aten.mul.Scalar, (x, n), {}) for n in (1, 1.0, True)]
    assert len(set(keys)) == 3
    assert probe.note(aten.mul.Scalar, (torch.zeros(4, dtype=torch.int64), 1), {}) == keys[0]


def test_a_training_step_costs_little(probe):
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)
    with Noting(probe) as mode:
        for _ in range(2):
            layer(torch.ones(8, 32, 64)).sum().backward()
    assert mode.seconds / mode.calls < 30e-6
    start = time.perf_counter()
    spaces = probe.resolve()
    assert time.perf_counter() - start < 5
    assert len(spaces) > 5
    assert probe.skipped == []
    again = WorkspaceProbe(probe._path)
    for call, func in probe._calls.items():
        again._calls[call] = func
    start = time.perf_counter()
    assert again.resolve() == spaces
    assert time.perf_counter() - start < 0.1
