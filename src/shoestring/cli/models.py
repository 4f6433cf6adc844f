"""MODEL on the command line: what is built, and the batch it is called with.

A MODEL is one of

- ``package.module:factory``, found from the working folder too,
- ``path.py:factory``; without a name, ``model`` is taken, or the only function or class of a
  model in the file,
- a folder with the ``config.json`` of a transformers model; its weights are not needed,
- the name of a Hugging Face model that is in the local cache; nothing is downloaded.

A factory is called without arguments. Its module may also hold two functions:
``batch(*sizes)``, which makes the batch, and ``loss(output, batch)``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeVar

from shoestring.core.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from shoestring.measure.tracing.fake import Batch
    from shoestring.measure.tracing.step import Loss

T = TypeVar("T")

_HELPERS: Final = ("batch", "loss")
_MOST_ELEMENTS: Final = 2**48
_QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "KINETO_LOG_LEVEL": "5",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
}
_FILE_MODULE: Final = "shoestring_model_file"


@dataclasses.dataclass(frozen=True, slots=True)
class Brought:
    """A model with its batch, as ``shoestring.profile`` takes them.

    Attributes:
        model: with or without data.
        batch: likewise.
        loss: the user's function, or None.
        notes: what was assumed in making them, in sentences.
        hint: what to do where the model does not take this batch.
        loss_hint: what to do where a loss cannot be taken of its output.
    """

    model: nn.Module
    batch: Batch
    loss: Loss | None = None
    notes: tuple[str, ...] = ()
    hint: str = ""
    loss_hint: str = "add a function loss(output, batch) beside the factory."


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        build: makes model and batch; without data if its argument is true and that works.
    """

    build: Callable[[bool], Brought]


