"""An out-of-memory error says what held the memory and what fits; nothing else is touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import shoestring
from shoestring import explain_oom
from shoestring.core import ShoestringError
from shoestring.core.trace import Kind
from shoestring.core.units import format_bytes
from shoestring.planner import oom
from shoestring.planner.oom import OutOfMemoryError, held

SOURCE = str(Path(shoestring.__file__).resolve().parents[1])
ALLOCATOR = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."

# A plain loop in a process of its own, with so many MiB above what it holds before training.
CHILD = """
import resource, sys
import torch
from torch import nn
from shoestring import explain_oom
from shoestring.planner import oom
from shoestring.planner.oom import OutOfMemoryError

torch.set_num_threads(1)
width, blocks, rows, above = map(int, sys.argv[1:])


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return {"loss": x.square().mean()}


net, batch = Net(), torch.randn(rows, width)
optimizer = torch.optim.AdamW(net.parameters())
warm = Net().blocks[0](batch[:2]).sum().backward()  # the libraries' own memory
data = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(data.split()[1]) * 1024 + above * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
where = "forward"
try:
    with explain_oom(net):
        for _ in range(2):
            where = "forward"
            loss = net(batch)["loss"]
            where = "backward"
            loss.backward()
            where = "step"
            optimizer.step()
            optimizer.zero_grad()
except OutOfMemoryError as error:
    assert "allocate memory" in str(error.__cause__), error.__cause__
    print(where)
    print(error)
else:
    print("finished")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's RLIMIT_DATA")
@pytest.mark.parametrize(
    ("where", "sizes", "above", "exact"),
    [
        # Activations of 312 MiB and 16 MiB of weights: forward fails, remat would do.
        ("forward", (256, 8, 8192), 280, True),
        # 96 MiB of weights and their gradients, with activations of 110 MiB.
        ("backward", (1024, 3, 2048), 190, False),
        # Gradients of 128 MiB fit; AdamW's two moments of 256 MiB do not.
        ("step", (1024, 4, 64), 250, False),
    ],
)
def test_a_child_that_runs_out_of_memory_is_told_what_held_it(
    tmp_path: Path, where: str, sizes: tuple[int, ...], above: int, exact: bool
) -> None:
    # Without these two, glibc keeps freed blocks and the limit is a blur.
    recipe = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, (*sizes, above))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **recipe, "PYTHONPATH": SOURCE},
    )
    assert done.returncode == 0, done.stderr
    failed, *lines = done.stdout.splitlines()
    assert failed == where, done.stdout
    text = "\n".join(lines)
    assert lines[0].startswith("memory ran out: this step needs ")
    # By kind, and by module with the kind that is most of it.
    assert re.search(r"held at its peak: [0-9.]+ MiB (saved activations|optimizer state)", text)
    row = r"^  [0-9.]+ MiB by blocks\.\d(\.\w+)?, most of it [a-z ]+$"
    assert re.search(row, text, re.MULTILINE), text
    ways = lines[lines.index("hint: what fits:") + 1 :]
    assert len(ways) == 3, text
    budget = float(re.search(r"about ([0-9.]+) MiB is to be had", text)[1])  # type: ignore[index]
    for way in ways:
        size, unit = re.search(r": ([0-9.]+) (MiB|KiB) \(", way).groups()  # type: ignore[union-attr]
        assert unit == "KiB" or float(size) <= budget, way
    assert ("(exact)" in ways[0]) == exact, text


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16)) for _ in range(4)
        )

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return (x if scale is None else x * scale).square().mean()


def run_out(net: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Run a step, and fail as torch's allocator does."""
    net(torch.zeros(4096, 16), scale=torch.ones(16)).backward()
    if optimizer is not None:
        optimizer.step()
    raise RuntimeError(ALLOCATOR)


def call_and_raise(net: nn.Module, error: BaseException) -> None:
    net(torch.zeros(3, 16))
    raise error


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_the_message_names_the_optimizers_state_that_it_found() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(OutOfMemoryError) as caught, explain_oom(net, memory="5MiB"):
        run_out(net, optimizer)
    assert "optimizer state" in caught.value.message
    assert "is to be had" in caught.value.message
    assert "what fits" in caught.value.hint
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value, ShoestringError)
    assert isinstance(caught.value, MemoryError)
    assert hooks(net) == 0


