"""FlopCo's attributes: as the original's where that is right, and right where it is not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.core.errors import InputError
from shoestring.measure.compat import FlopCo
from shoestring.measure.counting.count import count

ROWS = 2


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=True),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


@pytest.mark.parametrize("rows", [1, ROWS])
def test_convolutions_and_linear_layers_are_the_original_s(rows: int) -> None:
    """By flopco-pytorch 0.1.4: of one image, two FLOPs a multiply-add and one for each bias.

    Only the bias of a linear layer is ours: there it takes the inputs for the outputs.
    """
    stats = FlopCo(network(), img_size=(rows, 3, 4, 4), instances=[nn.Conv2d, nn.Linear])
    macs = {"0": 4 * 4 * 8 * 3 * 9, "5": 8 * 5}
    bias = {"0": 8 * 4 * 4, "5": 5}
    assert stats.macs == {name: [n] for name, n in macs.items()}
    assert stats.flops == {name: [2 * n + bias[name]] for name, n in macs.items()}
    assert stats.params == {"0": 8 * 3 * 9 + 8, "5": 8 * 5 + 5}
    assert stats.total_macs == sum(macs.values())
    assert stats.total_flops == sum(2 * macs[n] + bias[n] for n in macs)
    assert stats.total_params == sum(stats.params.values())
    assert stats.relative_macs == {n: macs[n] / sum(macs.values()) for n in macs}
    assert sum(stats.relative_flops.values()) == pytest.approx(1)
    assert sum(stats.relative_params.values()) == pytest.approx(1)
    assert stats.input_shapes == {"0": [(rows, 3, 4, 4)], "5": [(rows, 8)]}
    assert stats.output_shapes == {"0": [(rows, 8, 4, 4)], "5": [(rows, 5)]}
    assert stats.ltypes == {
        "0": {"type": nn.Conv2d, "kernel_size": (3, 3), "groups": 1},
        "5": {"type": nn.Linear},
    }


def test_without_instances_the_totals_are_the_model_s() -> None:
    model = network()
    stats = FlopCo(model, img_size=(ROWS, 3, 4, 4))
    with torch.no_grad(), count(model.eval()) as c:
        model(torch.rand(ROWS, 3, 4, 4))
    assert stats.total_macs * ROWS == c.macs
    assert stats.total_flops * ROWS == c.flops + c.elementwise_flops
    assert stats.total_params == c.params
    assert set(stats.flops) == {"0", "1", "2", "3", "5"}  # a view computes nothing
    assert stats.flops["2"] == [8 * 4 * 4]


class Attention(nn.Module):
    """What FlopCo does not see: products without a module, in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return (q @ k.mT).softmax(-1) @ v


def test_what_no_layer_does_is_the_model_s_own() -> None:
    stats = FlopCo(Attention(), custom_tensor=torch.rand(ROWS, 5, 8))
    assert stats.macs == {"qkv": [5 * 8 * 24], "": [2 * 5 * 5 * 8]}
    assert stats.total_macs == 5 * 8 * 24 + 2 * 5 * 5 * 8
    listed = FlopCo(Attention(), custom_tensor=torch.rand(ROWS, 5, 8), instances=[nn.Linear])
    assert listed.total_macs == 5 * 8 * 24


@pytest.mark.parametrize(
    ("model", "size", "macs"),
    [
        (nn.Conv2d(16, 32, 3, groups=4, padding=1), (1, 16, 8, 8), 64 * 32 * 4 * 9),
        (nn.Conv1d(16, 32, 5), (1, 16, 12), 8 * 32 * 16 * 5),
        (nn.Conv3d(4, 8, 3), (1, 4, 5, 5, 5), 27 * 8 * 4 * 27),
        (nn.ConvTranspose2d(4, 8, 2, stride=2), (1, 4, 5, 5), 25 * 4 * 8 * 4),
        (nn.Linear(32, 48), (1, 10, 32), 10 * 32 * 48),
        (nn.LSTM(8, 16), (7, 1, 8), 7 * 4 * 16 * (8 + 16)),
    ],
    ids=["groups", "1d", "3d", "transposed", "three dimensions", "recurrent"],
)
def test_where_the_original_is_wrong(model: nn.Module, size: tuple[int, ...], macs: int) -> None:
    stats = FlopCo(model, img_size=size)
    rows = size[0]
    assert stats.total_macs * rows == pytest.approx(macs)
    assert stats.input_shapes == {"": [size]}


def test_each_call_of_a_layer_is_told() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.layer(x).sum() + self.layer(y).sum()

    model, x, y = Twice(), torch.rand(1, 4), torch.rand(1, 3, 4)
    for given in ([x, y], (x, y), {"x": x, "y": y}):
        stats = FlopCo(model, custom_tensor=given)
        assert stats.macs["layer"] == [16, 48]
        assert stats.input_shapes["layer"] == [(1, 4), (1, 3, 4)]
        assert stats.params["layer"] == 20


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    stats = FlopCo(model, img_size=(1, 4))
    assert stats.total_params == 4 * 4 + 4 + 4


def test_layers_inside_of_layers_count_once() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2))
    stats = FlopCo(model, img_size=(1, 4), instances=[nn.Sequential, nn.Linear])
    assert stats.total_macs == 4 * 4 + 4 * 2
    assert stats.params == {"": 0, "0": 0, "0.0": 20, "1": 10}


class Odd(nn.Module):
    """Draws random numbers and writes buffers even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(4))
        self.norm.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        self.calls += 1
        self.seen = x.mean(0)
        return self.drop(self.norm(x)) + torch.rand(4) + F.dropout(x)


def test_the_model_and_the_random_numbers_stay_as_they_are() -> None:
    model = Odd()
    heard: list[int] = []
    model.norm.register_forward_hook(lambda *_: heard.append(1))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    flags = [m.training for m in model.modules()]
    buffers = {name: (id(b), b.clone()) for name, b in model.named_buffers()}
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    state = torch.get_rng_state()
    FlopCo(model, img_size=(3, 4))
    FlopCo(model, img_size=(3, 4), instances=[nn.BatchNorm1d])
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == flags
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert heard == [1, 1]
    for name, buffer in model.named_buffers():
        assert id(buffer) == buffers[name][0]
        assert torch.equal(buffer, buffers[name][1])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_raises_stays_as_it_is() -> None:
    model = network()
    with pytest.raises(RuntimeError):
        FlopCo(model, img_size=(1, 4, 4, 4))
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_no_layer_at_all_is_no_error() -> None:
    stats = FlopCo(nn.Identity(), img_size=(1, 4))
    assert (stats.total_flops, stats.total_macs, stats.total_params) == (0, 0, 0)
    assert "total_flops: 0" in str(stats)


def test_another_input_is_refused() -> None:
    with pytest.raises(InputError, match="custom_tensor is a str"):
        FlopCo(nn.Identity(), custom_tensor="image")  # type: ignore[arg-type]
