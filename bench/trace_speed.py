"""How long it takes to trace a step without data, against torch's MemTracker and against bars.

    python -m bench.trace_speed [gpt2 | llama-7b | bars] ...

Both sides get the same models, batch and AdamW. The peer is given what costs it least: its
model and optimizer state are made of fake tensors before the clock starts, and it tracks one
step. Ours is the whole of `shoestring.profile` on a model on the meta device. The bars are
held against a fresh process with an empty cache, from the configuration to the peak.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

import shoestring
from bench.harness import (
    ROOT,
    Result,
    interleave,
    make_result,
    one_thread,
    source_hash,
    write_result,
)
from bench.peers import TRACKED, tracked_peak
from shoestring.measure.tracing.allocator import steady_step

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOMS: Final = ("core", "measure", "planner")
GIB: Final = 2**30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A language model and its batch.

    Attributes:
        title: for people.
        config: class of its configuration in transformers.
        options: of the configuration.
        rows: of the batch.
        length: tokens of a row.
        dtype: of the parameters.
    """

    title: str
    config: str
    options: dict[str, int]
    rows: int
    length: int
    dtype: torch.dtype

    def build(self) -> nn.Module:
        """Return the model in training mode, on the device and in the mode that are set."""
        import transformers

        config = getattr(transformers, self.config)(**self.options)
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
        finally:
            torch.set_default_dtype(before)
        return model.train()

    def batch(self) -> dict[str, torch.Tensor]:
        """Return a batch of zeros."""
        tokens = torch.zeros(self.rows, self.length, dtype=torch.int64)
        return {"input_ids": tokens, "labels": tokens.clone()}


def _llama(title: str, layers: int, hidden: int, inner: int, heads: int, shared: int) -> Shape:
    options = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "vocab_size": 32000,
    }
    return Shape(
        title=title,
        config="LlamaConfig",
        options=options,
        rows=4,
        length=2048,
        dtype=torch.bfloat16,
    )


SHAPES: Final[dict[str, Shape]] = {
    "gpt2": Shape(
        title="GPT-2 small, 8 x 1024, float32",
        config="GPT2Config",
        options={},
        rows=8,
        length=1024,
        dtype=torch.float32,
    ),
    "llama-7b": _llama("Llama-shaped 6.7B, 4 x 2048, bfloat16", 32, 4096, 11008, 32, 32),
    "llama-70b": _llama("Llama-shaped 70B, 4 x 2048, bfloat16", 80, 8192, 28672, 64, 8),
}
COMPARED: Final = {"gpt2": 7, "llama-7b": 3}
"""Shapes that are compared with the peer, and the samples of each."""
BARS: Final = (
    ("llama-7b", "seconds", 15.0),
    ("llama-7b", "resident", float(GIB)),
    ("llama-70b", "seconds", 40.0),
)
"""Shape, figure and the most it may be."""
UNITS: Final = {"seconds": "s", "resident": "bytes"}


def compare(name: str, *, rounds: int) -> Result:
    """Time our trace of a shape against the peer's, in turns.

    Args:
        name: one of `SHAPES`.
        rounds: samples of each.

    Raises:
        RuntimeError: the two do not find the same peak within 5 %, so that their times are
            not of the same work.
    """
    before = source_hash(ROOMS)
    shape = SHAPES[name]
    with torch.device("meta"):
        model = shape.build()
    batch = shape.batch()
    peaks: dict[str, int] = {}
    peer = _peer(shape, peaks)

    def ours() -> None:
        peaks["ours"] = shoestring.profile(model, batch, optimizer=torch.optim.AdamW).peak

    samples = interleave(ours, peer, rounds=rounds)
    if abs(peaks["ours"] / peaks["peer"] - 1) > 0.05:
        raise RuntimeError(f"the peaks differ, so the work does: {peaks}")
    return make_result(
        f"trace-speed/{name}",
        ours="shoestring.profile",
        peer=TRACKED,
        peer_version=torch.__version__,
        peer_options={"fake": True, "tracked_steps": 1, "timed": "tracker and step only"},
        samples=samples,
        unit="CPU s",
        rooms=ROOMS,
        command=("bench.trace_speed", name),
        dtype=str(shape.dtype).removeprefix("torch."),
        limit=1.0,
        note=shape.title + ", AdamW",
        made_with=before,
    )


def _peer(shape: Shape, peaks: dict[str, int]) -> Callable[[], None]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    with mode:
        model, batch = shape.build(), shape.batch()
        optimizer = torch.optim.AdamW(model.parameters())
        steady_step(model, batch, optimizer)()  # makes the optimizer's state

    def peer() -> None:
        with mode:
            peaks["peer"] = tracked_peak(model, batch, optimizer, None)

    return peer