def test_state_that_was_half_made_when_memory_ran_out_does_no_harm() -> None:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters())
    optimizer.state[next(net.parameters())]["step"] = torch.tensor(0.0)
    with pytest.raises(OutOfMemoryError, match="optimizer state"), explain_oom(net, memory="5MiB"):
        run_out(net)
    assert list(optimizer.state[next(net.parameters())]) == ["step"]


def test_memory_that_ran_out_before_the_model_was_called() -> None:
    with pytest.raises(OutOfMemoryError, match="before the model was called"), explain_oom(Net()):
        raise MemoryError


def test_a_step_that_cannot_be_explained_is_still_an_out_of_memory_error() -> None:
    class Odd(Net):
        def forward(self, x: torch.Tensor, *, scale: torch.Tensor | None = None) -> torch.Tensor:
            return torch.zeros(()) if x.is_cpu and x.shape[0] == 3 else super().forward(x)

    net = Odd()
    with pytest.raises(OutOfMemoryError, match="cannot be explained: InputError"), explain_oom(net):
        call_and_raise(net, RuntimeError(ALLOCATOR))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("x"), KeyboardInterrupt()]
)
def test_other_errors_pass_untouched(error: BaseException) -> None:
    net = Net()
    with pytest.raises(type(error)) as caught, explain_oom(net):
        call_and_raise(net, error)
    assert caught.value is error
    assert error.__cause__ is None
    assert hooks(net) == 0


def test_our_own_errors_are_not_explained_twice() -> None:
    net = Net()
    with (
        pytest.raises(OutOfMemoryError) as caught,
        explain_oom(net),
        explain_oom(net, memory=2**20),
    ):
        run_out(net)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not isinstance(caught.value.__cause__, ShoestringError)


def test_rates_that_cannot_be_measured_for_want_of_memory_do_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise RuntimeError(ALLOCATOR)

    monkeypatch.setattr(oom, "load_machine", fail)
    net = Net()
    with pytest.raises(OutOfMemoryError, match="this step needs"), explain_oom(net, memory="5MiB"):
        run_out(net)


def test_without_an_error_nothing_is_changed_kept_or_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("profile", "explore", "load_machine", "_holder"):
        monkeypatch.delattr(oom, name)
    net, x = Net(), torch.randn(8, 16)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    with explain_oom(net):
        inside = net(x, scale=torch.ones(16))
        output = weakref.ref(inside)
        batch = weakref.ref(y := torch.zeros(8, 16))
        net(y)
        del y, inside
        assert batch() is None, "the batch is kept alive"
        assert output() is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert hooks(net) == 0


def test_held_names_kinds_and_modules_largest_first() -> None:
    net = nn.Sequential(nn.Linear(8, 4096), nn.Linear(4096, 8))
    prof = shoestring.profile(
        net,
        torch.zeros(2, 8),
        optimizer=torch.optim.AdamW,
        machine="h100",
        loss=lambda y, x: y.sum(),
    )
    first, *rows = held(prof).splitlines()
    kinds = prof.trace.by_kind(prof.trace.peak_index)
    assert kinds[Kind.OPTIMIZER] >= 2 * 4 * (2 * 4096 * 8 + 4096 + 8)
    expected = [f"{format_bytes(size)} {kind.value}" for kind, size in kinds.items() if size]
    assert sorted(first.removeprefix("held at its peak: ").split(", ")) == sorted(expected)
    assert "optimizer state" in first.split(",")[0]
    assert [row.split(" by ")[1] for row in rows[:2]] == [
        "0, most of it optimizer state",
        "1, most of it optimizer state",
    ]
