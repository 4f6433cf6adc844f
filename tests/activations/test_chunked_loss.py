"""The chunked loss on models: exact, found in the trace, predicted."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shoestring
from shoestring.activations.chunked_loss import ChunkedLoss
from shoestring.activations.deferred_logits import DeferredLogits
from shoestring.core.errors import InputError, NoEffectWarning, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.trace import Phase, Trace
from shoestring.measure.tracing.allocator import measure_step, standing
from tests.activations.same import EXACT, assert_same

transformers = pytest.importorskip("transformers")

# --- models ---------------------------------------------------------------------------------


def causal(name: str, **options: Any) -> nn.Module:
    config = getattr(transformers, f"{name}Config")(**(SMALL | options))
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config)


SMALL = {
    "vocab_size": 61,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSES = {
    "GPT2": "GPT2LMHeadModel",
    "T5": "T5ForConditionalGeneration",
    "Bart": "BartForConditionalGeneration",
    "Bert": "BertForMaskedLM",
}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
OPT = {"ffn_dim": 24, "word_embed_proj_dim": 16}
ZERO = {"attention_dropout": 0.0, "dropout": 0.0, "activation_dropout": 0.0}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: causal("Llama", tie_word_embeddings=False),
    "llama tied, dropout": lambda: causal("Llama", tie_word_embeddings=True, attention_dropout=0.2),
    "mistral": lambda: causal("Mistral"),
    "qwen2": lambda: causal("Qwen2", tie_word_embeddings=True),
    "gemma2": lambda: causal("Gemma2", head_dim=8, final_logit_softcapping=2.0),
    "gpt2": lambda: causal("GPT2", **GPT2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "gpt2 untied, dropout": lambda: causal("GPT2", **GPT2, tie_word_embeddings=False),
    "opt": lambda: causal("OPT", **OPT, **ZERO),
    "opt dropout": lambda: causal("OPT", **OPT, dropout=0.1),
    "t5": lambda: causal("T5", **T5, decoder_start_token_id=0, dropout_rate=0.0),
    "t5 untied, dropout": lambda: causal(
        "T5", **T5, decoder_start_token_id=0, dropout_rate=0.1, tie_word_embeddings=False
    ),
    "bart": lambda: causal("Bart", **BART, **ZERO),
    "bart dropout": lambda: causal("Bart", **BART, dropout=0.1),
    "bert": lambda: causal("Bert", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0),
}
HEADS = {"bert": "cls.predictions.decoder"}


def batch_of(vocabulary: int = 61, rows: int = 3, length: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    words = torch.randint(3, vocabulary, (rows, length), generator=generator)
    labels = words.roll(1, 1)
    labels[0, :5] = -100
    labels[:, -2:] = -100
    return {"input_ids": words, "labels": labels, "attention_mask": torch.ones_like(words)}


def trained(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    output = model(**batch)
    output.loss.backward()
    return output, {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity_warning()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", MODELS)
def test_models_train_as_without_it(name: str) -> None:
    torch.manual_seed(0)
    model, head = MODELS[name]().double().train(), HEADS.get(name, "lm_head")
    batch, keys = batch_of(), list(model.state_dict())
    expected, slopes = trained(model, batch)
    logits = expected.logits.detach().clone()
    most = max(float(slope.abs().max()) for slope in slopes.values())
    technique = ChunkedLoss(head=head)
    technique.apply(model)
    for changed in (model, copy.deepcopy(model)):
        output, got = trained(changed, batch)
        assert isinstance(output.logits, DeferredLogits)
        assert output.logits.deferral.lost
        assert output.logits.deferral.values is None
        assert type(output) is type(expected)
        assert list(output) == list(expected)
        assert_same(output.loss, expected.loss, EXACT)
        for path, slope in slopes.items():
            torch.testing.assert_close(got[path], slope, rtol=0, atol=EXACT * most)
        assert_same(output.logits.detach(), logits, EXACT)
        assert list(changed.state_dict()) == keys
    copied = copy.deepcopy(model).get_submodule(head)
    assert copied.forward.__self__ is copied
    technique.remove(model)
    assert "forward" not in vars(model.get_submodule(head))
    assert type(trained(model, batch)[0].logits) is torch.Tensor


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "bart"])
def test_evaluation_and_generation_are_unchanged(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    words = batch_of()["input_ids"]
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "use_cache": True}
    expected = model.generate(words, **options)
    ChunkedLoss(head="lm_head").apply(model)
    assert torch.equal(model.generate(words, **options), expected)
    assert type(model(**batch_of()).logits) is torch.Tensor
    with torch.no_grad():
        assert type(model.train()(**batch_of()).logits) is torch.Tensor


class Custom(nn.Module):
    """A head of a class of its own, a loss outside the model, and an odd transform."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(61, 8)
        self.out = head

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.embed(input_ids))
        return logits


