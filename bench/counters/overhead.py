"""What counting costs, against torch's FlopCounterMode and against bars.

    python -m bench.counters.overhead [gpt2 | bert | resnet | densenet | bars] ...

Both sides run the same forward, backward and optimizer step of a model that is deep and thin, so
that the time is the counter's, and then give all of their figures. The bars are held against a
fresh process that counts a step of a 70B decoder on fake tensors, from its configuration on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import nn

from bench.counters import hand
from bench.counters.records import ROOMS
from bench.harness import (
    Result,
    interleave,
    make_result,
    one_thread,
    source_hash,
    write_result,
)
from bench.trace_speed import SHAPES, bar_result, fresh_figures, highest_resident
from shoestring.measure.counting.count import count
from shoestring.measure.counting.counts import Count

FOLDER: Final = "counters-speed"
MOST_RATIO: Final = 1.5
LEAST_OPERATIONS: Final = 2000
ROUNDS: Final = 9
GIB: Final = 2**30
LARGE: Final = "llama-70b"
BARS: Final = {"seconds": (15.0, "s"), "resident": (float(GIB), "bytes")}
"""Figure of the large model -> the most it may be, and its unit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deep:
    """A deep and thin model.

    Attributes:
        title: for people.
        build: makes model and a function of it that returns the loss.
    """

    title: str
    build: Callable[[], tuple[nn.Module, Callable[[], torch.Tensor]]]


def _gpt2() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    import transformers

    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=24, n_embd=16, n_head=2, vocab_size=64, n_positions=16, use_cache=False
        )
    )
    tokens = torch.zeros(2, 16, dtype=torch.int64)
    return model, lambda: model(input_ids=tokens, labels=tokens).loss


def _bert() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    import transformers

    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            num_hidden_layers=24, hidden_size=16, num_attention_heads=2, intermediate_size=32,
            vocab_size=64, max_position_embeddings=16,
        )
    )  # fmt: skip
    tokens = torch.zeros(2, 16, dtype=torch.int64)
    return model, lambda: model(input_ids=tokens, labels=tokens).loss


