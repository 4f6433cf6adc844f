"""Hadamard matrices, and the signs that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shoestring.kernels import hadamard_signs
from shoestring.kernels.hadamard import MOST_CORE, core, largest_order, order
from shoestring.kernels.hadamard_signs import HadamardSigns

CORES = [n for n in range(1, MOST_CORE + 1) if (made := order(n)) and made == (n, 0)]


@pytest.mark.parametrize("m", CORES)
def test_each_core_has_orthogonal_rows_of_signs(m: int) -> None:
    table = core(m).astype(np.int64)
    assert set(np.unique(table)) <= {1, -1}
    assert np.array_equal(table @ table.T, m * np.eye(m, dtype=np.int64))


def test_the_orders_of_models_are_there() -> None:
    for n in (1, 2, 4, 12, 20, 64, 384, 768, 1024, 1536, 2048, 2560, 3072, 4096, 5120, 7168, 12288):
        assert order(n) is not None
    for n in (0, 3, 6, 10, 50, 92, 768 + 1):  # 92 exists, but not by these constructions
        assert order(n) is None
    assert largest_order(769) == 768
    assert largest_order(3) == 2


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("rows", "cols", "size"),
    [
        (range(768), range(100), 768),
        (range(12), range(12), 12),
        ([*range(40), -1, -1, *range(40, 48)], range(20), 48),
        (range(20), [0, -1, 1, 2, *range(3, 48)], 48),
        ([-1, 5, 3], [2, -1, 700], 1024),
    ],
)
def test_both_forms_add_the_signs_of_the_matrix(
    rows: list[int],
    cols: list[int],
    size: int,
    dtype: torch.dtype,
    *,
    native: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not native:
        monkeypatch.setattr(hadamard_signs, "_loops", lambda: None)
    made = order(size)
    assert made is not None
    whole = core(made.core).astype(np.float64)
    for _ in range(made.power):
        whole = np.kron(whole, [[1, 1], [1, -1]])
    down, across = torch.tensor(list(rows)), torch.tensor(list(cols))
    chosen = torch.from_numpy(whole)[down[:, None], across]
    chosen *= ((down >= 0).unsqueeze(1) & (across >= 0)).double()
    signs = HadamardSigns(down, across, size, key=3)
    expected = chosen * signs._down.double().unsqueeze(1) * signs._across.double()
    matrix = torch.ones(len(down), len(across), dtype=dtype)
    signs.add_to(matrix, 0.25)
    assert torch.equal(matrix.double(), 1 + 0.25 * expected)
    turned = torch.ones(len(across), len(down), dtype=dtype).T
    signs.add_to(turned, 0.25)
    assert torch.equal(turned, matrix)