class TrainedScale(Custom):
    def __init__(self, head: nn.Module) -> None:
        super().__init__(head)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids) * self.scale


class OwnHead(nn.Module):
    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.weight, self.times = nn.Parameter(torch.randn(61, 8)), times

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.times * hidden @ self.weight.t()


def next_word(logits: Any, batch: Any, smoothing: float = 0.1) -> torch.Tensor:
    words = batch["input_ids"]
    return F.cross_entropy(
        logits[:, :-1].reshape(-1, logits.size(-1)),
        words[:, 1:].reshape(-1),
        label_smoothing=smoothing,
    )


def test_a_linear_head_is_known_by_what_it_does_and_not_by_its_class() -> None:
    batch = {"input_ids": batch_of()["input_ids"]}
    model = Custom(OwnHead())
    profile = shoestring.profile(model, batch, loss=next_word)
    assert list(ChunkedLoss.propose(profile)) == [ChunkedLoss(head="out")]
    expected = torch.autograd.grad(next_word(model(**batch), batch), list(model.parameters()))
    ChunkedLoss(head="out").apply(model)
    logits = model(**batch)
    loss = next_word(logits, batch)
    assert logits.deferral.values is None
    for one, other in zip(
        torch.autograd.grad(loss, list(model.parameters())), expected, strict=True
    ):
        assert_same(one, other, 1e-5)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (OwnHead(times=2.0), "does not compute"),
        (nn.Sequential(nn.Linear(8, 61)), "no linear layer"),
        (nn.Bilinear(8, 8, 61), "no linear layer"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(8, 61)), "no linear layer"),
    ],
    ids=["scaled", "container", "bilinear", "weight norm"],
)
def test_a_head_that_is_not_linear_is_refused(head: nn.Module, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        ChunkedLoss(head="out").apply(Custom(head))


def test_a_head_with_hooks_or_another_forward_is_refused() -> None:
    model = Custom(nn.Linear(8, 61))
    handle = model.out.register_forward_hook(lambda *_: None)
    with pytest.raises(RefusedError, match="hooks"):
        ChunkedLoss(head="out").apply(model)
    handle.remove()
    model.out.forward = model.out.forward
    with pytest.raises(RefusedError, match="something else"):
        ChunkedLoss(head="out").apply(model)


def test_apply_and_remove_say_what_is_wrong() -> None:
    model, technique = Custom(nn.Linear(8, 61)), ChunkedLoss(head="out")
    with pytest.raises(InputError, match="no module 'head'"):
        ChunkedLoss(head="head").apply(model)
    with pytest.raises(RefusedError, match="does not defer"):
        technique.remove(model)
    technique.apply(model)
    with pytest.raises(RefusedError, match="already"):
        technique.apply(model)
    technique.remove(model)
    model.requires_grad_(False)
    with pytest.warns(NoEffectWarning, match="no parameter is trained"):
        technique.apply(model)
    assert technique.options() == {"head": "out"}
    assert ChunkedLoss.from_options({"head": "out"}) == technique


def test_a_compiled_model_is_right() -> None:
    torch.manual_seed(0)
    model, batch = Custom(nn.Linear(8, 61)), {"input_ids": batch_of()["input_ids"]}
    expected = next_word(model(**batch), batch)
    ChunkedLoss(head="out").apply(model)
    compiled = torch.compile(model, backend="aot_eager")
    with pytest.warns(NoEffectWarning, match="compiled together with its model"):
        logits = compiled(**batch)
    assert_same(next_word(logits, batch), expected, 1e-6)


def test_a_functional_gradient_is_right() -> None:
    torch.manual_seed(0)
    model, batch = Custom(nn.Linear(8, 61)), {"input_ids": batch_of()["input_ids"]}
    parameters = dict(model.named_parameters())

    def loss(given_: dict[str, torch.Tensor]) -> torch.Tensor:
        return next_word(torch.func.functional_call(model, given_, kwargs=batch), batch)

    expected = torch.func.grad(loss)(parameters)
    ChunkedLoss(head="out").apply(model)
    for path, slope in torch.func.grad(loss)(parameters).items():
        assert_same(slope, expected[path], 1e-6)


# --- the technique --------------------------------------------------------------------------

LARGE = 8000


def large(name: str) -> nn.Module:
    wide = {"vocab_size": LARGE, "hidden_size": 32, "intermediate_size": 64}
    if name == "gpt2":
        return causal("GPT2", **GPT2 | {"n_embd": 32}, vocab_size=LARGE)
    if name == "gemma2":
        return causal("Gemma2", head_dim=16, final_logit_softcapping=2.0, **wide)
    if name == "t5":
        return causal("T5", **T5 | {"d_model": 32}, decoder_start_token_id=0, vocab_size=LARGE)
    if name == "bart":  # eager: with sdpa a mask of ones is dropped, but not on fake tensors
        eager = {"d_model": 32, "attn_implementation": "eager"}
        return causal("Bart", **BART | eager, vocab_size=LARGE)
    if name == "opt":
        return causal("OPT", **OPT | {"word_embed_proj_dim": 32}, **wide)
    return causal("Llama", **wide, tie_word_embeddings=False)


def shifted(output: Any, batch: Any) -> torch.Tensor:
    return next_word(output.logits, batch, 0.0)


def smoothed(output: Any, batch: Any) -> torch.Tensor:
    return next_word(output.logits, batch, 0.1)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"optimizer": torch.optim.AdamW}),
    "llama alone": ("llama", {}),
    "llama, autocast": ("llama", {"autocast": torch.bfloat16}),
    "llama, sliced logits": ("llama", {"loss": shifted}),
    "llama, label smoothing": ("llama", {"loss": smoothed}),
    "gpt2": ("gpt2", {"optimizer": torch.optim.SGD}),
    "gpt2, accumulated": ("gpt2", {"accumulate": 2}),
    "gemma2": ("gemma2", {}),
    "gemma2, autocast": ("gemma2", {"autocast": torch.bfloat16}),
    "t5": ("t5", {}),
    "bart": ("bart", {}),
    "opt": ("opt", {}),
}