def _resnet() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    import transformers

    model = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[8, 8, 16, 16], depths=[3, 8, 36, 3], num_labels=4
        )
    )
    images, labels = torch.ones(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    return model, lambda: model(pixel_values=images, labels=labels).loss


def _densenet() -> tuple[nn.Module, Callable[[], torch.Tensor]]:
    from tests.zoo.images import DenselyConnected

    model = DenselyConnected(growth=2, layers=(24, 32, 32))
    images, labels = torch.ones(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    return model, lambda: model(images, labels)["loss"]


DEEP: Final[dict[str, Deep]] = {
    "gpt2": Deep("GPT-2, 24 layers", _gpt2),
    "bert": Deep("BERT, 24 layers", _bert),
    "resnet": Deep("ResNet-152", _resnet),
    "densenet": Deep("DenseNet-like, 88 layers", _densenet),
}
"""The models whose steps are counted."""


def read_everything(counted: Count) -> int:
    """Return the length of all that a count tells; each figure is asked for once.

    Args:
        counted: after its block.
    """
    figures = (
        counted.flops,
        counted.macs,
        counted.elementwise_flops,
        counted.params,
        counted.bytes_read,
        counted.bytes_written,
        counted.activation_bytes,
        counted.fused_bytes,
        counted.intensity,
        counted.unknown_ops,
        counted.by_module(),
        counted.by_op(),
        counted.by_phase(),
    )
    written = (counted.table(), counted.to_json(), counted.to_csv(), counted.to_html())
    return len(figures) + sum(map(len, written))


def compare(name: str, *, rounds: int) -> Result:
    """Time counting a step by ours and by FlopCounterMode, in turns.

    Args:
        name: one of `DEEP`.
        rounds: samples of each.

    Raises:
        RuntimeError: the step has too few operations to say much.
    """
    from torch.utils.flop_counter import FlopCounterMode

    before = source_hash(ROOMS)
    model, loss = DEEP[name].build()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # makes the optimizer's state

    def ours() -> None:
        with count(model) as counted:
            step()
        read_everything(counted)

    def peer() -> None:
        with FlopCounterMode(display=False) as counter:
            step()
        counter.get_total_flops()
        counter.get_flop_counts()  # its table needs a package that torch does not bring

    with count(model) as counted:
        step()
    operations = counted.total.calls
    if operations < LEAST_OPERATIONS:
        raise RuntimeError(f"{name} has {operations} operations, and needs {LEAST_OPERATIONS}")
    samples = interleave(ours, peer, rounds=rounds)
    samples["plain"] = interleave(step, step, rounds=rounds)["ours"]
    return make_result(
        f"{FOLDER}/{name}",
        ours="shoestring.measure.count",
        peer="FlopCounterMode",
        peer_version=torch.__version__,
        peer_options={
            "operations": operations,
            "unknown": len(counted.unknown_ops),
            "timed": "step under the counter, get_total_flops, get_flop_counts",
        },
        samples=samples,
        unit="CPU s",
        rooms=ROOMS,
        command=("bench.counters.overhead", name),
        limit=MOST_RATIO,
        note=DEEP[name].title + ", AdamW",
        made_with=before,
    )


def measure_large(name: str = LARGE) -> dict[str, float]:
    """Count a step of a large model on fake tensors once, from its configuration.

    Args:
        name: one of `bench.trace_speed.SHAPES`.

    Returns:
        seconds by the clock, seconds of the processor, highest resident size of the process
        with all its libraries in bytes, and the FLOPs and operators without a formula.
    """
    import transformers  # noqa: F401 - loading libraries is no part of the bar
    from torch._subclasses.fake_tensor import FakeTensorMode

    begin, worked = time.perf_counter(), time.process_time()
    with FakeTensorMode():
        model, batch = SHAPES[name].build(), SHAPES[name].batch()
        with count(model) as counted:
            model(**batch).loss.backward()
        flops, unknown = counted.flops, len(counted.unknown_ops)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - worked,
        "resident": float(highest_resident()),
        "flops": float(flops),
        "unknown": float(unknown),
    }


def large_by_hand(name: str = LARGE) -> int:
    """Return the FLOPs of forward and backward of a large model, by hand.

    Products of matrices have two more of their size in backward; fused attention has two
    products forward and five backward, of every query with every key.

    Args:
        name: of a Llama in `bench.trace_speed.SHAPES`.
    """
    shape = SHAPES[name]
    options, tokens = shape.options, shape.rows * shape.length
    width, heads = options["hidden_size"], options["num_attention_heads"]
    shared = width // heads * options["num_key_value_heads"]
    layer = (
        2 * hand.linear(tokens, width, width)  # query and output
        + 2 * hand.linear(tokens, width, shared)  # key and value
        + 3 * hand.linear(tokens, width, options["intermediate_size"])
    )
    sizes = (shape.rows, heads, shape.length, shape.length, width // heads)
    attention = hand.attention(*sizes) + hand.attention_backward(*sizes)
    layers = options["num_hidden_layers"]
    head = hand.linear(tokens, width, options["vocab_size"])
    return 2 * (layers * (3 * layer + attention) + 3 * head)


def hold_bars(*, rounds: int) -> list[Result]:
    """Hold fresh processes against the bars.

    Args:
        rounds: processes.

    Raises:
        RuntimeError: the count is not that by hand, so that its time says nothing.
    """
    before = source_hash(ROOMS)
    runs = [fresh_figures("bench.counters.overhead", "--child") for _ in range(rounds)]
    if wrong := [run for run in runs if run["flops"] != large_by_hand()]:
        raise RuntimeError(f"{wrong[0]['flops']:.0f} FLOPs are not {large_by_hand()}")
    shape = SHAPES[LARGE]
    results = []
    for figure, (most, unit) in BARS.items():
        made = bar_result(
            f"{FOLDER}/{LARGE}-{figure}",
            runs,
            figure,
            most,
            unit=unit,
            ours="shoestring.measure.count",
            rooms=ROOMS,
            command=("bench.counters.overhead", "bars"),
            dtype=shape.dtype,
            note=f"{shape.title}, forward and backward; fresh process",
            made_with=before,
        )
        results.append(made)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the scenario.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(DEEP)}, bars; all")
    parser.add_argument("--rounds", type=int, help="samples of each side")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    parts = options.parts or [*DEEP, "bars"]
    if unknown := sorted(set(parts) - {*DEEP, "bars"}):
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(DEEP)}, bars.")
    one_thread()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.child:
        print(json.dumps(measure_large()))
        return
    for part in parts:
        results = (
            hold_bars(rounds=options.rounds or 3)
            if part == "bars"
            else [compare(part, rounds=options.rounds or ROUNDS)]
        )
        for result in results:
            write_result(result)
            print(_line(result), flush=True)


def _line(result: Result) -> str:
    assert result.ratio is not None
    assert result.spread is not None
    low, high = result.spread
    against = f"{result.ratio:.3f} x {result.peer} ({low:.3f} to {high:.3f})"
    return f"{result.scenario:<32} {against}  {'met' if result.met else 'missed'}"


if __name__ == "__main__":
    main()
