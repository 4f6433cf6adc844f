"""The optimizer's own step: bit for bit torch's for-loop, in slices or during backward."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from shoestring.core.errors import RefusedError
from shoestring.optim import ReleaseGradients, SlicedStep
from shoestring.optim import sliced as sliced_module
from shoestring.optim._torch import accumulate_hooks
from shoestring.optim.taken import TakenGradient
from tests.oracles import optimizers as oracle

Make = Callable[..., torch.optim.Optimizer]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]
SLICE = 64  # elements: small, so that small tensors have several slices and a tail
CASES: list[tuple[type[torch.optim.Optimizer], dict[str, object]]] = [
    (torch.optim.AdamW, {"lr": 1e-2}),
    (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.3, "amsgrad": True, "maximize": True}),
    (torch.optim.Adam, {"lr": 1e-2}),
    (torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": True}),
    (torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "maximize": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
]


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sliced_module.SLICE, "cpu", SLICE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # torch's loop in bfloat16 depends on the number of threads
    yield
    torch.set_num_threads(threads)


def sliced(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return SlicedStep().make_optimizer(optimizer)


def released(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return ReleaseGradients().make_optimizer(optimizer)


def draw(size: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


def run_plain(
    param: nn.Parameter, optimizer: torch.optim.Optimizer, gradients: list[torch.Tensor]
) -> None:
    for gradient in gradients:
        param.grad = gradient.clone(memory_format=torch.preserve_format)
        optimizer.step()


def same_state(left: torch.optim.Optimizer, right: torch.optim.Optimizer) -> bool:
    a, b = left.state_dict(), right.state_dict()
    if a["param_groups"] != b["param_groups"] or a["state"].keys() != b["state"].keys():
        return False
    for index, entry in a["state"].items():
        other = b["state"][index]
        if entry.keys() != other.keys():
            return False
        for key, value in entry.items():
            if value is None or other[key] is None:
                if value is not other[key]:
                    return False
            elif (
                value.dtype is not other[key].dtype
                or value.stride() != other[key].stride()
                or not torch.equal(value, other[key])
            ):
                return False
    return True


# --- in slices: the same bits -----------------------------------------------------------------


@settings(max_examples=150)
@given(
    case=st.sampled_from(CASES),
    dtype=st.sampled_from(DTYPES),
    size=st.one_of(
        st.lists(st.integers(0, 20), max_size=3).map(tuple),
        st.integers(1, 9 * SLICE).map(lambda n: (n,)),
    ),
    seed=st.integers(0, 1000),
)
def test_sliced_equals_the_loop_bitwise(
    case: tuple[type[torch.optim.Optimizer], dict[str, object]],
    dtype: torch.dtype,
    size: tuple[int, ...],
    seed: int,
) -> None:
    cls, options = case
    start = draw(size, seed, dtype)
    gradients = [draw(size, seed + 1 + i, dtype) for i in range(3)]
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    plain = cls([theirs], foreach=False, fused=False, **options)  # type: ignore[call-arg]
    changed = sliced(cls([ours], foreach=False, fused=False, **options))  # type: ignore[call-arg]
    run_plain(theirs, plain, gradients)
    run_plain(ours, changed, gradients)
    assert torch.equal(ours, theirs)
    assert same_state(changed, plain)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("cls", "options"), CASES)
def test_sliced_equals_the_loop_at_the_real_slice_size(
    monkeypatch: pytest.MonkeyPatch,
    cls: type[torch.optim.Optimizer],
    options: dict[str, object],
    dtype: torch.dtype,
) -> None:
    monkeypatch.setitem(sliced_module.SLICE, "cpu", 1 << 18)
    size = ((1 << 18) + 12_345,)
    ours, theirs = (nn.Parameter(draw(size, 0, dtype)) for _ in range(2))
    gradients = [draw(size, 1, dtype), draw(size, 2, dtype)]
    plain, changed = cls([theirs], **options), sliced(cls([ours], **options))  # type: ignore[call-arg]
    run_plain(theirs, plain, gradients)
    run_plain(ours, changed, gradients)
    assert torch.equal(ours, theirs)
    assert same_state(changed, plain)


@pytest.mark.parametrize("cls", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "mixed", "strided", "complex"])
def test_any_layout(cls: type[torch.optim.Optimizer], layout: str) -> None:
    def build(seed: int) -> torch.Tensor:
        if layout == "channels_last":
            return draw((4, 6, 5, 3), seed).to(memory_format=torch.channels_last)
        if layout == "strided":
            return draw((30, 20), seed)[:, ::2]
        if layout == "complex":
            return torch.complex(draw((11, 13), seed), draw((11, 13), seed + 50))
        transposed = layout == "transposed" or seed == 0  # mixed: only the parameter is
        return draw((17, 23), seed).t() if transposed else draw((23, 17), seed)

    ours, theirs = (nn.Parameter(build(0)) for _ in range(2))
    plain = cls([theirs], lr=0.01, weight_decay=0.1)  # type: ignore[call-arg]
    changed = sliced(cls([ours], lr=0.01, weight_decay=0.1))  # type: ignore[call-arg]
    for optimizer, param in ((plain, theirs), (changed, ours)):
        for seed in (1, 2):
            param.grad = build(seed)
            optimizer.step()
    assert ours.stride() == theirs.stride()
    assert torch.equal(ours, theirs)
    assert same_state(changed, plain)


@pytest.mark.parametrize("size", [0, 1, SLICE, SLICE + 1, 5 * SLICE - 1])
def test_slices_cover_every_element_once(size: int) -> None:
    for tensor in (torch.zeros(size), torch.zeros(2 * size)[::2], torch.zeros(size, 3).t()):
        for (part,) in sliced_module.slices([tensor], SLICE):
            assert part.numel() <= SLICE
            part.add_(1)
        assert torch.equal(tensor, torch.ones_like(tensor))


@pytest.mark.parametrize("rule", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("change", [sliced, released])
def test_against_the_obvious_form(rule: str, change: Make) -> None:
    start = draw((13, 11), 0)
    gradients = [draw((13, 11), i) for i in (1, 2, 3, 4)]
    param = nn.Parameter(start.clone())
    if rule == "sgd":
        options = {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02}
        optimizer = change(torch.optim.SGD([param], **options))
        expected = oracle.sgd(start, gradients, **options)
    else:
        options = {"lr": 0.05, "weight_decay": 0.02, "amsgrad": True, "betas": (0.7, 0.9)}
        cls = torch.optim.AdamW if rule == "adamw" else torch.optim.Adam
        optimizer = change(cls([param], **options))
        expected = oracle.adam(start, gradients, decoupled=rule == "adamw", **options)
    for gradient in gradients:
        (param * gradient).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(param.detach(), expected, rtol=1e-12, atol=1e-12)


def test_sparse_gradients() -> None:
    results = []
    for change in (lambda o: o, sliced, released):
        table = nn.Embedding(300, 3, sparse=True)
        table.weight.data = draw((300, 3), 0)
        optimizer = change(torch.optim.SGD(table.parameters(), lr=0.1, momentum=0.9))
        for _ in range(3):
            optimizer.zero_grad()
            table(torch.tensor([1, 5, 1])).square().sum().backward()
            optimizer.step()
        results.append(table.weight.detach().to_dense())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    table = nn.Embedding(300, 3, sparse=True)
    optimizer = sliced(torch.optim.AdamW(table.parameters()))
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_no_temporary_is_larger_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    made: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            known = {t.untyped_storage()._cdata for t in args if isinstance(t, torch.Tensor)}
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.untyped_storage()._cdata not in known:
                made.append(out.numel())
            return out

    param = nn.Parameter(draw((1000,), 0))
    for build in (lambda o: o, sliced):
        optimizer = build(torch.optim.AdamW([param]))
        run_plain(param, optimizer, [draw((1000,), 1)])
        param.grad = draw((1000,), 2)
        made.clear()
        with Sizes():
            optimizer.step()
        assert max(made) == (1000 if build is not sliced else SLICE)


# --- it stays the torch optimizer it was ------------------------------------------------------


@pytest.mark.parametrize("change", [sliced, released])
@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_class_groups_and_repr(cls: type[torch.optim.Optimizer], change: Make) -> None:
    params = [nn.Parameter(draw((4,), i)) for i in range(2)]
    plain = cls([{"params": params[:1], "lr": 0.5}, {"params": params[1:]}], lr=0.1)  # type: ignore[call-arg]
    changed = change(plain)
    assert isinstance(changed, cls)
    assert changed.defaults == plain.defaults
    assert [g["lr"] for g in changed.param_groups] == [0.5, 0.1]
    assert [list(map(id, g["params"])) for g in changed.param_groups] == [
        [id(params[0])],
        [id(params[1])],
    ]


def test_state_of_a_plain_optimizer_goes_on() -> None:
    gradients = [draw((200,), i) for i in range(4)]
    ours, theirs = (nn.Parameter(draw((200,), 9)) for _ in range(2))
    plain, half = torch.optim.AdamW([theirs]), torch.optim.AdamW([ours])
    run_plain(theirs, plain, gradients)
    run_plain(ours, half, gradients[:2])
    run_plain(ours, sliced(half), gradients[2:])
    assert torch.equal(ours, theirs)


def test_step_hooks_fire_once_and_survive() -> None:
    param = nn.Parameter(draw((3,), 0))
    plain = torch.optim.AdamW([param])
    seen: list[str] = []
    plain.register_step_pre_hook(lambda *_: seen.append("before"))
    plain.register_step_post_hook(lambda *_: seen.append("after"))
    for change in (sliced, released):
        changed = change(plain)
        seen.clear()
        param.sum().backward()
        changed.step()
        assert seen == ["before", "after"]
        if change is released:
            changed.close()


@pytest.mark.parametrize("fused_first", [True, False])
def test_state_moves_between_fused_and_loop(fused_first: bool) -> None:
    gradients = [draw((200,), i) for i in range(3)]
    results = []
    for change in (lambda o: o, sliced):
        first, second = (nn.Parameter(draw((200,), 9)) for _ in range(2))
        before = torch.optim.AdamW([first], fused=fused_first)
        run_plain(first, before, gradients[:1])
        second.data.copy_(first.data)
        after = change(torch.optim.AdamW([second]))
        after.load_state_dict(before.state_dict())
        for group in after.param_groups:
            group["fused"] = not fused_first
        run_plain(second, after, gradients[1:])
        results.append((second.detach(), float(after.state[second]["step"])))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] == 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("change", [sliced, released])
@pytest.mark.parametrize(
    ("cls", "options"), [case for case in CASES if "decoupled_weight_decay" not in case[1]]
)
def test_fused_stays_fused_bitwise(
    cls: type[torch.optim.Optimizer], options: dict[str, object], change: Make, dtype: torch.dtype
) -> None:
    ours, theirs = (nn.Parameter(draw((5 * SLICE + 3,), 0, dtype)) for _ in range(2))
    # torch 2.13's fused SGD reads memory never written in bfloat16: the loop is right.
    wrong = dtype is torch.bfloat16 and "momentum" in options
    plain = cls([theirs], fused=not wrong, **options)  # type: ignore[call-arg]
    changed = change(cls([ours], fused=True, **options))  # type: ignore[call-arg]
    for param, optimizer in ((theirs, plain), (ours, changed)):
        for seed in (1, 2, 3):
            (param * draw((5 * SLICE + 3,), seed, dtype)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for group in changed.param_groups:
        group["fused"] = not wrong
    assert torch.equal(ours, theirs)
    assert same_state(changed, plain)


def test_step_counts_once_whatever_the_number_of_slices() -> None:
    params = [nn.Parameter(draw((n * SLICE + 1,), n)) for n in (0, 1, 7)]
    for change in (sliced, released):
        optimizer = change(torch.optim.Adam(params))
        for count in (1, 2):
            sum((p**2).sum() for p in params).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
            assert [float(s["step"]) for s in optimizer.state.values()] == [count] * 3
        if change is released:
            optimizer.close()


@pytest.mark.parametrize("option", ["capturable", "differentiable"])
@pytest.mark.parametrize("change", [sliced, released])
def test_options_that_need_torch_own_step_are_refused(option: str, change: Make) -> None:
    param = nn.Parameter(draw((3,), 0))
    with pytest.raises(RefusedError, match=option):
        change(torch.optim.AdamW([param], **{option: True}))
    changed = change(torch.optim.AdamW([param]))
    changed.param_groups[0][option] = True  # as load_state_dict would
    if change is sliced:
        param.sum().backward()
    with pytest.raises(RefusedError, match=option):
        changed.step() if change is sliced else param.sum().backward()


@pytest.mark.parametrize("change", [sliced, released])
def test_unknown_and_changed_optimizers_are_refused(change: Make) -> None:
    class Own(torch.optim.AdamW):
        pass

    params = [nn.Parameter(draw((3,), 0))]
    with pytest.raises(RefusedError, match="Own"):
        change(Own(params))
    with pytest.raises(RefusedError, match="LBFGS"):
        change(torch.optim.LBFGS(params))
    with pytest.raises(RefusedError, match="already"):
        change(change(torch.optim.AdamW(params)))
    scheduled = torch.optim.AdamW(params)
    torch.optim.lr_scheduler.StepLR(scheduled, 1)
    with pytest.raises(RefusedError, match="scheduler"):
        change(scheduled)


@pytest.mark.parametrize("name", ["RMSprop", "Adagrad", "NAdam", "Adafactor", "Rprop", "ASGD"])
def test_other_torch_optimizers_are_looped(name: str) -> None:
    cls = getattr(torch.optim, name)
    params = [nn.Parameter(draw((5, 4), i)) for i in range(2)]
    plain = cls(params, foreach=True)
    changed = sliced(plain)
    assert changed is plain
    assert [g["foreach"] for g in changed.param_groups] == [False]
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    loop = cls(twins, foreach=False)
    for p, q in zip(params, twins, strict=True):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    changed.step()
    loop.step()
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


def test_a_tensor_as_learning_rate() -> None:
    for cls in (torch.optim.AdamW, torch.optim.SGD):
        ours, theirs = (nn.Parameter(draw((100,), 9)) for _ in range(2))
        plain = cls([theirs], lr=torch.tensor(0.01))
        changed = sliced(cls([ours], lr=torch.tensor(0.01)))
        for optimizer, param in ((plain, theirs), (changed, ours)):
            run_plain(param, optimizer, [draw((100,), 1), draw((100,), 2)])
        assert torch.equal(ours, theirs)


def test_grad_scaler_works_in_slices() -> None:
    results = []
    for change in (lambda o: o, sliced):
        param = nn.Parameter(draw((100,), 0, torch.float32))
        optimizer = change(torch.optim.AdamW([param]))
        scaler = torch.amp.GradScaler("cpu")
        for poison in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale((param * poison).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        assert float(optimizer.state[param]["step"]) == 2  # the infinite step was skipped
        results.append(param.detach().clone())
    assert torch.equal(results[0], results[1])


def test_grad_scaler_after_fused() -> None:
    param = nn.Parameter(draw((100,), 0, torch.float32))
    twin = nn.Parameter(param.detach().clone())
    for p, optimizer in (
        (param, sliced(torch.optim.AdamW([param], fused=True))),
        (twin, torch.optim.AdamW([twin], fused=True)),
    ):
        scaler = torch.amp.GradScaler("cpu")
        scaler.scale(p.square().sum()).backward()
        scaler.step(optimizer)
    assert torch.equal(param, twin)
    direct = sliced_module.SlicedAdamW([param], fused=True)
    param.grad = None
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(param.square().sum()).backward()
    with pytest.raises(RefusedError, match="GradScaler"):
        scaler.step(direct)


# --- during backward --------------------------------------------------------------------------


class Tied(nn.Module):
    """A small language model with a tied head, dropout, a frozen and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.first = nn.Linear(16, 40)
        self.second = nn.Linear(40, 16)
        self.norm = nn.LayerNorm(16)
        self.sometimes = nn.Linear(16, 16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight
        self.norm.bias.requires_grad_(False)

    def forward(self, tokens: torch.Tensor, extra: bool = False) -> torch.Tensor:
        x = self.embed(tokens)
        x = x + self.second(nn.functional.gelu(self.first(self.norm(x))))
        if extra:
            x = self.sometimes(x)
        return self.head(nn.functional.dropout(x, 0.1))


def course(
    change: Make, cls: type[torch.optim.Optimizer], options: dict[str, object], dtype: torch.dtype
) -> tuple[list[torch.Tensor], torch.optim.Optimizer, list[float]]:
    torch.manual_seed(0)
    model = Tied().to(dtype)
    optimizer = change(cls(model.parameters(), **options))  # type: ignore[call-arg]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=20)
    losses = []
    for i in range(6):
        tokens = torch.randint(0, 50, (4, 9))
        optimizer.zero_grad()
        logits = model(tokens, extra=i % 3 == 1)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return [p.detach() for p in model.parameters()], optimizer, losses


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("cls", "options"), CASES)
@pytest.mark.parametrize("change", [sliced, released])
def test_training_takes_the_same_course_bitwise(
    cls: type[torch.optim.Optimizer], options: dict[str, object], dtype: torch.dtype, change: Make
) -> None:
    expected, plain, losses = course(lambda o: o, cls, options, dtype)
    found, changed, others = course(change, cls, options, dtype)
    assert losses == others
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert same_state(plain, changed)