def measured_peak(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    *,
    optimizer: type[torch.optim.Optimizer] | None = None,
    loss: Callable[[Any, Any], torch.Tensor] | None = None,
    autocast: torch.dtype | None = None,
    accumulate: int = 1,
) -> int:
    updates = optimizer(model.parameters(), lr=1e-3) if optimizer else None

    def step() -> None:
        model.zero_grad(set_to_none=True)
        for _ in range(accumulate):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
                output = model(**batch)
                value = output.loss if loss is None else loss(output, batch)
            del output
            (value / accumulate).backward()
            del value
        if updates:
            updates.step()

    step()
    step()
    model.zero_grad(set_to_none=True)
    return measure_step(step, roots=lambda: standing(model, batch, updates)).peak


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", CASES)
def test_the_prediction_is_what_the_changed_step_takes(case: str) -> None:
    torch.manual_seed(0)
    name, options = CASES[case]
    model, batch = large(name).train(), batch_of(LARGE, 8, 64)
    del batch["attention_mask"]  # transformers drops one of ones, but not on fake tensors
    if "loss" in options:
        del batch["labels"]  # or the model would take a loss of its own as well
    plain_profile = shoestring.profile(model, batch, **options)
    (technique,) = ChunkedLoss.propose(plain_profile)
    assert technique.refuse(plain_profile) == ""
    assert technique.fidelity(plain_profile) is Fidelity.EXACT
    predicted = technique.predict(plain_profile)
    technique.apply(model)
    profiled = shoestring.profile(model, batch, **options)
    measured = measured_peak(model, batch, **options)
    static = plain_profile.static
    assert plain_profile.peak - static > 1.5 * (predicted.peak - static)
    assert predicted.peak == pytest.approx(profiled.peak, rel=0.02)
    assert predicted.peak == pytest.approx(measured, rel=0.02)
    assert predicted.peak - static == pytest.approx(measured - static, rel=0.05)
    assert predicted.flops == pytest.approx(profiled.flops, rel=1e-9)


