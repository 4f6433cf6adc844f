"""``count``: phases, places, bytes, and what it leaves alone."""

from __future__ import annotations

import copy
import functools
import gc
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from shoestring.core.errors import InputError
from shoestring.measure._torch import FakeTensorMode
from shoestring.measure.counting.count import count
from shoestring.measure.counting.counts import Count

ROWS, WIDTH = 3, 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 2 * WIDTH)
        self.second = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.first(x).relu())


class Net(nn.Module):
    def __init__(self, *, reentrant: bool | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.BatchNorm1d(WIDTH)
        self.drop = nn.Dropout(0.5)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if self.reentrant is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.drop(self.norm(x))


BLOCK = ROWS * WIDTH * 2 * WIDTH * 2
"""Multiply-adds of one block's forward."""


def batch() -> torch.Tensor:
    return torch.randn(ROWS, WIDTH)


def macs(c: Count, phase: str) -> int:
    return c.by_phase()[phase].macs


def test_a_linear_layer_by_hand() -> None:
    model = nn.Linear(4, 3)
    with count(model) as c:
        model(torch.ones(2, 4)).sum().backward()
    assert (c.flops, c.macs, c.params) == (2 * 48, 48, 15)
    assert macs(c, "forward") == 2 * 4 * 3
    assert macs(c, "backward") == 2 * 4 * 3  # of the weight; the input needs none
    by_op = c.by_op()
    assert by_op["aten.addmm"].bytes_read == 4 * (3 + 2 * 4 + 4 * 3)
    assert by_op["aten.addmm"].bytes_written == 4 * 2 * 3
    assert not c.unknown_ops


def test_phases_are_told_apart_without_being_told() -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    with count(model) as c:
        model(batch().requires_grad_()).sum().backward()
        optimizer.step()
        model(batch())
    assert macs(c, "forward") == 4 * BLOCK
    assert macs(c, "backward") == 4 * BLOCK  # with the input's gradient twice one forward
    assert macs(c, "recompute") == macs(c, "optimizer") == 0
    step = c.by_phase()["optimizer"]
    assert step.elementwise_flops > 10 * c.params
    assert c.by_phase()["recompute"].calls == 0
    assert sum(t.macs for t in c.by_phase().values()) == c.macs


def test_backward_can_be_left_out() -> None:
    model = Net()
    with count(model, backward=False) as c:
        model(batch()).sum().backward()
    assert c.macs == 2 * BLOCK
    assert c.by_phase()["backward"].calls == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_is_shown_apart(reentrant: bool) -> None:
    plain, net = Net(), Net(reentrant=reentrant)
    results = {}
    for name, model in (("plain", plain), ("again", net)):
        with count(model) as c:
            model(batch().requires_grad_()).sum().backward()
        results[name] = c
    again = results["again"]
    assert macs(again, "forward") == macs(results["plain"], "forward")
    assert macs(again, "backward") == macs(results["plain"], "backward")
    # Without a reentrant call, what nothing needs any more is not computed again.
    assert macs(again, "recompute") == (2 * BLOCK if reentrant else BLOCK)
    assert again.by_module()["blocks.1"].macs > results["plain"].by_module()["blocks.1"].macs


def test_a_second_derivative_is_no_recomputation() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))
    x = batch().requires_grad_()
    with count(model) as c:
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert c.by_phase()["recompute"].calls == 0
    assert macs(c, "backward") > 2 * macs(c, "forward")


