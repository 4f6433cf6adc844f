"""The self-check finds what is not exact, passes what is, and leaves no trace."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from shoestring.activations.remat.check import BlockCheck, check_blocks
from shoestring.activations.remat.check_captured import captured_again
from shoestring.core.errors import RefusedError
from shoestring.measure.tracing.allocator import measure_step
from tests.activations.remat.nets import Attending, convolutional, image, sequence, transformer

Wrap = Callable[[nn.Module], Callable[..., object]]


def plainly(block: nn.Module, **options: bool) -> Callable[..., object]:
    """Compute a block again as torch's own checkpointing does."""
    return lambda *args, **kwargs: checkpoint(
        block, *args, use_reentrant=False, **options, **kwargs
    )


def without_random_states(block: nn.Module) -> Callable[..., object]:
    """Compute a block again with other random numbers."""
    return plainly(block, preserve_rng_state=False)


class Forgetful(torch.autograd.Function):
    """Computes again from what the arguments are by then; nothing notices that they changed."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, block: nn.Module, *_: torch.Tensor) -> torch.Tensor:
        ctx.block, ctx.x = block, x.data
        with torch.no_grad():
            out: torch.Tensor = block(ctx.x)
        return out

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x = ctx.x.clone().requires_grad_()
        with torch.enable_grad():
            out = ctx.block(x.clone())
        found = torch.autograd.grad(out, [x, *ctx.block.parameters()], gradient)
        return found[0], None, *found[1:]


def forgetfully(block: nn.Module) -> Callable[..., object]:
    """Compute a block again as if it never wrote to its arguments."""
    return lambda x: Forgetful.apply(x, block, *block.parameters())


class Slightly(torch.autograd.Function):
    """Gives a gradient that is off by one rounding."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * (1 + 2**-22)


def slightly_off(block: nn.Module) -> Callable[..., object]:
    """Give a gradient of the arguments that is slightly wrong."""
    return lambda x: block(Slightly.apply(x))


def off_in_one_weight(block: nn.Module) -> Callable[..., object]:
    """Give a gradient of one parameter that is slightly wrong."""

    def run(x: torch.Tensor) -> object:
        weights = {"wide.weight": Slightly.apply(dict(block.named_parameters())["wide.weight"])}
        return torch.func.functional_call(block, weights, (x,))

    return run