def strays(trace: Trace) -> list[str]:
    """Return the operations that use a storage before its birth or after its death.

    The tracer itself writes autograd's additions as if they were made in place.
    """
    found = []
    for number, op in enumerate(trace.ops):
        for storage in (trace.storages[i] for i in (*op.reads, *op.writes)):
            late = storage.death is not None and storage.death < number
            found += [f"{op.name} in {op.module}"] * (late or storage.birth > number)
    return found


@pytest.mark.usefixtures("quiet")
def test_the_predicted_trace_is_consistent() -> None:
    model, batch = large("gemma2").train(), batch_of(LARGE, 8, 64)
    profile = shoestring.profile(model, batch, optimizer=torch.optim.AdamW)
    (technique,) = ChunkedLoss.propose(profile)
    trace = technique.predict(profile).trace
    assert sum(op.phase is Phase.RECOMPUTE for op in trace.ops) >= 5
    assert set(strays(trace)) <= {*strays(profile.trace), "aten.add.Tensor in model.embed_tokens"}


def test_steps_without_such_a_loss_are_refused() -> None:
    batch = {"input_ids": batch_of()["input_ids"]}
    model, technique = Custom(nn.Linear(8, 61)), ChunkedLoss(head="out")

    def refused(loss: Callable[[Any, Any], torch.Tensor], changed: nn.Module = model) -> str:
        profile = shoestring.profile(changed, batch, loss=loss)
        assert list(ChunkedLoss.propose(profile)) == []
        return technique.refuse(profile)

    def used_twice(logits: Any, batch: Any) -> torch.Tensor:
        return next_word(logits, batch) + 1e-4 * logits.logsumexp(-1).square().mean()

    def sigmoid(logits: Any, batch: Any) -> torch.Tensor:
        return next_word(torch.sigmoid(logits), batch)

    assert "no cross-entropy" in refused(lambda logits, _: logits.square().mean())
    assert "used by aten.logsumexp" in refused(used_twice)
    assert "aten.sigmoid" in refused(sigmoid)
    assert "may need a gradient" in refused(next_word, TrainedScale(nn.Linear(8, 61)))
    other = shoestring.profile(model, batch, loss=next_word)
    assert "'head'" in ChunkedLoss(head="head").refuse(other)

    def own(model: nn.Module, batch: Any, optimizer: object) -> None:
        next_word(model(**batch), batch).backward()

    assert "step of your own" in technique.refuse(shoestring.profile(model, batch, step=own))


def test_a_small_head_is_not_proposed() -> None:
    model = nn.Sequential(nn.Linear(64, 512), nn.Tanh(), nn.Linear(512, 3))
    rows, labels = torch.randn(32, 64), torch.randint(0, 3, (32,))
    profile = shoestring.profile(model, rows, loss=lambda y, _: F.cross_entropy(y, labels))
    assert list(ChunkedLoss.propose(profile)) == []


def test_nothing_warns_in_a_plain_run() -> None:
    model, batch = Custom(nn.Linear(8, 61)), {"input_ids": batch_of()["input_ids"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ChunkedLoss(head="out").apply(model)
        next_word(model(**batch), batch).backward()