def measure_bar(name: str) -> dict[str, float]:
    """Profile a shape once, from its configuration, in this process.

    Args:
        name: one of `SHAPES`.

    Returns:
        seconds by the clock, seconds of the processor, highest resident size of the process
        in bytes with all its libraries, and the peak found.
    """
    import transformers  # noqa: F401 - loading libraries is no part of the bar

    begin, worked = time.perf_counter(), time.process_time()
    shape = SHAPES[name]
    with torch.device("meta"):
        model = shape.build()
    peak = shoestring.profile(model, shape.batch(), optimizer=torch.optim.AdamW).peak
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - worked,
        "resident": float(highest_resident()),
        "peak": float(peak),
    }


def highest_resident() -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell the highest resident size")


def _fresh(name: str) -> Mapping[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        return fresh_figures("bench.trace_speed", "--child", name, SHOESTRING_CACHE=cache)


def fresh_figures(*words: str, **environment: str) -> Mapping[str, float]:
    """Run a module in a process of its own, on one thread; return the figures of its last line.

    Args:
        words: after ``python -m``.
        environment: variables beside this process's own.

    Raises:
        RuntimeError: it failed.
    """
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        **environment,
    }
    command = [sys.executable, "-m", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-500:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def hold_bars(*, rounds: int = 3) -> list[Result]:
    """Hold fresh processes against the bars.

    Args:
        rounds: processes for each shape.
    """
    before = source_hash(ROOMS)
    results = []
    for name in dict.fromkeys(name for name, _, _ in BARS):
        runs = [_fresh(name) for _ in range(rounds)]
        for shape, figure, most in BARS:
            if shape != name:
                continue
            made = bar_result(
                f"trace-speed/{name}-{figure}",
                runs,
                figure,
                most,
                unit=UNITS[figure],
                ours="shoestring.profile",
                rooms=ROOMS,
                command=("bench.trace_speed", "bars"),
                dtype=SHAPES[name].dtype,
                note=SHAPES[name].title + ", AdamW; fresh process, empty cache",
                made_with=before,
            )
            results.append(made)
    return results


def bar_result(
    scenario: str,
    runs: Sequence[Mapping[str, float]],
    figure: str,
    most: float,
    *,
    unit: str,
    ours: str,
    rooms: Sequence[str],
    command: tuple[str, ...],
    dtype: torch.dtype,
    note: str,
    made_with: str,
) -> Result:
    """Return the result of a figure of fresh processes that is held against a bar.

    Args:
        scenario: its name.
        runs: the figures of each process.
        figure: which of them; ``seconds`` go with those of the processor.
        most: that it may be.
        unit: of the figure.
        ours: what was run.
        rooms: that it depends on.
        command: that makes it.
        dtype: of the model.
        note: what was run, for people.
        made_with: hash of the sources before.
    """
    samples = {"ours": [run[figure] for run in runs], "peer": [most]}
    if figure == "seconds":
        samples["cpu_seconds"] = [run["cpu_seconds"] for run in runs]
    samples |= {"flops": [run["flops"] for run in runs]} if "flops" in runs[0] else {}
    return make_result(
        scenario,
        ours=ours,
        peer="bar",
        samples=samples,
        unit=unit,
        rooms=rooms,
        command=command,
        dtype=str(dtype).removeprefix("torch."),
        limit=1.0,
        note=note,
        made_with=made_with,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the scenario.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="gpt2, llama-7b, bars; all")
    parser.add_argument("--rounds", type=int, help="samples of each side")
    parser.add_argument("--child", choices=list(SHAPES), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    parts = options.parts or [*COMPARED, "bars"]
    if unknown := sorted(set(parts) - {*COMPARED, "bars"}):
        parser.error(f"there is no part {unknown[0]!r}: choose from {', '.join(COMPARED)}, bars.")
    one_thread()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.child:
        print(json.dumps(measure_bar(options.child)))
        return
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SHOESTRING_CACHE"] = cache  # what earlier runs found out is not believed
        for part in parts:
            if part == "bars":
                results = hold_bars(rounds=options.rounds or 3)
            else:
                results = [compare(part, rounds=options.rounds or COMPARED[part])]
            for result in results:
                write_result(result)
                print(_line(result), flush=True)


def _line(result: Result) -> str:
    assert result.ratio is not None
    assert result.spread is not None
    verdict = "met" if result.met else "missed"
    low, high = result.spread
    against = f"{result.ratio:.3f} x {result.peer} ({low:.3f} to {high:.3f})"
    return f"{result.scenario:<32} {against}  {verdict}"


if __name__ == "__main__":
    main()