class Writing(nn.Module):
    """A block that writes to what it is passed."""

    def __init__(self, *, writes: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.writes = writes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mul_(1.5) if self.writes else x * 1.5
        out: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return out


class Normed(nn.Module):
    """A block with batch normalisation, a keyword argument and outputs in a dict."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.calls = 0

    def forward(
        self, x: torch.Tensor, *, more: dict[str, list[torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"out": torch.relu(self.norm(self.mix(x))) + more["to add"][0].mean()}


class Stack(nn.Module):
    """Calls `Normed` blocks; the last one is wider than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.layers = nn.ModuleList([Normed(8), Normed(8), Normed(8)])
        self.widen = nn.Linear(8, 16)
        self.layers.append(Normed(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared = {"to add": [self.first(x).square()]}
        for number, layer in enumerate(self.layers):
            x = layer(self.widen(x) if number == 3 else x, more=shared)["out"]
        return x


def rows(count: int = 6) -> torch.Tensor:
    """Return a batch for `Stack`."""
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def nested() -> nn.Module:
    """Return blocks in place of the layers of a convolutional network."""
    return nn.Sequential(convolutional()[0], *(Half() for _ in range(2)))


class Half(nn.Module):
    """Convolution, batch normalisation, an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.norm, self.act = (
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.act(self.norm(self.mix(x)))
        return out


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("model", "x"), [(transformer(0.5, depth=3), sequence()), (nested(), image())]
)
def test_the_captured_path_is_exact(model: nn.Module, x: torch.Tensor) -> None:
    check = check_blocks(model, x, captured_again)
    assert check.checked == ("1",)
    assert check.largest == 0
    assert not check.unchecked


def test_one_line_says_what_was_checked() -> None:
    check = check_blocks(transformer(0.1, depth=3), sequence(), plainly)
    words = "checked 1 distinct block of 3 in {:.1f} s: equal to the last bit"
    assert str(check) == words.format(check.seconds)
    assert check.seconds > 0
    failed = BlockCheck((), 2, (("0", "too large"),), 0.1, 0.0)
    assert str(failed) == "checked no block of 2; block '0' was not checked: too large"


def test_blocks_that_differ_are_each_checked() -> None:
    check = check_blocks(Stack(), rows(), captured_again)
    # No gradient goes into the first; the last is wider.
    assert check.checked == ("layers.0", "layers.1", "layers.3")
    assert check.blocks == 4


def test_statistics_that_move_twice_are_found() -> None:
    with pytest.raises(RefusedError, match=r"'layers\.0' .*buffer norm\.running_mean"):
        check_blocks(Stack(), rows(), plainly)


def test_other_random_numbers_are_found() -> None:
    with pytest.raises(RefusedError, match="'1' computed again gives another") as caught:
        check_blocks(transformer(0.5), sequence(), without_random_states)
    assert "hint:" in str(caught.value)


def leaving_the_state(block: nn.Module) -> Callable[..., object]:
    """Draw one number too many after the forward."""

    def run(x: torch.Tensor) -> object:
        out = block(x)
        torch.rand(1)
        return out

    return run


def test_a_random_state_that_is_not_restored_is_found() -> None:
    with pytest.raises(RefusedError, match="another random state after forward"):
        check_blocks(transformer(0.5), sequence(), leaving_the_state)


def test_a_block_that_changes_its_arguments_is_found() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Writing(), Writing())
    with pytest.raises(RefusedError, match="'1' computed again gives another gradient") as caught:
        check_blocks(model, rows(), forgetfully)
    assert "must not change its arguments" in str(caught.value)
    with pytest.raises(RefusedError, match="'1' runs as it is, but not computed again"):
        check_blocks(model, rows(), plainly)


def test_a_captured_block_may_change_its_arguments() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Writing(), Writing())
    assert check_blocks(model, rows(), captured_again).checked == ("1",)


def test_a_change_of_an_argument_that_is_lost_is_found() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Writing(), Writing())
    with pytest.raises(RefusedError, match="argument 0 afterwards"):
        check_blocks(model, rows(), lambda block: lambda x: block(x.clone()))


@pytest.mark.parametrize(
    ("wrap", "name"),
    [(slightly_off, "gradient of argument 0"), (off_in_one_weight, "gradient of wide.weight")],
)
def test_a_gradient_that_is_slightly_wrong_is_found(wrap: Wrap, name: str) -> None:
    with pytest.raises(RefusedError, match=name) as caught:
        check_blocks(transformer(0.1), sequence(), wrap)
    size = float(str(caught.value).partition("difference is ")[2].split()[0].rstrip("."))
    assert 0 < size < 1e-4


def test_a_gradient_that_is_missing_is_found() -> None:
    with pytest.raises(RefusedError, match="gradient of argument 0: the difference is inf"):
        check_blocks(transformer(0.1), sequence(), lambda block: lambda x: block(x.detach()))


def test_a_gradient_that_a_backward_leaves_in_the_weights_counts() -> None:
    def doubling(block: nn.Module) -> Callable[..., object]:
        def run(x: torch.Tensor) -> object:
            bias = dict(block.named_parameters())["wide.bias"]
            bias.grad = torch.ones_like(bias)
            return block(x)

        return run

    with pytest.raises(RefusedError, match=r"gradient of wide\.bias"):
        check_blocks(transformer(0.1), sequence(), doubling)


class Restless(nn.Module):
    """Gives something else each time, whatever the random state."""

    times = 0

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Restless.times += 1
        out: torch.Tensor = self.mix(x) * (1 + Restless.times / 8)
        return out


def test_what_differs_by_itself_is_not_blamed_on_computing_again() -> None:
    check = check_blocks(nn.Sequential(Restless(), Restless()), rows(), plainly)
    assert not check.checked
    assert "from the same random numbers too" in str(check)


def state_of(model: nn.Module) -> dict[str, object]:
    """Return all that a check must leave alone."""
    return {
        "tensors": {name: t.clone() for name, t in model.state_dict().items()},
        "gradients": {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()},
        "modes": [m.training for m in model.modules()],
        "hooks": [(dict(m._forward_pre_hooks), dict(m._forward_hooks)) for m in model.modules()],
        "calls": [getattr(m, "calls", None) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "random": (torch.get_rng_state(), random.getstate()),
    }


def assert_same(before: object, after: object) -> None:
    """Compare what `state_of` returned."""
    if isinstance(before, torch.Tensor):
        assert isinstance(after, torch.Tensor)
        assert torch.equal(before, after)
    elif isinstance(before, dict):
        assert before.keys() == after.keys()
        for key in before:
            assert_same(before[key], after[key])
    elif isinstance(before, (list, tuple)):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    else:
        assert before == after


def failing(block: nn.Module) -> Callable[..., object]:
    """Leave things changed, and fail."""
    block.eval()
    block.norm.running_mean.fill_(7)
    block.extra = 1
    block.register_forward_hook(lambda *_: None)

    def run(*_: object, **__: object) -> object:
        for parameter in block.parameters():
            parameter.grad = torch.ones_like(parameter)
        torch.rand(3)
        raise ValueError("it does not work")

    return run


@pytest.mark.parametrize("wrap", [captured_again, plainly, failing])
def test_everything_is_as_before(wrap: Wrap) -> None:
    model = Stack()
    model.layers[1].eval()
    model.first.register_forward_pre_hook(lambda *_: None)
    model(rows()).sum().backward()
    first = [p.grad for p in model.parameters()]
    before = state_of(model)
    try:
        check_blocks(model, rows(), wrap)
    except RefusedError as error:
        assert (wrap is failing) == ("it does not work" in str(error))
    else:
        assert wrap is captured_again
    assert_same(before, state_of(model))
    assert all(p.grad is g for p, g in zip(model.parameters(), first, strict=True))


def test_a_model_without_blocks_is_checked_as_one() -> None:
    check = check_blocks(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), rows(), plainly)
    assert check.checked == ("",)
    assert str(check).startswith("checked the model as one block in")


def test_only_two_rows_are_run() -> None:
    seen: list[int] = []

    def watching(block: nn.Module) -> Callable[..., object]:
        return lambda x: (seen.append(len(x)), block(x))[1]

    model = transformer(0.1)
    model[0].register_forward_hook(lambda _, __, out: seen.append(len(out)))
    check_blocks(model, sequence(), watching)
    assert seen == [2, 2]


@pytest.fixture(scope="module")
def foreseen() -> int:
    """The least budget within which two rows of `wide` are checked."""
    low, high = 2**18, 2**21
    while high - low > 2**11:
        middle = (low + high) // 2
        low, high = (low, middle) if rows_run(middle)[0] == [2] else (middle, high)
    return high


def rows_run(budget: int) -> tuple[list[int], BlockCheck]:
    """Return how many rows the blocks of `wide` are run on within a budget."""
    seen: list[int] = []

    def watching(block: nn.Module) -> Callable[..., object]:
        return lambda x: (seen.append(len(x)), block(x))[1]

    return seen, check_blocks(wide(), sequence(), watching, budget_bytes=budget)


def wide() -> nn.Module:
    """Return a model whose blocks take more than the rest of it."""
    return transformer(0.1, width=64)


@pytest.mark.parametrize(("share", "rows_seen"), [(1.0, [2]), (0.75, [1]), (0.1, [])])
def test_a_slice_stays_within_the_budget(foreseen: int, share: float, rows_seen: list[int]) -> None:
    seen, check = rows_run(round(share * foreseen))
    assert seen == rows_seen
    assert ("one row takes" in str(check)) == (not seen)


def test_what_is_foreseen_is_what_a_check_takes(foreseen: int) -> None:
    model, x = wide(), sequence()
    for wrap in (lambda block: block, captured_again):
        check_blocks(model, x, wrap)
        measured = measure_step(
            lambda wrap=wrap: check_blocks(model, x, wrap) and None,
            roots=lambda: [*model.parameters(), x],
        )
        taken = measured.peak - measured.static
        assert 0.8 * foreseen < taken <= foreseen


def test_the_forward_keeps_nothing_for_a_backward() -> None:
    taken, x = [], sequence()
    for depth in (2, 8):
        model = transformer(0.1, depth=depth)
        step = functools.partial(check_blocks, model, x, lambda block: block)
        step()
        measured = measure_step(
            lambda step=step: step() and None, roots=lambda m=model: [*m.parameters(), x]
        )
        taken.append(measured.peak - measured.static)
    assert taken[1] < 1.1 * taken[0]


def test_a_model_that_does_not_run_on_two_rows_is_not_checked() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Attending(8, 0.1), Attending(8, 0.1)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) != 8:
                raise ValueError("give me all rows")
            for layer in self.layers:
                x = layer(x)
            return x

    check = check_blocks(Whole(), sequence(), plainly)
    assert "give me all rows" in str(check)


def test_copies_of_alike_blocks_share_a_check_whatever_their_number() -> None:
    model = transformer(0.1, depth=4)
    for number, layer in enumerate(model):
        layer.layer_idx = number
        layer.scaled_by_layer_idx = False
        if isinstance(layer, Attending):
            layer.drop = nn.Dropout(0.1 * number)
    assert check_blocks(model, sequence(), plainly).checked == ("1",)
    other = copy.deepcopy(model)
    other[2].drop = nn.Dropout(0.0)
    other[3].scale = 2
    assert check_blocks(other, sequence(), plainly).checked == ("1", "2", "3")
