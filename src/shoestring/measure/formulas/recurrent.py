"""Recurrent layers and cells: LSTM, GRU and plain, fused or in one operator.

A layer's matrices each meet every row (a time step of a sequence) once; so does the matrix of
``proj_size``. Scalar operations for each hidden number and time step, with G gates: the sum of
the two products (G) and of both biases (2 G), then
  LSTM: three sigmoids, two tanh, c = f c + i g (3), h = o tanh(c) (1): 9
  GRU: two sigmoids, a tanh, r h (1), h = n + z (h - n) (3): 7
  plain: its activation: 1
Backward: the gradient through these (23, 16 and 3), the sums for both biases (2 G), and two
products for each of the forward.
"""

from __future__ import annotations

import math
from typing import Any, Final

from shoestring.measure.formulas.cost import (
    FLOATS,
    Arguments,
    Cost,
    Formula,
    Options,
    contraction,
    elements,
    given,
)

_GATES: Final = {"lstm": 4, "gru": 3, "plain": 1}
_FORWARD: Final = {"lstm": 9, "gru": 7, "plain": 1}
_BACKWARD: Final = {"lstm": 23, "gru": 16, "plain": 3}
_MODES: Final = ("plain", "plain", "lstm", "gru")
"""How oneDNN, cuDNN and MIOpen number them: relu, tanh, LSTM, GRU."""


def _scalars(kind: str, units: int, *, biases: bool, backward: bool = False) -> int:
    """Return the scalar operations of so many hidden numbers, over all time steps."""
    gates = _GATES[kind]
    if backward:
        return units * (_BACKWARD[kind] + 2 * gates * int(biases))
    return units * (_FORWARD[kind] + gates * (1 + 2 * int(biases)))


def _onednn(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(input [T, B, I], weight_ih [G*H, I], weight_hh [G*H, H], ...)``: one layer, one way."""
    inputs = args[0]
    rows = math.prod(inputs.shape[:-1])
    scalars = _scalars(_MODES[args[9]], rows * args[10], biases=args[12])
    return contraction(rows * (args[1].numel() + args[2].numel()), inputs, scalars)


def _onednn_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """The same with gradients; two products for each of the forward."""
    inputs = args[0]
    rows = math.prod(inputs.shape[:-1])
    scalars = _scalars(_MODES[args[14]], rows * args[15], biases=args[17], backward=True)
    return contraction(2 * rows * (args[1].numel() + args[2].numel()), inputs, scalars)


def _whole(inputs: Any, weights: Any, kind: str, *, products: int, backward: bool = False) -> Cost:
    """All layers and directions: every matrix meets every row once; biases are 1-d."""
    rows = math.prod(inputs.shape[:-1])
    matrices = [w for w in weights if w.dim() == 2]
    biases = len(matrices) < len(weights)
    # The matrices that make gates: of a layer's two the one that meets the input, and of a
    # projection [P, H] neither. Two of a kind have the same first size.
    gates = sum(w.shape[0] for w in matrices if w.shape[0] == matrices[0].shape[0]) // 2
    units = rows * gates // _GATES[kind] if inputs.dtype in FLOATS else 0
    scalars = _scalars(kind, units, biases=biases, backward=backward)
    return contraction(products * rows * sum(w.numel() for w in matrices), inputs, scalars)


def _device(mode: int) -> Formula:
    """``(input [..., I], weights, ..., mode, ...)`` of cuDNN and MIOpen."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return _whole(args[0], args[1], _MODES[args[mode]], products=1)

    return formula


def _device_backward(mode: int) -> Formula:
    """The gradient of the input, and of the weights where the mask's last says so."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        products = 1 + int(args[-1][3])
        return _whole(args[0], args[1], _MODES[args[mode]], products=products, backward=True)

    return formula


def _composite(kind: str, params: int) -> Formula:
    """``(input, hx, params, ...)`` or packed ``(data, batch_sizes, hx, params, ...)``."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return _whole(args[0], args[params], kind, products=1)

    return formula


def _metal_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``lstm_mps_backward(grad_y, grad_hy, grad_cy, z, cell, input, outputs, hx, params, ...)``."""
    return _whole(args[5], args[8], "lstm", products=2, backward=True)


def _cell(kind: str) -> Formula:
    """``(input [B, I], hx, w_ih [G*H, I], w_hh [G*H, H], b_ih, b_hh)``: one time step."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return _whole(args[0], [a for a in args[2:] if a is not None], kind, products=1)

    return formula


def _fused_cell(kind: str, hidden: int) -> Formula:
    """``(input_gates, hidden_gates, hidden, input_bias, hidden_bias)``: what follows products."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return Cost(0, 0, _scalars(kind, elements(args[hidden]), biases=given(args, 3)))

    return formula


def _lstm_cell_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_hy, grad_cy, cx, cy, workspace, has_bias)``; biases are summed beside it."""
    return Cost(0, 0, _scalars("lstm", elements(args[2]), biases=False, backward=True))


def _gru_cell_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_hy, workspace, has_bias)``."""
    return Cost(0, 0, _scalars("gru", elements(args[0]), biases=False, backward=True))


RECURRENT: Final[dict[str, Formula]] = {
    "aten::mkldnn_rnn_layer": _onednn,
    "aten::mkldnn_rnn_layer_backward": _onednn_backward,
    "aten::_cudnn_rnn": _device(6),
    "aten::_cudnn_rnn_backward": _device_backward(10),
    "aten::miopen_rnn": _device(5),
    "aten::miopen_rnn_backward": _device_backward(10),
    "aten::_lstm_mps": _composite("lstm", 2),
    "aten::lstm_mps_backward": _metal_backward,
    "aten::lstm.input": _composite("lstm", 2),
    "aten::lstm.data": _composite("lstm", 3),
    "aten::gru.input": _composite("gru", 2),
    "aten::gru.data": _composite("gru", 3),
    **dict.fromkeys(("aten::rnn_tanh.input", "aten::rnn_relu.input"), _composite("plain", 2)),
    **dict.fromkeys(("aten::rnn_tanh.data", "aten::rnn_relu.data"), _composite("plain", 3)),
    "aten::lstm_cell": _cell("lstm"),
    "aten::gru_cell": _cell("gru"),
    **dict.fromkeys(("aten::rnn_tanh_cell", "aten::rnn_relu_cell"), _cell("plain")),
    "aten::_thnn_fused_lstm_cell": _fused_cell("lstm", 2),
    "aten::_thnn_fused_gru_cell": _fused_cell("gru", 2),
    "aten::_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
    "aten::_thnn_fused_gru_cell_backward": _gru_cell_backward,
}
"""Formulas of recurrent layers, by the operator's name, with its overload where it matters."""