def test_gradients_are_gone_after_backward() -> None:
    model = Tied()
    optimizer = released(torch.optim.AdamW(model.parameters()))
    model(torch.tensor([[1, 2]])).sum().backward()
    left = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(isinstance(grad, TakenGradient) for grad in left)
    trained = sum(p.requires_grad for p in model.parameters())
    assert optimizer.pending == len(left) == trained - 2  # `sometimes` was not used
    optimizer.step()
    assert optimizer.pending == 0


def test_closures_and_gradients_without_a_hook() -> None:
    results = []
    for change in (lambda o: o, released):
        param = nn.Parameter(draw((5,), 0))
        optimizer = change(torch.optim.SGD([param], lr=0.1))
        calls = []

        def closure(
            param: nn.Parameter = param,
            optimizer: torch.optim.Optimizer = optimizer,
            calls: list[int] = calls,
        ) -> torch.Tensor:
            calls.append(1)
            optimizer.zero_grad()
            loss = param.square().sum()
            loss.backward()
            return loss

        value = optimizer.step(closure)
        assert len(calls) == 1
        param.grad = torch.ones_like(param)  # as checkpoint loaders do
        optimizer.step()
        results.append((value.item(), param.detach().clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_parameters_frozen_and_thawed() -> None:
    results = []
    for change in (lambda o: o, released):
        params = [nn.Parameter(draw((5,), i)) for i in range(2)]
        params[0].requires_grad_(False)
        optimizer = change(torch.optim.AdamW(params))
        for step in range(6):
            params[0].requires_grad_(step in (2, 3))  # thawed after two steps, frozen again
            optimizer.zero_grad()
            (params[0] * params[1]).sum().backward()
            optimizer.step()
        results.append([p.detach() for p in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_second_gradient_in_one_step_is_noticed() -> None:
    param = nn.Parameter(draw((5,), 0))
    optimizer = released(torch.optim.SGD([param], lr=0.1))
    param.sum().backward()
    after = param.detach().clone()
    with pytest.raises(RefusedError, match="second gradient in one step"):
        param.sum().backward()
    assert torch.equal(after, param)  # the second one was not applied
    optimizer.step()  # goes on from the parameters as they are
    assert torch.equal(after, param)
    param.sum().backward()
    optimizer.step()
    assert not torch.equal(after, param)


def test_a_closure_with_two_backwards_is_noticed() -> None:
    param = nn.Parameter(draw((5,), 0))
    optimizer = released(torch.optim.SGD([param], lr=0.1))

    def closure() -> float:
        for _ in range(2):
            param.sum().backward()
        return 0.0

    with pytest.raises(RefusedError, match="second gradient"):
        optimizer.step(closure)


@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
def test_reentrant_checkpoints_of_shared_weights_are_noticed() -> None:
    layer = nn.Linear(4, 4)
    optimizer = released(torch.optim.SGD(layer.parameters(), lr=0.1))
    x = torch.ones(2, 4, requires_grad=True)
    y = checkpoint(layer, checkpoint(layer, x, use_reentrant=True), use_reentrant=True)
    with pytest.raises(RefusedError, match="second gradient"):
        y.sum().backward()
    assert optimizer.pending == 2


def test_checkpoints_of_shared_weights_take_the_same_course() -> None:
    results = []
    for change in (lambda o: o, released):
        torch.manual_seed(0)
        layer = nn.Linear(8, 8).double()
        optimizer = change(torch.optim.AdamW(layer.parameters()))
        for i in range(3):
            optimizer.zero_grad()
            x = draw((2, 8), i)
            for _ in range(3):
                x = checkpoint(layer, x, use_reentrant=False).tanh()
            x.sum().backward()
            optimizer.step()
        results.append([p.detach() for p in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_an_error_in_backward_is_told_about() -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x.clone()

        @staticmethod
        def backward(ctx, grad):  # type: ignore[no-untyped-def]
            raise RuntimeError("out of memory")

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = released(torch.optim.SGD(model.parameters(), lr=0.1))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    with pytest.raises(RuntimeError, match="out of memory"):
        model[1](Fails.apply(model[0](torch.ones(1, 3)))).sum().backward()
    assert optimizer.pending == 2
    with pytest.raises(RefusedError, match="2 of 4 parameters are updated"):
        optimizer.zero_grad()
    with pytest.raises(RefusedError, match="second gradient in one step"):
        model(torch.ones(1, 3)).sum().backward()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])  # as the hint says
    assert optimizer.pending == 0
    assert all(p.grad is None for p in model.parameters())
    optimizer.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()


@pytest.mark.filterwarnings("ignore:Using backward")
def test_create_graph_is_refused() -> None:
    param = nn.Parameter(draw((5,), 0))
    before = param.detach().clone()
    optimizer = released(torch.optim.SGD([param], lr=0.1))
    with pytest.raises(RefusedError, match="create_graph"):
        param.square().sum().backward(create_graph=True)
    assert torch.equal(before, param)
    assert optimizer.pending == 0


def test_grad_scaler_is_refused_when_releasing() -> None:
    param = nn.Parameter(draw((100,), 0, torch.float32))
    optimizer = released(torch.optim.AdamW([param]))
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(param.square().sum()).backward()
    with pytest.raises(RefusedError, match="used in backward and are gone"):
        scaler.unscale_(optimizer)
    with pytest.raises(RefusedError, match="used in backward and are gone") as caught:
        scaler.step(optimizer)
    assert "GradScaler" in caught.value.hint


@pytest.mark.parametrize(
    "read",
    [
        lambda params: nn.utils.clip_grad_norm_(params, 1.0),
        lambda params: nn.utils.clip_grad_norm_(params, 1.0, foreach=True),
        lambda params: nn.utils.clip_grad_value_(params, 1.0),
        lambda params: [p.grad.norm() for p in params],
        lambda params: [p.grad.mul_(0.5) for p in params],
        lambda params: [p.grad.detach() for p in params],
    ],
)
def test_what_needs_gradients_after_backward_raises(
    read: Callable[[list[nn.Parameter]], object],
) -> None:
    params = [nn.Parameter(draw((5,), 0)), nn.Parameter(draw((3, 2), 1))]
    optimizer = released(torch.optim.SGD(params, lr=0.1))
    sum(p.square().sum() for p in params).backward()
    with pytest.raises(RefusedError, match="used in backward and are gone") as caught:
        read(params)
    assert "clip_norm=" in caught.value.hint
    optimizer.step()
    assert all(p.grad is None for p in params)


def test_several_processes_are_refused() -> None:
    # torch's own fake process group stands for two processes; nothing is sent.
    pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    param = nn.Parameter(draw((5,), 0))
    released_optimizer = released(torch.optim.SGD([param], lr=0.1))
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("fake", store=store, rank=0, world_size=2)
    try:
        with pytest.raises(RefusedError, match="2 processes"):
            param.sum().backward()
        assert released_optimizer.pending == 0
    finally:
        torch.distributed.destroy_process_group()


# --- hooks ------------------------------------------------------------------------------------


def hooks(params: list[nn.Parameter]) -> list[int]:
    return [len(accumulate_hooks(p)) for p in params]


def test_close_and_remove_take_the_hooks_away() -> None:
    for close in (
        lambda optimizer, model: optimizer.close(),
        lambda optimizer, model: ReleaseGradients().remove(model),
    ):
        model, twin = nn.Linear(3, 2), nn.Linear(3, 2)
        twin.load_state_dict(model.state_dict())
        optimizer = released(torch.optim.AdamW(model.parameters()))
        plain = torch.optim.AdamW(twin.parameters())
        assert hooks(list(model.parameters())) == [1, 1]
        for step in range(3):
            if step == 1:
                close(optimizer, model)
                assert hooks(list(model.parameters())) == [0, 0]
            for m, o in ((model, optimizer), (twin, plain)):
                o.zero_grad()
                m(torch.ones(1, 3)).square().sum().backward()
                o.step()
            assert (model.weight.grad is None) is (step == 0)
        assert torch.equal(model.weight, twin.weight)


def test_another_optimizer_on_the_same_parameters_is_refused() -> None:
    params = [nn.Parameter(draw((3,), 0))]
    first = released(torch.optim.SGD(params, lr=0.1))
    with pytest.raises(RefusedError, match="another optimizer"):
        released(torch.optim.SGD(params, lr=0.1))
    first.close()
    released(torch.optim.SGD(params, lr=0.1))


def test_a_dropped_optimizer_leaves_a_plain_model() -> None:
    param = nn.Parameter(draw((3,), 0))
    before = param.detach().clone()
    optimizer = released(torch.optim.SGD([param], lr=0.1))
    del optimizer
    gc.collect()
    param.sum().backward()
    assert torch.equal(param.grad, torch.ones(3, dtype=torch.float64))
    assert torch.equal(before, param)
    released(torch.optim.SGD([param], lr=0.1))  # a new one is welcome


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_hooks_of_their_own(copied: Callable[[object], object]) -> None:
    model = nn.Linear(3, 2)
    optimizer = released(torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    twin, other = copied((model, optimizer))  # type: ignore[misc]
    assert hooks(list(model.parameters())) == [1, 1]
    assert hooks(list(twin.parameters())) == [1, 1]
    before = model.weight.detach().clone()
    twin(torch.ones(1, 3)).sum().backward()
    other.step()
    assert torch.equal(before, model.weight)
    model(torch.ones(1, 3)).sum().backward()
    assert optimizer.pending == 2
    assert other.pending == 0
    half = copied(optimizer)  # in the middle of a step
    assert half.pending == 2  # type: ignore[attr-defined]
    optimizer.step()
    assert torch.equal(twin.weight, model.weight)
    optimizer.close()
    assert copied(optimizer).closed  # type: ignore[attr-defined]
    with pytest.raises(RefusedError, match="deepcopy"):
        copy.copy(other)


def test_the_model_alone_is_copied_and_saved_plain() -> None:
    model = nn.Linear(3, 2)
    optimizer = released(torch.optim.AdamW(model.parameters()))
    twin = copy.deepcopy(model)
    assert hooks(list(twin.parameters())) == [0, 0]
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert hooks(list(loaded.parameters())) == [0, 0]
    assert optimizer.pending == 0


def test_loading_and_adding_groups_keeps_one_hook_each() -> None:
    params = [nn.Parameter(draw((3,), i)) for i in range(2)]
    optimizer = released(torch.optim.AdamW(params[:1], lr=0.1))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.add_param_group({"params": params[1:], "lr": 0.0})
    assert hooks(params) == [1, 1]
    before = [p.detach().clone() for p in params]
    (params[0].sum() + params[1].sum()).backward()
    assert not torch.equal(before[0], params[0])
    assert torch.equal(before[1], params[1])  # its own group's learning rate was read
    optimizer.step()


def test_saved_state_is_exchanged_with_the_plain_class() -> None:
    model = nn.Linear(3, 2)
    optimizer = released(torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    plain = torch.optim.AdamW(copy.deepcopy(model).parameters())
    plain.load_state_dict(optimizer.state_dict())
    assert same_state(plain, optimizer)
