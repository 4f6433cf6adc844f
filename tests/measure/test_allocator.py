"""The measured peak of steps whose peak is known by hand."""

from __future__ import annotations

import pytest
import torch

from shoestring.core.errors import InputError
from shoestring.measure import _torch
from shoestring.measure.tracing.allocator import measure_step, standing, steady_step

N = 1000
BYTES = 4 * N
needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


def nothing() -> list[torch.Tensor]:
    return []


def test_peak_of_a_chain_is_what_is_alive_at_once() -> None:
    def step() -> None:
        x = torch.empty(N)
        y = x.neg()
        del x
        z = y.neg()
        w = z.neg()  # y, z and w
        del y, z, w
        torch.empty(2 * N)

    measured = measure_step(step, roots=nothing)
    assert measured.peak == 3 * BYTES
    assert measured.static == 0
    assert measured.events == 2 * 5


def test_roots_count_once_however_many_views_share_them() -> None:
    x = torch.ones(N)

    def step() -> None:
        y = x.neg()
        y.neg()

    measured = measure_step(step, roots=lambda: [x, x[: N // 2], x.view(10, -1)])
    assert measured.static == BYTES
    assert measured.peak == 3 * BYTES


def test_a_view_is_no_allocation() -> None:
    def step() -> None:
        x = torch.empty(N)
        views = [x.view(10, -1), x[3:], x.detach()]
        del x
        views.append(views[0].t())

    assert measure_step(step, roots=nothing).peak == BYTES


def test_a_block_from_before_that_is_no_root_never_makes_the_sum_negative() -> None:
    kept = [torch.ones(8 * N)]
    for _ in range(2):  # the second block is made under a profiler, so that its end is reported

        def step() -> None:
            kept.clear()
            x = torch.empty(N)
            kept.append(x.neg())

        assert measure_step(step, roots=nothing).peak == 2 * BYTES


def test_a_root_freed_in_view_of_the_profiler_is_counted_until_then() -> None:
    kept: list[torch.Tensor] = []

    def fill() -> None:
        kept.append(torch.empty(5 * N))

    def step() -> None:
        kept.clear()
        kept.append(torch.empty(N))
        kept.append(torch.empty(N))

    measure_step(fill, roots=nothing)
    measured = measure_step(step, roots=lambda: list(kept))
    assert measured.static == 5 * BYTES
    assert measured.peak == 5 * BYTES


@needs_onednn
def test_the_workspace_inside_an_operation_is_seen() -> None:
    image, weight = torch.ones(4, 8, 32, 32), torch.ones(8, 8, 3, 3)
    out = 4 * 4 * 8 * 30 * 30

    def step() -> None:
        torch.nn.functional.conv2d(image, weight)

    measured = measure_step(step, roots=lambda: [image, weight])
    assert measured.static == image.nbytes + weight.nbytes
    # oneDNN works on a blocked copy of the output before it is put in torch's layout.
    assert measured.peak >= measured.static + 2 * out


def test_backward_frees_what_forward_saved() -> None:
    x = torch.ones(N, requires_grad=True)

    def step() -> None:
        x.grad = None
        y = x.exp()  # saved
        z = y.exp()  # saved
        total = z.sum()
        del y, z
        total.backward()

    step()
    measured = measure_step(step, roots=lambda: [x])
    # x, y, z, and one gradient that is multiplied by z into another; the expanded gradient
    # of the sum holds one number.
    assert measured.static == BYTES
    assert 4 * BYTES <= measured.peak <= 4 * BYTES + 64


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steady_step_of_a_linear_layer(set_to_none: bool, momentum: float) -> None:
    layer = torch.nn.Linear(N, N, bias=False)
    batch = torch.ones(2, N)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3, momentum=momentum, foreach=False)
    step = steady_step(layer, batch, optimizer, set_to_none=set_to_none)
    for _ in range(2):
        step()
    roots = standing(layer, batch, optimizer, gradients=not set_to_none)
    measured = measure_step(step, roots=lambda: roots)
    weight, row = N * BYTES, BYTES
    static = weight * (1 + (momentum > 0) + (not set_to_none)) + 2 * row
    assert measured.static == static
    # One new gradient in backward, either kept or added to the one that stands; beside it no
    # more than the output's gradient and scalars.
    assert static + weight <= measured.peak <= static + weight + 4 * row + 64


def test_steady_step_drops_the_output_before_backward() -> None:
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(N))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            unused = torch.empty(50 * N)
            return {"loss": (self.weight * x).sum(), "unused": unused}

    model, batch = Wide(), torch.ones(N)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    step = steady_step(model, batch, optimizer)
    with _torch.record_allocations() as events:
        step()
    freed = next(i for i, event in enumerate(events) if event.nbytes == -50 * BYTES)
    # The gradient comes after the output has gone.
    assert any(event.nbytes == BYTES for event in events[freed:])


def test_steady_step_clips_and_uses_the_given_loss() -> None:
    model = torch.nn.Linear(4, 1, bias=False)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = (torch.full((2, 4), 100.0),)
    steady_step(model, batch, optimizer, lambda out, _: out.sum(), clip_norm=0.5)()
    assert (model.weight - before).norm().item() == pytest.approx(0.5, rel=1e-4)


def test_two_measurements_of_one_step_agree() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    batch = torch.randn(16, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    step = steady_step(model, batch, optimizer)
    step()
    peaks = {
        measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak for _ in range(3)
    }
    assert len(peaks) == 1


def test_another_profiler_is_refused() -> None:
    with torch.profiler.profile(), pytest.raises(InputError, match="profiler is on"):
        measure_step(lambda: None, roots=nothing)


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    with pytest.raises(InputError, match="too old"):
        _torch.check_version()


def test_resident_size_is_at_least_what_is_touched() -> None:
    x = torch.ones(4_000_000)
    measured = measure_step(lambda: None, roots=lambda: [x])
    assert measured.rss == 0 or measured.rss > x.nbytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_peak() -> None:
    x = torch.ones(1 << 20, device="cuda")
    before = torch.cuda.memory_allocated()

    def step() -> None:
        y = x.neg()
        y.neg()

    measured = measure_step(step, roots=lambda: [x])
    assert measured.static == x.nbytes
    assert measured.peak == before + 2 * x.nbytes
    assert measured.events == 4
