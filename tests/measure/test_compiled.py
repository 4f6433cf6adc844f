"""Compiled code is counted from its graphs, and left as it was."""

from __future__ import annotations

import contextlib
import gc
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
import torch._dynamo as dynamo
from torch import nn
from torch.utils.checkpoint import checkpoint

from shoestring.core.trace import Op, Phase
from shoestring.measure import _torch
from shoestring.measure.counting import _torch as compiler
from shoestring.measure.counting.compiled import GraphTracer, counted_graphs
from shoestring.measure.tracing.tracer import Tracer

# Dynamo looks whether its inputs have gradients, and hides the warning it gets where it can.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

ROWS, WIDTH = 4, 32
LINEAR = 2 * ROWS * WIDTH * WIDTH  # FLOPs

Step = Callable[[nn.Module], torch.Tensor]


@pytest.fixture(autouse=True)
def _compiler_afresh() -> Iterator[None]:
    yield
    dynamo.reset()


class Block(nn.Module):
    """Between its products are operators that a backward would rather compute twice."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(dropout)
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.drop(nn.functional.gelu(self.up(self.norm(x)))))


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(dropout), Block(dropout)])
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=4, stride=2),
            nn.BatchNorm2d(8),
            nn.GELU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).flatten(1)


class Checkpointed(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(dropout), nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = checkpoint(self.body, x, use_reentrant=False)
        return y.relu()


class Broken(nn.Module):
    """What comes between its layers cannot be compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        dynamo.graph_break()
        return self.second(x)


class Choice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.cond(x.sum() > 0, self.one, lambda x: self.other(self.one(x)), (x,))
        return y


def rows(number: int = ROWS) -> torch.Tensor:
    return torch.linspace(-1, 1.5, number * WIDTH).reshape(number, WIDTH)


def on_rows(model: nn.Module) -> torch.Tensor:
    return model(rows()).square().sum()


def on_images(model: nn.Module) -> torch.Tensor:
    return model(torch.linspace(-1, 1, 4 * 3 * 64).reshape(4, 3, 8, 8)).square().sum()


TOKENS = torch.arange(24).reshape(2, 12)


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=50,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
        loss_type="ForCausalLM",
    )
    return transformers.GPT2LMHeadModel(config)


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=2,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=50,
        max_position_embeddings=16,
    )
    return transformers.BertForSequenceClassification(config)


def on_text(model: nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS, labels=TOKENS).loss


def on_sentences(model: nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS, labels=torch.tensor([0, 1])).loss


def ops_of(
    code: Callable[[], object],
    *,
    kind: type[Tracer] = GraphTracer,
    model: nn.Module | None = None,
) -> tuple[Op, ...]:
    """Return the operations of some code; ``model`` gives modules their names."""
    tracer = kind(assume_scalars=False)
    following = contextlib.nullcontext() if model is None else tracer.watching(model)
    with counted_graphs(), following, tracer:
        code()
    return tracer.trace(rows=1, steady=False).ops


def flops(ops: tuple[Op, ...]) -> Counter[Phase]:
    """Return the FLOPs of each phase that has any."""
    found: Counter[Phase] = Counter()
    for op in ops:
        found[op.phase] += op.flops
    return +found


def trained(model: nn.Module, step: Step) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad()
        step(model).backward()

    return run


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def whole(model: nn.Module) -> nn.Module:
    compiled = torch.compile(model, backend="aot_eager")
    assert isinstance(compiled, nn.Module)
    return compiled


def in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def by_block(model: nn.Module) -> nn.Module:
    for block in model.transformer.h if hasattr(model, "transformer") else model.blocks:
        block.compile(backend="aot_eager")
    return model


