"""The thirty models by a twin forward: as copies that were moved, or in place for a reason."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from torch import nn

from shoestring.measure.tracing.step import call_model
from shoestring.zeroth.asking import InPlace
from shoestring.zeroth.directions import Direction, family
from shoestring.zeroth.twin import TwinForward, TwinWarning
from tests.oracles import twin as oracle
from tests.zoo import ZOO, Batch, Case

STATISTICS = "changes its running statistics in training"

REASONS = {
    "regnet": STATISTICS,
    "resnet": STATISTICS,
    "unet": STATISTICS,
    "densenet": STATISTICS,
    "tabular": STATISTICS,
    "mixtral": "scatter_add_",  # its experts write into a table that is the same at all places
}
"""Models in training whose parameters are moved in place, and why."""

EVALUATED = {"mixtral": "scatter_add_", "mamba": "inplace arithmetic"}
"""The same in evaluation: there Mamba writes into a state that it has made."""

COPIED = {
    "deberta": 1,  # positions, by a normalisation
    "fno": 4,  # weights seen as complex numbers
    "gnn": 8,  # cells of a recurrent layer
    "lstm": 4,
    "mamba": 12,
    "seq2seq": 6,
    "swin": 6,  # tables of positions, indexed
    "vit": 2,  # a token and positions, added
    "wav2vec2": 2,  # a normalised weight
    "whisper": 1,  # positions, indexed
}
"""Matrices that are copied for every place."""

ELSEWHERE = {"lstm"}
"""Models whose dropout lays out its mask otherwise than it is laid out place by place."""

FLOAT32 = {"gpt2", "opt", "llama", "mistral", "qwen", "gemma", "mamba"}
"""Models that take their loss in float32 whatever their parameters are in."""


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad(), torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TwinWarning)
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)
def test_a_model_of_the_zoo(case: Case, training: bool) -> None:
    pytest.importorskip("transformers")
    model, batch = case.build().double().train(training), _double(case.batch(2))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    radii = [1e-3] * len(parameters)
    forward = TwinForward(model, parameters)
    versions = [parameter._version for parameter in parameters]

    def along(index: int) -> list[Direction]:
        return family("rank1")(parameters, 100 + index)

    def loss(asked: nn.Module) -> torch.Tensor:
        np.random.seed(0)  # noqa: NPY002  # transformers masks audio by it
        return _loss(case, call_model(asked, batch), batch)

    in_place = InPlace(lambda: loss(model), lambda place: None, 0)
    state = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", TwinWarning)
        asking = forward.asking(lambda: loss(model), along, radii, in_place)
        found = asking.sides(2)
    reason = (REASONS if training else EVALUATED).get(case.name)
    if reason is not None:
        assert reason in str(forward.watch.reason)
        assert [w for w in told if w.category is TwinWarning and reason in str(w.message)]
        return
    assert forward.watch.reason is None
    assert len(forward.copied) == COPIED.get(case.name, 0)
    if case.name != "wav2vec2":  # a parameter that only training reads is tried once
        assert [parameter._version for parameter in parameters] == versions
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    expected = oracle.sides(model, loss, [along(0), along(1)], radii)
    assert torch.equal(torch.get_rng_state(), after)
    exact = 1e-6 if case.name in FLOAT32 else 1e-11
    if training and case.name in ELSEWHERE:
        exact = 0.1
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), rtol=exact, atol=0)


def test_twenty_seven_models_are_asked_in_one_call() -> None:
    assert len(ZOO) - len(EVALUATED) >= 27


def _loss(case: Case, output: object, batch: Batch) -> torch.Tensor:
    if case.loss is not None:
        return case.loss(output, batch)
    if isinstance(output, torch.Tensor):
        return output
    return output["loss"] if isinstance(output, Mapping) else output.loss  # type: ignore[attr-defined]


def _double(batch: Batch) -> Batch:
    if isinstance(batch, torch.Tensor):
        return batch.double() if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {name: _double(value) for name, value in batch.items()}  # type: ignore[misc]
    return tuple(_double(value) for value in batch)  # type: ignore[misc]
