"""Bytes that operations read and write, against sizes counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from shoestring.measure.counting.count import count

SIZES = st.integers(1, 5)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64])


def moved(run: Callable[[], object]) -> tuple[int, int]:
    with torch.no_grad(), count() as c:
        run()
    return c.bytes_read, c.bytes_written


@given(SIZES, SIZES, SIZES, DTYPES)
def test_a_product_reads_its_factors_once_and_writes_its_result(
    m: int, k: int, n: int, dtype: torch.dtype
) -> None:
    a, b = torch.ones(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
    size = dtype.itemsize
    assert moved(lambda: a @ b) == (size * (m * k + k * n), size * m * n)


@given(SIZES, SIZES, DTYPES)
def test_what_is_given_twice_is_read_once(m: int, n: int, dtype: torch.dtype) -> None:
    x = torch.ones(m, n, dtype=dtype)
    assert moved(lambda: x * x) == (x.nbytes, x.nbytes)
    halves = torch.ones(2 * m, n, dtype=dtype)
    assert moved(lambda: halves[:m] + halves[m:]) == (halves.nbytes, x.nbytes)


@given(SIZES, SIZES)
def test_an_expanded_dimension_is_not_read_again(m: int, n: int) -> None:
    row, whole = torch.ones(1, n), torch.ones(m, n)
    assert moved(lambda: whole + row.expand(m, n)) == (4 * (m * n + n), 4 * m * n)


def test_views_move_nothing() -> None:
    x = torch.ones(4, 6)
    views = [
        lambda: x.view(24),
        x.t,
        lambda: x[1:, ::2],
        lambda: x.expand(3, 4, 6),
        lambda: x.unsqueeze(0).squeeze(0),
        lambda: torch.ops.aten._unsafe_view(x, [24]),
        x.detach,
        lambda: x.split(2),
        lambda: torch.empty(100),
    ]
    for view in views:
        assert moved(view) == (0, 0)


def test_in_place_operations_read_and_write() -> None:
    x, y = torch.ones(10), torch.ones(10)
    assert moved(lambda: x.add_(y)) == (80, 40)
    assert moved(lambda: x.mul_(2)) == (40, 40)
    assert moved(lambda: torch._foreach_add_([x, y], [y, x])) == (80, 80)


def test_what_is_overwritten_is_not_read() -> None:
    x, y = torch.ones(10), torch.ones(10)
    assert moved(x.zero_) == (0, 40)
    assert moved(lambda: x.fill_(3)) == (0, 40)
    assert moved(lambda: x.copy_(y)) == (40, 40)
    assert moved(lambda: torch.add(y, y, out=x)) == (40, 40)
    assert moved(lambda: torch.zeros(10)) == (0, 40)
    assert moved(lambda: torch.zeros_like(x)) == moved(lambda: x.new_ones(10)) == (0, 40)
    assert moved(lambda: torch.empty_like(x)) == moved(lambda: x.new_empty(10)) == (0, 0)


def test_of_a_table_only_what_is_looked_up_is_read() -> None:
    table, rows = torch.ones(1000, 8), torch.tensor([3, 5, 3])
    found = 4 * 3 * 8
    for look in (
        lambda: F.embedding(rows, table),
        lambda: table[rows],
        lambda: table.index_select(0, rows),
    ):
        assert moved(look) == (found + rows.nbytes, found)
    offsets = torch.tensor([0, 2])
    read, _ = moved(lambda: F.embedding_bag(rows, table, offsets, mode="sum"))
    assert read == found + rows.nbytes + offsets.nbytes


def test_of_a_table_only_what_is_put_into_it_is_changed() -> None:
    table, rows, values = torch.zeros(1000, 8), torch.tensor([3, 5, 3]), torch.ones(3, 8)
    put = values.nbytes
    assert moved(lambda: table.index_add_(0, rows, values)) == (put + rows.nbytes + put, put)
    assert moved(lambda: table.index_put_((rows,), values, accumulate=True)) == (
        put + rows.nbytes + put,
        put,
    )


def test_a_sparse_matrix_is_read_as_it_is_stored() -> None:
    dense = torch.zeros(50, 50)
    dense[3, 4] = dense[7, 9] = 1.0
    right = torch.ones(50, 2)
    coo = dense.to_sparse_coo().coalesce()
    stored, added_to = 2 * 4 + 2 * 2 * 8, 50 * 2 * 4  # torch adds the product to zeros
    assert moved(lambda: torch.sparse.mm(coo, right))[0] == stored + right.nbytes + added_to


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_backward_reads_and_writes_what_its_products_do(layer: str) -> None:
    if layer == "linear":
        weight = torch.ones(5, 4, requires_grad=True)
        x = torch.ones(3, 4)
        with count() as c:
            F.linear(x, weight).sum().backward()
        assert c.by_op()["aten.mm"].bytes_read == 4 * (3 * 4 + 4 * 5 + 1 + 3 * 4)
        # The gradient of a sum is one number, expanded; it is read as one.
        return
    weight = torch.ones(5, 4, 3, requires_grad=True)
    x = torch.ones(2, 4, 9)
    with count() as c:
        F.conv1d(x, weight).sum().backward()
    backward = c.by_op()["aten.convolution_backward"]
    assert backward.bytes_written == weight.nbytes
    assert backward.bytes_read == 4 + x.nbytes + weight.nbytes