def be_quiet() -> None:
    """Keep libraries from talking and from the network; call it before torch is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def find(text: str, sizes: tuple[int, ...], *, dtype: str | None = None) -> Source:
    """Find out what a MODEL is.

    Args:
        text: as on the command line.
        sizes: of the batch, rows first.
        dtype: of the tensor that is passed to a factory's model, as in ``int64``; float32 by
            default.

    Returns:
        Its source; the model is not built yet.

    Raises:
        InputError: there is no such file, module, factory, folder or cached model, or dtype
            would have no effect.
    """
    if math.prod(sizes) > _MOST_ELEMENTS:
        raise InputError(
            f"a batch of {'x'.join(map(str, sizes))} is beyond any machine.",
            hint="its sizes may multiply to 2**48 at most.",
        )
    path, name = _split_file(text)
    if path is not None:
        return _from_module(_load_file(path), name, path.name, sizes, dtype)
    if ":" in text and not Path(text).is_dir():
        module, _, name = text.partition(":")
        return _from_module(_load_module(module, name), name, text, sizes, dtype)
    if dtype is not None:
        raise InputError(
            "--dtype would have no effect: a transformers model says what it takes.",
            hint="leave it out; the model's own dtype is that of its config.json.",
        )
    from shoestring.cli import pretrained

    return Source(pretrained.builder(text, sizes))


# --- factories -------------------------------------------------------------------------------


def _split_file(text: str) -> tuple[Path | None, str]:
    head, _, name = text.rpartition(":")
    if head.endswith(".py"):
        return Path(head), name
    return (Path(text), "") if text.endswith(".py") else (None, "")


def _load_file(path: Path) -> ModuleType:
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise InputError(f"there is no file {str(path)!r}.", hint="check the path.")
    spec = importlib.util.spec_from_file_location(_FILE_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_FILE_MODULE] = module  # dataclasses look their module up there
    with _importing(str(path.resolve().parent)), _theirs(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    return module


def _load_module(module: str, name: str) -> ModuleType:
    if not name or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(
            f"{module}:{name} is not a factory.",
            hint="write it as package.module:factory, or as path.py:factory.",
        )
    with _importing(str(Path.cwd())):
        try:
            parent, known = "", True
            for part in module.split("."):
                parent = f"{parent}.{part}" if parent else part
                known = known and importlib.util.find_spec(parent) is not None
                if not known:
                    break
        except (ImportError, ValueError, AttributeError):
            # find_spec imports the packages above; what they raise is told below.
            known = not isinstance(sys.exc_info()[1], ModuleNotFoundError)
        if not known:
            raise InputError(
                f"there is no module {module!r}.",
                hint="it is looked for in the working folder and among the installed packages.",
            )
        with _theirs(f"{module} cannot be imported"):
            return importlib.import_module(module)


@contextlib.contextmanager
def _importing(folder: str) -> Iterator[None]:
    """Find modules in a folder too, and leave no compiled files there."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    if folder not in sys.path:
        sys.path.insert(0, folder)  # stays: a factory may import on its first call
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextlib.contextmanager
def _theirs(what: str, hint: str = "") -> Iterator[None]:
    """Turn what the user's own code raises into one sentence; what it prints goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{what}: {_one_line(error)}", hint=hint or "run it in Python to see where."
        ) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."


def _from_module(
    module: ModuleType, name: str, shown: str, sizes: tuple[int, ...], dtype: str | None
) -> Source:
    import torch

    name = name or _only_factory(module, shown)
    factory = getattr(module, name, None)
    if not callable(factory):
        candidates = ", ".join(_factories(module)) or "none"
        raise InputError(
            f"{shown.partition(':')[0]} has no factory {name!r}.",
            hint=f"functions and models in it: {candidates}.",
        )
    helpers = {key: getattr(module, key, None) for key in _HELPERS}
    make = helpers["batch"] if inspect.isfunction(helpers["batch"]) else None
    loss = helpers["loss"] if inspect.isfunction(helpers["loss"]) else None
    if dtype is not None and make is not None:
        raise InputError(
            f"--dtype would have no effect: {shown.partition(':')[0]} makes its own batch.",
            hint="leave it out.",
        )
    kind = _dtype(dtype)

    def build(meta: bool) -> Brought:
        def build_model() -> nn.Module:
            return factory if isinstance(factory, torch.nn.Module) else factory()

        model = _made(build_model, meta, f"the factory {name}")
        if not isinstance(model, torch.nn.Module):
            raise InputError(
                f"the factory {name} returned a {type(model).__name__}.",
                hint="it must return a torch.nn.Module.",
            )
        if make is not None:
            call = f"batch({', '.join(map(str, sizes))})"
            made: Batch = _made(lambda: make(*sizes), meta, call)
            hint = f"check that the model takes what {call} returns: a dict is passed by keywords."
            return Brought(model, made, loss, hint=hint)
        tensor: torch.Tensor = _made(lambda: _data(sizes, kind), meta, "the batch")
        text = str(kind).removeprefix("torch.")
        hint = (
            f"it was called with one {text} tensor of {'x'.join(map(str, sizes))}: change --batch "
            "or --dtype, or add a function batch(*sizes) beside the factory."
        )
        return Brought(model, tensor, loss, hint=hint)

    return Source(build)


def _only_factory(module: ModuleType, shown: str) -> str:
    if callable(getattr(module, "model", None)):
        return "model"
    found = _factories(module)
    if len(found) != 1:
        what = f"{len(found)} functions and models" if found else "no function or model"
        raise InputError(
            f"{shown} holds {what}, and none is called model.",
            hint=f"name one: {shown}:{found[0]}." if found else "define a function model().",
        )
    return found[0]


def _factories(module: ModuleType) -> list[str]:
    """Return the public functions and model classes that a module itself defines."""
    import torch

    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _HELPERS
        and getattr(value, "__module__", None) == module.__name__
        and (
            inspect.isfunction(value)
            or (inspect.isclass(value) and issubclass(value, torch.nn.Module))
        )
    ]


def _made(make: Callable[[], T], meta: bool, what: str) -> T:
    """Call the user's function on the meta device, or with data where that fails."""
    import torch

    if meta:
        with (
            contextlib.suppress(Exception, SystemExit),
            contextlib.redirect_stdout(sys.stderr),
            torch.device("meta"),
        ):
            return make()
    with _theirs(f"{what} failed", "it is called without arguments." if "fact" in what else ""):
        return make()


def _dtype(text: str | None) -> torch.dtype:
    import torch

    found = getattr(torch, text or "float32", None)
    if not isinstance(found, torch.dtype):
        raise InputError(
            f"{text!r} is not a dtype.", hint="use one of torch's, as in float32 or int64."
        )
    return found


def _data(sizes: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    import torch

    if dtype.is_floating_point or dtype.is_complex:
        generator = None if torch.empty(0).is_meta else torch.Generator().manual_seed(0)
        return torch.randn(sizes, dtype=dtype, generator=generator)
    return torch.zeros(sizes, dtype=dtype)
