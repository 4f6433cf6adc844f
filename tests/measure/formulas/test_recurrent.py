"""Recurrent layers against counts made step by step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.measure.formulas import Cost, op_cost
from tests.measure.formulas.counting import Counting, aten
from tests.oracles import flops as oracle

LAYERS = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
sizes = st.integers(2, 4)


@given(
    layer=st.sampled_from(list(LAYERS)),
    time=sizes,
    batch=sizes,
    inputs=sizes,
    hidden=sizes,
    layers=st.integers(1, 2),
    both=st.booleans(),
)
def test_layers_and_their_gradients(layer, time, batch, inputs, hidden, layers, both):
    gates = LAYERS[layer]
    model = layer(inputs, hidden, layers, bidirectional=both)
    x = torch.randn(time, batch, inputs, requires_grad=True)
    expected = oracle.recurrent(
        time, batch, inputs, hidden, gates, layers=layers, directions=1 + both
    )
    with Counting() as forward:
        y = model(x)[0]
    assert forward.flops == expected
    with torch.inference_mode(), Counting() as whole:
        model(x.detach())
    assert whole.flops == expected
    with Counting() as backward:
        y.sum().backward()
    if layer is nn.LSTM:
        assert "mkldnn_rnn_layer" in forward.found
        assert backward.flops == 2 * expected
    else:  # the first hidden states need no gradient
        skipped = layers * (1 + both) * oracle.matmul(batch, gates * hidden, hidden)
        assert backward.flops == 2 * expected - skipped


@given(time=sizes, batch=sizes, hidden=st.integers(3, 5), projected=st.integers(1, 2))
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_projections(time, batch, hidden, projected):
    model = nn.LSTM(4, hidden, 2, bidirectional=True, proj_size=projected)
    x = torch.randn(time, batch, 4, requires_grad=True)
    expected = oracle.recurrent(
        time, batch, 4, hidden, 4, layers=2, directions=2, projected=projected
    )
    with Counting() as forward:
        y = model(x)[0]
    assert forward.flops == expected
    with Counting() as backward:
        y.sum().backward()
    # The first hidden states, one for each layer and direction, need no gradient.
    skipped = 4 * oracle.matmul(batch, 4 * hidden, projected)
    assert backward.flops == 2 * expected - skipped
    args = (x, model._flat_weights, 0, None, None, None, 2, hidden, projected)
    assert op_cost(aten._cudnn_rnn.default, args, {}, None).flops == expected


@pytest.mark.parametrize("packed", [False, True])
def test_packed_rows_count_once_each(packed):
    model = nn.LSTM(4, 6)
    rows = [torch.randn(n, 4) for n in (5, 3, 2)]
    x = nn.utils.rnn.pack_sequence(rows) if packed else torch.stack([rows[0]] * 3, 1)
    with Counting() as counter:
        model(x)
    assert counter.flops == oracle.recurrent(10 if packed else 15, 1, 4, 6, 4)


@pytest.mark.parametrize(
    ("name", "layer"), [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn_tanh", nn.RNN)]
)
def test_one_operator_does_what_the_parts_do(name, layer):
    model = layer(4, 6)
    x, hidden = torch.randn(5, 3, 4), torch.zeros(1, 3, 6)
    state = [hidden, hidden] if name == "lstm" else hidden
    func = getattr(aten, name).input
    whole = op_cost(func, (x, state, list(model.parameters()), True, 1, 0.0), {}, None)
    assert whole.flops == oracle.recurrent(5, 3, 4, 6, LAYERS[layer]) == 2 * whole.macs
    cells = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn_tanh": nn.RNNCell}
    with torch.no_grad(), Counting() as parts:
        cells[name](4, 6)(x[0])
    # A time step of the layer; its parts also multiply by nothing but what the rule names.
    assert 5 * parts.flops == whole.flops
    assert 5 * parts.elementwise == whole.elementwise


def test_a_fused_cell_and_one_by_parts_cost_the_same():
    args = (torch.ones(3, 24), torch.ones(3, 24), torch.ones(3, 6), torch.ones(24), torch.ones(24))
    fused = op_cost(aten._thnn_fused_lstm_cell.default, args, {}, None)
    assert fused == Cost(0, 0, 3 * 6 * (9 + 4 * 3))
    no_bias = op_cost(aten._thnn_fused_lstm_cell.default, args[:3], {}, None)
    assert no_bias == Cost(0, 0, 3 * 6 * (9 + 4))
    args = (torch.ones(3, 18), torch.ones(3, 18), torch.ones(3, 6), torch.ones(18), torch.ones(18))
    gru = op_cost(aten._thnn_fused_gru_cell.default, args, {}, None)
    assert gru == Cost(0, 0, 3 * 6 * (7 + 3 * 3))


def test_kernels_of_devices():
    model = nn.GRU(4, 6, 2, bidirectional=True)
    x, weights = torch.randn(5, 3, 4), model._flat_weights
    expected = oracle.recurrent(5, 3, 4, 6, 3, layers=2, directions=2)
    cudnn = (x, weights, 4, None, torch.ones(4, 3, 6), None, 3, 6, 0, 2)
    assert op_cost(aten._cudnn_rnn.default, cudnn, {}, None).flops == expected
    back = [x, weights, 4, None, None, None, None, None, None, None, 3, 6, 0, 2, False, 0.0, True]
    back += [True, [], None, None]
    for mask, times in (([True, True, True, True], 2), ([True, True, True, False], 1)):
        cost = op_cost(aten._cudnn_rnn_backward.default, (*back, mask), {}, None)
        assert cost.flops == times * expected
    miopen = (x, weights, 4, torch.ones(4, 3, 6), None, 3, 6, 2)
    assert op_cost(aten.miopen_rnn.default, miopen, {}, None).flops == expected