@pytest.mark.parametrize(
    ("make", "step", "compiled"),
    [
        (Net, on_rows, whole),
        (lambda: Net(0.2), on_rows, in_place),
        (Net, on_rows, by_block),
        (Convolutions, on_images, whole),
        (Broken, on_rows, whole),
        (gpt2, on_text, whole),
        (gpt2, on_text, by_block),
        (bert, on_sentences, in_place),
    ],
    ids=["net", "dropout", "blocks", "conv", "broken", "gpt2", "gpt2-blocks", "bert"],
)
def test_totals_and_results_are_those_of_eager(
    make: Callable[[], nn.Module], step: Step, compiled: Callable[[nn.Module], nn.Module]
) -> None:
    plain, twin = seeded(make), seeded(make)
    torch.manual_seed(1)
    eager = flops(ops_of(trained(plain, step), kind=Tracer))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    ops = ops_of(trained(compiled(twin), step))

    assert flops(ops) == eager
    assert torch.equal(torch.get_rng_state(), state)
    assert all(op.known for op in ops), {op.name for op in ops if not op.known}
    assert any(op.phase is Phase.RECOMPUTE for op in ops)  # so it is the graphs that ran
    for (name, old), new in zip(plain.named_parameters(), twin.parameters(), strict=True):
        assert old.grad is not None, name
        torch.testing.assert_close(new.grad, old.grad, rtol=1e-4, atol=1e-4)
    for old, new in zip(plain.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(new, old)


def test_what_a_backward_repeats_stands_apart() -> None:
    block = seeded(Block)
    step = trained(whole(block), on_rows)
    ops = ops_of(step)
    again = [op for op in ops if op.phase is Phase.RECOMPUTE]
    # (x - mean) / deviation, and 1 + erf(x / sqrt 2): cheap, and used by the backward.
    assert Counter(op.name for op in again) == {
        "aten.sub.Tensor": 1,
        "aten.mul.Tensor": 2,
        "aten.erf.default": 1,
        "aten.add.Tensor": 1,
    }
    assert sum(op.elementwise for op in again) == 5 * ROWS * WIDTH
    erf = [op.phase for op in ops if op.name == "aten.erf.default"]
    assert erf == [Phase.FORWARD, Phase.RECOMPUTE]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpoints_inside_of_compiled_code(dropout: float) -> None:
    plain, twin = (seeded(lambda: Checkpointed(dropout)) for _ in range(2))
    torch.manual_seed(1)
    trained(plain, on_rows)()
    torch.manual_seed(1)
    found = flops(ops_of(trained(whole(twin), on_rows)))
    # The input needs no gradient, so the first layer has one product in backward.
    assert found == {
        Phase.FORWARD: 2 * LINEAR,
        Phase.RECOMPUTE: LINEAR,
        Phase.BACKWARD: 3 * LINEAR,
    }
    for old, new in zip(plain.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(new.grad, old.grad)  # so the same numbers were drawn again


def test_compiled_code_in_a_checkpoint() -> None:
    block = seeded(Block)
    fast = whole(block)
    x = rows().requires_grad_()
    found = flops(ops_of(lambda: checkpoint(fast, x, use_reentrant=False).sum().backward()))
    assert found[Phase.FORWARD] == 2 * LINEAR
    assert found[Phase.RECOMPUTE] == 2 * LINEAR  # the graph of a forward is run as a whole
    assert found[Phase.BACKWARD] == 4 * LINEAR


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_inference(without: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    model = seeded(Convolutions).eval()
    fast = whole(model)
    results = []

    def infer() -> None:
        with without():
            results.append(on_images(fast))

    found = flops(ops_of(infer))
    assert found == flops(ops_of(lambda: on_images(model), kind=Tracer))
    assert set(found) == {Phase.FORWARD}
    torch.testing.assert_close(results[0], on_images(model).detach())


def test_functions_compiled_whole() -> None:
    weight = torch.randn(WIDTH, WIDTH, requires_grad=True)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def product(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x @ weight)

    found = ops_of(lambda: product(rows()).sum().backward())
    assert flops(found) == {Phase.FORWARD: LINEAR, Phase.BACKWARD: LINEAR}
    assert any(op.phase is Phase.RECOMPUTE for op in found)


def test_a_choice_is_counted_as_it_is_made() -> None:
    found = flops(ops_of(trained(whole(seeded(Choice)), on_rows)))
    assert found == {Phase.FORWARD: LINEAR, Phase.BACKWARD: LINEAR}


@pytest.mark.parametrize("dynamic", [None, True])
def test_changing_sizes_are_counted_each(dynamic: bool | None) -> None:
    fast = torch.compile(seeded(Block), backend="aot_eager", dynamic=dynamic)
    numbers = (3, 5, 7, 9)

    def run() -> None:
        for number in numbers:
            fast(rows(number)).square().sum().backward()

    found = flops(ops_of(run))
    layer = 2 * WIDTH * WIDTH * sum(numbers)
    assert found == {Phase.FORWARD: 2 * layer, Phase.BACKWARD: 4 * layer}
    assert len(compiler.regions_of(Block.forward.__code__)) <= 2


def test_fake_tensors() -> None:
    mode = _torch.FakeTensorMode()
    with mode:
        block = Block()
    fast = whole(block)

    def run() -> None:
        with mode:
            fast(torch.ones(ROWS, WIDTH)).sum().backward()

    assert flops(ops_of(run)) == {Phase.FORWARD: 2 * LINEAR, Phase.BACKWARD: 4 * LINEAR}


def test_modules_have_their_own_operations() -> None:
    by_module: list[Counter[str]] = []
    for compiled in (None, whole, in_place, by_block):
        net = seeded(Net)
        fast = net if compiled is None else compiled(net)
        found: Counter[str] = Counter()
        for op in ops_of(trained(fast, on_rows), model=net):
            found[op.module] += op.flops
        by_module.append(+found)
    eager, *graphs = by_module
    assert eager["blocks.1.up"] == 3 * LINEAR
    assert eager["blocks.0.up"] == 3 * LINEAR
    assert all(found == eager for found in graphs)


def test_a_repeated_operation_belongs_to_its_module() -> None:
    net = seeded(Net)
    ops = ops_of(trained(whole(net), on_rows), model=net)
    again = {op.module for op in ops if op.phase is Phase.RECOMPUTE}
    assert {"blocks.0", "blocks.0.norm", "blocks.1", "blocks.1.norm"} >= again
    assert {"blocks.0", "blocks.1"} <= again


def test_following_the_modules_breaks_no_graph() -> None:
    net = seeded(Net)
    step = trained(whole(net), on_rows)
    followed, regions = [], []
    for _ in range(3):
        followed.append(Counter(op.name for op in ops_of(step, model=net)))
        regions.append(compiler.regions_of(Net.forward.__code__))
    assert regions == [regions[0]] * 3  # the hooks of one block are as good as another's
    dynamo.reset()
    alone = Counter(op.name for op in ops_of(step))
    assert followed[-1] == alone


# --- what is left alone ----------------------------------------------------------------------


class Compiles:
    """A user's backend, which counts what it is given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[object, ...]] = []

    def __call__(
        self, module: torch.fx.GraphModule, inputs: list[torch.Tensor]
    ) -> Callable[..., object]:
        self.shapes.append(tuple(inputs[0].shape))
        return module.forward


def scaled() -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that no other test compiles."""

    def scale(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x * 2.0)

    return types.FunctionType(scale.__code__.replace(co_name="scale_once"), globals())


def repeats(fast: Callable[[torch.Tensor], torch.Tensor], number: int = ROWS) -> bool:
    """Return whether counting a function sees that its backward repeats something."""
    x = rows(number).requires_grad_()
    ops = ops_of(lambda: fast(x).sum().backward())
    return any(op.phase is Phase.RECOMPUTE for op in ops)


def test_afterwards_the_old_code_runs_without_being_compiled_again() -> None:
    scale, backend = scaled(), Compiles()
    fast = torch.compile(scale, backend=backend)
    fast(rows())
    found = []
    for _ in range(5):
        assert repeats(fast)
        found.append(compiler.regions_of(scale.__code__))
        with torch.compiler.set_stance("fail_on_recompile"):
            fast(rows())
    assert len(backend.shapes) == 1
    assert len(found[0]) == 2  # the user's own, and that of the blocks
    assert found[0].count(-1) == 1
    assert all(regions == found[0] for regions in found)


@pytest.mark.filterwarnings("ignore:`torch.jit.script")
def test_what_inductor_was_to_compile_needs_no_compiler() -> None:
    assert repeats(torch.compile(scaled()))


def test_the_first_count_is_not_what_the_compiler_learns_from() -> None:
    backend = Compiles()
    fast = torch.compile(scaled(), backend=backend)
    assert repeats(fast, 3)
    assert repeats(fast, 5)
    fast(rows(7))
    assert backend.shapes == [(7, WIDTH)]  # a number, not a symbol


def test_counts_use_up_no_limit_and_know_none() -> None:
    scale, backend = scaled(), Compiles()
    fast = torch.compile(scale, backend=backend, dynamic=False)
    limit = dynamo.config.recompile_limit
    for number in range(2, limit + 4):
        assert repeats(fast, number)
    for number in range(2, limit + 2):
        fast(rows(number))
    assert len(backend.shapes) == limit
    assert dynamo.config.recompile_limit == limit


def test_the_stance_is_put_back() -> None:
    fast, backend = scaled(), Compiles()
    with torch.compiler.set_stance("default", force_backend=backend):
        with contextlib.suppress(ZeroDivisionError), counted_graphs():
            with counted_graphs():
                pass
            assert repeats(torch.compile(fast, backend="eager"))
            raise ZeroDivisionError
        torch.compile(fast, backend="eager")(rows())
    assert len(backend.shapes) == 1


def test_code_told_to_run_eager_does() -> None:
    fast = torch.compile(scaled(), backend="eager")
    with torch.compiler.set_stance("force_eager"):
        assert not repeats(fast)
    assert repeats(fast)


def test_blocks_of_two_threads_may_overlap() -> None:
    scale, backend = scaled(), Compiles()
    fast = torch.compile(scale, backend=backend)
    seen: list[bool] = []
    begun, left = threading.Event(), threading.Event()

    def other() -> None:
        with counted_graphs():
            begun.set()
            assert left.wait(60)
            seen.append(repeats(fast))

    thread = threading.Thread(target=other)
    with counted_graphs():
        thread.start()
        assert begun.wait(60)
    left.set()
    thread.join(60)
    assert seen == [True]
    assert not backend.shapes
    fast(rows())
    assert len(backend.shapes) == 1


def test_a_model_dies_as_it_does_without_a_count() -> None:
    block = Block()
    fast = whole(block)
    ops_of(trained(fast, on_rows), model=block)
    ended = weakref.ref(block)
    del block, fast
    gc.collect()
    assert ended() is None


def test_a_backward_may_come_after_its_block() -> None:
    plain, twin = seeded(Block), seeded(Block)
    on_rows(plain).backward()
    losses: list[torch.Tensor] = []
    ops_of(lambda: losses.append(on_rows(whole(twin))))
    losses[0].backward()
    for old, new in zip(plain.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(new.grad, old.grad)


def test_two_tracers_see_the_same() -> None:
    fast = whole(seeded(Block))
    outer = GraphTracer(assume_scalars=False)
    with counted_graphs(), outer:
        inner = ops_of(trained(fast, on_rows))
    whole_step = outer.trace(rows=1, steady=False).ops
    assert flops(whole_step) == flops(inner)
    assert [op.phase for op in whole_step] == [op.phase for op in inner]


# --- torch's private interface ---------------------------------------------------------------


def test_a_hook_has_the_same_number_each_time() -> None:
    def hook(module: nn.Module, args: object) -> None:
        seen.append(type(module).__name__)

    seen: list[str] = []
    numbers = []
    for _ in range(2):
        handles = [nn.modules.module.register_module_forward_pre_hook(hook) for _ in range(2)]
        for handle in handles:
            _torch.number_hook(handle)
        numbers.append([handle.id for handle in handles])
        nn.ReLU()(rows())
        for handle in handles:
            handle.remove()
        nn.ReLU()(rows())
    assert numbers == [[-1, -2], [-1, -2]]
    assert seen == ["ReLU"] * 4


def test_a_function_the_compiler_keeps_off() -> None:
    backend = Compiles()

    def inner(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    def outer(x: torch.Tensor) -> torch.Tensor:
        dynamo.graph_break()
        return inner(x)

    _torch.never_compile(outer)
    torch.compile(outer, backend=backend)(rows())
    assert not backend.shapes


def test_a_region_is_new_each_time() -> None:
    assert compiler.new_region() != compiler.new_region()
    assert not compiler.is_compiling_off()
    with torch.compiler.set_stance("force_eager"):
        assert compiler.is_compiling_off()


def test_operators_on_functions_have_an_eager_form() -> None:
    assert compiler.eager_form(torch.ops.higher_order.cond) is not None
    again = torch._prims.rng_prims.run_with_rng_state
    assert compiler.draws_again(again)
    assert not compiler.draws_again(torch.ops.aten.bernoulli.p)
    form = compiler.eager_form(again)
    assert form is not None
    state = torch.get_rng_state()
    drawn = torch.rand(3)
    after = torch.get_rng_state()
    assert torch.equal(form(state, torch.ops.aten.rand.default, [3], device="cpu"), drawn)
    assert torch.equal(torch.get_rng_state(), after)