def test_a_step_within_backward_is_the_optimizer_s() -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def release(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(release)
    with count(model) as c:
        model(batch()).sum().backward()
    assert c.by_phase()["optimizer"].elementwise_flops >= 2 * c.params


def test_a_closure_within_a_step_is_forward_and_backward() -> None:
    model = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(batch()).square().mean()
        loss.backward()
        return loss

    with count(model) as c:
        optimizer.step(closure)
    assert macs(c, "forward") >= ROWS * WIDTH * WIDTH
    assert macs(c, "backward") == macs(c, "forward")
    assert c.by_phase()["optimizer"].calls > 0


def test_a_step_that_raises_does_not_turn_the_rest_into_its_own() -> None:
    model = nn.Linear(WIDTH, WIDTH)

    class Broken(torch.optim.SGD):
        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            raise RuntimeError

    optimizer = Broken(model.parameters())
    with count(model) as c:
        with pytest.raises(RuntimeError):
            optimizer.step()
        model(batch()).sum().backward()
        with torch.no_grad():
            model(batch())
    assert macs(c, "forward") == 2 * ROWS * WIDTH * WIDTH
    assert macs(c, "optimizer") == 0


def test_modules_have_their_paths_and_sums() -> None:
    model = Net()
    with count(model) as c:
        model(batch()).sum().backward()
    modules = c.by_module()
    assert modules[""].macs == c.macs
    assert modules["blocks.0"].macs == sum(
        modules[f"blocks.0.{part}"].macs for part in ("first", "second")
    )
    assert set(c.by_module(depth=1)) == {"", "blocks", "norm", "drop"}
    assert c.by_module(depth=1)["blocks"].macs == c.macs


def test_without_a_model_modules_are_named_by_their_class() -> None:
    first, second = Net(), Net()
    with count() as c:
        first(batch())
        second(batch())
        torch.einsum("ij,jk->ik", torch.ones(2, 3), torch.ones(3, 5))
    assert c.by_module(1)["Net"].macs == c.by_module(1)["Net-2"].macs == 2 * BLOCK
    assert c.by_module()["Net.blocks.1.first"].macs == BLOCK // 2
    assert c.macs == 4 * BLOCK + 2 * 3 * 5
    assert c.params == 2 * sum(p.numel() for p in first.parameters())


def test_a_module_made_on_the_way_is_named_by_its_class_where_it_is_called() -> None:
    class Making(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.Linear(WIDTH, 1)(x)

    model = Making()
    with count(model) as c:
        model(batch())
    assert set(c.by_module()) == {"", "Linear"}
    assert c.by_module()[""].macs == c.macs == c.by_module()["Linear"].macs == ROWS * WIDTH


def test_a_shared_module_counts_each_time() -> None:
    layer = nn.Linear(WIDTH, WIDTH)
    model = nn.Sequential(layer, nn.ReLU(), layer, layer)
    with count(model) as c, torch.no_grad():
        model(batch())
    assert c.macs == 3 * ROWS * WIDTH * WIDTH
    assert c.params == WIDTH * WIDTH + WIDTH


def test_counts_nest() -> None:
    model = Net()
    with count(model) as outer:
        model(batch())
        with count(model) as inner:
            model(batch())
    assert (inner.macs, outer.macs) == (2 * BLOCK, 4 * BLOCK)
    assert inner.by_module()["blocks.1"].macs == BLOCK
    assert outer.by_module()["blocks.1"].macs == 2 * BLOCK


def test_what_was_counted_before_an_exception_stands() -> None:
    model = Net()
    with pytest.raises(RuntimeError, match="shapes"), count(model) as c:  # noqa: PT012
        model(batch())
        model(torch.ones(ROWS, WIDTH + 1))
    assert c.macs == 2 * BLOCK
    with count(model) as again:
        model(batch())
    assert again.by_module()["blocks"].macs == 2 * BLOCK


def test_it_can_be_read_while_it_counts() -> None:
    model = Net()
    with count(model) as c:
        assert c.macs == 0
        model(batch())
        assert c.macs == 2 * BLOCK
        model(batch())
    assert c.macs == 4 * BLOCK


def test_threads_count_their_own() -> None:
    model, found, ready = Net(), {}, threading.Barrier(2)

    def work(times: int) -> None:
        with count(model) as c, torch.no_grad():
            ready.wait()
            for _ in range(times):
                model(batch())
            ready.wait()
        found[times] = (c.macs, c.by_module()["blocks.0"].macs, c.by_phase()["optimizer"].calls)

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: (2 * n * BLOCK, n * BLOCK, 0) for n in (3, 7)}


def test_what_another_thread_calls_meanwhile_changes_no_place() -> None:
    inside, done = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside.set()
            assert done.wait(10)
            return x

    class Outer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            thread = threading.Thread(target=Slow(), args=(x,))
            thread.start()
            assert inside.wait(10)
            y = x @ x.t()
            done.set()
            thread.join()
            return y

    model = Outer()
    with count(nn.ModuleDict({"outer": model})) as c:
        model(batch())
    assert c.by_module()["outer"].macs == c.macs == ROWS * WIDTH * ROWS
    assert set(c.by_module()) == {"", "outer"}


def hooks_of(model: nn.Module) -> list[int]:
    return [
        len(hooks)
        for module in model.modules()
        for name, hooks in sorted(vars(module).items())
        if name.endswith("_hooks")
    ]


def test_the_model_stays_as_it_is() -> None:
    shared = torch.nn.modules.module
    model = Net()
    model.blocks[0].register_forward_hook(lambda *_: None)
    model.blocks[1].eval()
    before = copy.deepcopy(model.state_dict())
    flags = [m.training for m in model.modules()]
    hooks, state = hooks_of(model), torch.random.get_rng_state()
    with count(model):
        pass
    assert torch.equal(torch.random.get_rng_state(), state)
    with count(model) as c:
        out = model(batch())
    torch.random.set_rng_state(state)
    twin = Net()
    twin.load_state_dict(before)
    twin.blocks[1].eval()
    torch.random.set_rng_state(state)
    assert torch.equal(twin(batch()), out)
    assert torch.equal(twin.norm.running_mean, model.norm.running_mean)
    assert [m.training for m in model.modules()] == flags
    assert hooks_of(model) == hooks
    assert not shared._global_forward_hooks
    assert not shared._global_forward_pre_hooks
    assert all(p.grad is None for p in model.parameters())
    assert c.params == sum(p.numel() for p in model.parameters())


def test_nothing_of_the_step_is_kept_alive() -> None:
    model = Net()
    with count(model) as c:
        out = model(batch())
        seen = weakref.ref(out)
        del out
    gc.collect()
    assert seen() is None
    assert c.macs == 2 * BLOCK


@pytest.mark.parametrize("kind", ["fake", "meta", "inference"])
def test_shapes_are_enough(kind: str) -> None:
    model, rows = Net(), batch()
    with count(model) as real:
        model(rows).sum().backward()
    if kind == "inference":
        with torch.inference_mode(), count(model) as c:
            model(batch())
        assert c.macs == macs(real, "forward")
        assert not c.unknown_ops
        return
    mode = FakeTensorMode() if kind == "fake" else torch.device("meta")
    with mode:
        twin, x = Net(), torch.empty(ROWS, WIDTH)
        with count(twin) as c:
            twin(x).sum().backward()
    assert (c.macs, c.elementwise_flops) == (real.macs, real.elementwise_flops)
    assert (c.bytes_read, c.activation_bytes) == (real.bytes_read, real.activation_bytes)


def test_an_operator_with_a_kernel_of_its_own_is_not_taken_apart() -> None:
    x = batch().requires_grad_()
    with count() as c:
        torch.nn.functional.silu(x).sum().backward()
    assert "aten.silu_backward" in c.by_op()


def test_function_transforms_are_counted() -> None:
    weight = torch.randn(WIDTH, WIDTH)
    rows = torch.randn(5, WIDTH)
    with count() as plain:
        rows @ weight
    with count() as mapped:
        torch.vmap(lambda row: row @ weight)(rows)
    assert mapped.macs == plain.macs == 5 * WIDTH * WIDTH
    with count() as grads:
        torch.func.grad(lambda w: (rows @ w).square().sum())(weight)
    assert macs(grads, "backward") == plain.macs
    assert grads.by_phase()["recompute"].calls == 0


@torch.library.custom_op("shoestring_tests::doubled", mutates_args=())
def doubled(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return 2 * (x @ w)


def test_an_operator_without_a_formula_is_named_and_can_be_given_one() -> None:
    x, w = torch.ones(2, 3), torch.ones(3, 5)
    with count() as c:
        doubled(x, w)
        doubled(x, w)
    assert c.unknown_ops == {"shoestring_tests.doubled": 2}
    assert c.flops == 0
    assert c.bytes_read == 2 * 4 * (6 + 15)
    op = torch.ops.shoestring_tests.doubled

    def formula(x: torch.Tensor, w: torch.Tensor, *, out: torch.Tensor) -> int:
        return 2 * out.numel() * x.shape[1]

    for key in (op, op.default, "shoestring_tests::doubled"):
        with count(formulas={key: formula}) as c:
            doubled(x, w)
        assert (c.flops, c.macs, c.unknown_ops) == (60, 30, {})
    with pytest.raises(InputError, match="no operator"), count(formulas={"none::such": formula}):
        pass


def test_a_formula_may_replace_ours() -> None:
    zero = functools.partial(lambda *args, out: 0)
    with count(formulas={torch.ops.aten.mm: zero}) as c:
        torch.ones(2, 3) @ torch.ones(3, 4)
    assert c.flops == 0
    assert not c.unknown_ops


def test_causal_attention_counts_whole_or_by_what_it_sees() -> None:
    q = torch.randn(1, 2, 6, 4)
    macs_of = {}
    for causal in ("full", "half"):
        with count(causal=causal) as c:
            torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
        macs_of[causal] = c.macs
    assert macs_of == {"full": 2 * 6 * 6 * (4 + 4), "half": 2 * 21 * (4 + 4)}


def test_activations_are_what_backward_finds() -> None:
    model, rows = nn.Sequential(nn.Linear(WIDTH, 64), nn.Tanh(), nn.Linear(64, 1)), batch()
    with count(model) as c:
        loss = model(rows).sum()
        loss.backward()
    # The output of tanh; the loss, and the one that its gradient begins with.
    assert c.activation_bytes == 4 * (ROWS * 64 + 1 + 1)
    with count(model) as none, torch.no_grad():
        model(rows)
    assert none.activation_bytes == 0


def test_fused_bytes_are_what_comes_in_and_what_stays() -> None:
    x = torch.ones(100)
    with count() as c:
        y = (x * 2 + 1).tanh()
    assert c.fused_bytes == 4 * 200
    assert c.bytes_read == c.bytes_written == 3 * 4 * 100
    assert c.intensity == pytest.approx(3 * 100 / (6 * 4 * 100))
    assert y.shape == (100,)
