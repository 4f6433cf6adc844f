"""One training process of the demo: `python demo_child.py SETTINGS`, started by demo.py.

It tells what happens as lines of JSON on its standard output; everything else that is printed
goes to standard error. Where it runs out of memory it dies of the error, as any program does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO, TypeAlias

import torch
import transformers
import tweets
from demo_terms import ALLOWANCE, BUDGET_SHARE, MEASURED_STEP, Mode, Settings
from limited import enforce, read_status

import shoestring
from shoestring.measure.tracing.allocator import measure_step, standing

Batch: TypeAlias = dict[str, torch.Tensor]
Step: TypeAlias = Callable[[Batch], torch.Tensor]
Tell: TypeAlias = Callable[..., None]


def main() -> None:
    """Train as the settings in the first argument say."""
    settings = Settings.from_json(sys.argv[1])
    with _own_channel() as channel:
        run(settings, functools.partial(_tell, channel))


def run(settings: Settings, tell: Tell) -> None:
    """Load, train and test, telling every event.

    Args:
        settings: what to do.
        tell: called with the event's name and its figures.
    """
    torch.set_num_threads(settings.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    data = load_data(settings)
    warm_up(settings)
    gc.collect()
    tell("ready", loaded=read_status("VmData"), torch=torch.__version__)
    if settings.limit is not None:
        enforce(settings.limit)

    torch.manual_seed(settings.seed)  # the new classifier draws its weights
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        settings.model, num_labels=len(tweets.LABELS)
    )
    model.train()
    optimizer, step = prepare(model, data.batch(0), settings, tell)
    torch.manual_seed(settings.seed)  # dropout draws from here on, in every run alike
    train(model, optimizer, step, data, settings, tell)
    optimizer.zero_grad()
    tell("tested", accuracy=test(model, data, settings), rows=len(data.test_labels))


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """Tokenised tweets.

    Attributes:
        train: input_ids and attention_mask (tweets x length, int64).
        train_labels: int64.
        test: as `train`.
        test_labels: int64.
        rows: tweets in a batch.
    """

    train: Batch
    train_labels: torch.Tensor
    test: Batch
    test_labels: torch.Tensor
    rows: int

    def batch(self, index: int) -> Batch:
        """Return one training batch, beginning again when the corpus is used up.

        Args:
            index: of the step.
        """
        start = index * self.rows % (len(self.train_labels) - self.rows + 1)
        part = slice(start, start + self.rows)
        # Clones, so that a batch holds its own bytes and not the whole corpus.
        batch = {name: tensor[part].clone() for name, tensor in self.train.items()}
        return {**batch, "labels": self.train_labels[part].clone()}


def load_data(settings: Settings) -> Data:
    """Read and tokenise as many tweets as the run needs.

    Args:
        settings: of the run.
    """
    corpus = tweets.load(seed=settings.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.model)

    def tokenise(part: Sequence[tweets.Tweet]) -> tuple[Batch, torch.Tensor]:
        tokens = tokenizer(
            [tweet.text for tweet in part],
            padding="max_length",
            truncation=True,
            max_length=settings.length,
            return_tensors="pt",
        )
        labels = torch.tensor([tweet.label for tweet in part])
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}, labels

    train, train_labels = tokenise(corpus.train[: settings.steps * settings.rows])
    test_part, test_labels = tokenise(corpus.test[: settings.test_rows])
    return Data(train, train_labels, test_part, test_labels, settings.rows)


def warm_up(settings: Settings) -> None:
    """Load what a step loads on first use, so that it counts as library and not as step.

    That is: the model's code, the threads, the matrix library's work buffers, which depend
    on the width of the layers, the profiler, and shoestring's tracer and planner. A plan is made
    for the whole model, without its weights; and a model of one layer and few words, with the
    same widths, is trained plainly and as the plan says, measured, then dropped.

    Args:
        settings: of the run.
    """
    config = transformers.AutoConfig.from_pretrained(settings.model)
    layers = config.num_hidden_layers
    config.num_hidden_layers, config.vocab_size = 1, 64
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    tokens = torch.zeros(settings.rows, settings.length, dtype=torch.int64)
    batch = {"input_ids": tokens, "attention_mask": tokens + 1, "labels": tokens[:, 0].clone()}
    step = functools.partial(plain_step, model, optimizer)
    step(batch)
    with torch.device("meta"):
        whole = transformers.AutoModelForSequenceClassification.from_config(
            transformers.AutoConfig.from_pretrained(settings.model)
        )
    plan = shoestring.plan(
        shoestring.profile(whole, batch, optimizer=torch.optim.AdamW),
        shoestring.Budget(memory=f"{BUDGET_SHARE:.0%}"),
    )
    for technique in plan.steps:
        technique.apply(model)
    # As many layers in one measurement as the whole model has: what measuring takes stays taken.
    measure(functools.partial(repeat, step, layers), model, optimizer, batch)


def repeat(step: Step, times: int, batch: Batch) -> torch.Tensor:
    """Train several steps on one batch and return the last loss.

    Args:
        step: trains on one batch.
        times: how many, at least 1.
        batch: the batch.
    """
    return [step(batch) for _ in range(times)][-1]


def prepare(
    model: torch.nn.Module, batch: Batch, settings: Settings, tell: Tell
) -> tuple[torch.optim.Optimizer, Step]:
    """Return the optimizer and the training step.

    Args:
        model: the model to train; changed in place where there is a plan.
        batch: one batch, for its shapes.
        settings: of the run.
        tell: is told the plan.
    """
    if settings.mode is Mode.PLAIN:
        plain = torch.optim.AdamW(model.parameters(), lr=settings.lr)
        return plain, functools.partial(plain_step, model, plain)

    began = time.perf_counter()
    adamw = functools.partial(torch.optim.AdamW, lr=settings.lr)
    prof = shoestring.profile(model, batch, optimizer=adamw)
    # A plan fills a budget to the last MiB; what Python takes beside tensors grows a little.
    plan = shoestring.plan(prof, shoestring.Budget(memory=settings.budget - ALLOWANCE))
    plan.apply(model)
    optimizer = plan.optimizer(model.parameters(), lr=settings.lr)
    gc.collect()  # what planning leaves behind would be collected some steps later
    tell(
        "planned",
        plain_peak=prof.peak,
        peak=plan.predicted.peak,
        changes=[change.describe() for change in plan.steps],
        seconds=time.perf_counter() - began,
    )
    return optimizer, functools.partial(shoestring_step, model, optimizer, plan)


def plain_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch
) -> torch.Tensor:
    """Train one step as every tutorial does.

    Args:
        model: the model.
        optimizer: over its parameters.
        batch: keywords of the model, labels included.

    Returns:
        The loss.
    """
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    return loss.detach()


def shoestring_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, plan: shoestring.Plan, batch: Batch
) -> torch.Tensor:
    """Train one step as the plan says.

    Args:
        model: the model that the plan was applied to.
        optimizer: what the plan made.
        plan: the plan.
        batch: keywords of the model, labels included.

    Returns:
        The loss.
    """
    optimizer.zero_grad()
    losses = []
    with plan.context():
        for part, weight in plan.split(batch):
            loss = model(**part).loss * weight
            loss.backward()
            losses.append(loss.detach())
    optimizer.step()
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Step,
    data: Data,
    settings: Settings,
    tell: Tell,
) -> None:
    """Train for the settings' number of steps, and measure one of them.

    Args:
        model: the model.
        optimizer: over its parameters.
        step: trains on one batch.
        data: where the batches come from.
        settings: of the run.
        tell: is told every step, the measured peak, and how large the process became.
    """
    resident = 0
    index = 0
    try:
        for index in range(settings.steps):
            batch = data.batch(index)
            began = time.perf_counter()
            if index == MEASURED_STEP:
                resident = read_status("VmHWM")  # measuring begins a new highest size
                loss, peak = measure(step, model, optimizer, batch)
                tell("measured", peak=peak)
            else:
                loss = step(batch)
            seconds = time.perf_counter() - began
            tell("step", index=index, loss=loss.item().hex(), seconds=seconds)
    except (RuntimeError, MemoryError):
        tell("stopped", index=index, resident=max(resident, read_status("VmHWM")))
        raise
    tell("trained", resident=max(resident, read_status("VmHWM")))


def measure(
    step: Step, model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch
) -> tuple[torch.Tensor, int]:
    """Train one step and return its loss and the most bytes that were alive meanwhile.

    Args:
        step: trains on one batch.
        model: the model.
        optimizer: over its parameters.
        batch: the batch.
    """
    losses: list[torch.Tensor] = []
    measured = measure_step(
        lambda: losses.append(step(batch)), roots=lambda: standing(model, batch, optimizer)
    )
    return losses[0], measured.peak


def test(model: torch.nn.Module, data: Data, settings: Settings) -> float:
    """Return the share of held-out tweets whose sentiment the model finds.

    Args:
        model: the trained model.
        data: holds the tweets.
        settings: of the run.
    """
    model.eval()
    lengths = data.test["attention_mask"].sum(1)
    right = 0
    with torch.inference_mode():
        for rows in lengths.argsort(stable=True).split(settings.rows):
            longest = int(lengths[rows].max())  # tweets of like length share a batch
            batch = {name: tensor[rows, :longest] for name, tensor in data.test.items()}
            found = model(**batch).logits.argmax(1)
            right += int((found == data.test_labels[rows]).sum())
    return right / len(data.test_labels)


def _tell(channel: TextIO, event: str, **figures: object) -> None:
    print(json.dumps({"event": event, **figures}), file=channel, flush=True)


@contextlib.contextmanager
def _own_channel() -> Iterator[TextIO]:
    # Libraries print to standard output as they please; none of it may get between the lines.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        yield channel


if __name__ == "__main__":
    main()
