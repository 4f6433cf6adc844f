"""The ``shoestring`` command: finds the command, and turns errors into two lines.

Data goes to stdout and talk to stderr. Exit codes: 0 done, 2 bad input, 3 a budget that
cannot be met, 130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shoestring import __version__
from shoestring.core.errors import InputError, ShoestringError

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

_INTERRUPTED: Final = 130
_DISK_ERRORS: Final = (errno.ENOSPC, errno.EFBIG, errno.EIO)

# name, function, one line of help. A function is imported when its command runs; its module
# must not import torch at its top, or ``shoestring NAME --help`` would.
COMMANDS: Final = (
    ("profile", "shoestring.cli.profile:profile", "Say what one training step costs."),
    ("plan", "shoestring.cli.plan:plan", "Find what makes one training step fit a budget."),
    ("count", "shoestring.cli.count:count", "Say where the FLOPs and bytes of one step go."),
    ("train", "shoestring.cli.train:train", "Train a model on your texts within a budget."),
    ("report", "shoestring.cli.report:report", "Write an offline page about one run or several."),
    ("list", "shoestring.cli.listing:list_rows", "List the techniques and public names."),
    ("cite", "shoestring.cli.listing:cite", "Print the BibTeX entry of a technique."),
)


def build() -> App:
    """Return the application with its commands.

    Raises:
        InputError: the command line's dependency is not installed.
    """
    try:
        from cyclopts import App, Parameter
    except ModuleNotFoundError as error:
        raise InputError(
            "the command line needs the package cyclopts.",
            hint="pip install 'shoestring[cli]'.",
        ) from error

    app = App(
        name="shoestring",
        help="Train, compress and measure PyTorch models on a budget.",
        version=__version__,
        help_format="markdown",
        default_parameter=Parameter(negative=""),
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, path, line in COMMANDS:
        app.command(path, name=name, help=line)
    return app


def process() -> int:
    """Run one command in a process of its own.

    Such a process is short. Walking all that it imported, to find garbage on the way and once
    more at its end, would be a sixth of its time.

    Returns:
        The exit code.
    """
    gc.disable()
    code = main()
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``shoestring``; those of this process by default.

    Returns:
        The exit code.
    """
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except ShoestringError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has gone, as in `shoestring list | head`.
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        _drop_output()
        reason = (error.strerror or str(error)).lower()
        return _fail(
            f"the output cannot be written ({reason}).",
            "free some space, or write elsewhere.",
            InputError.exit_code,
        )
    return code


def _drop_output() -> None:
    """Let Python's last flush of stdout, at exit, not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    app = build()
    from cyclopts import CycloptsError

    try:
        result: object = app(arguments)
    except CycloptsError as error:
        return _fail(*_words(error), InputError.exit_code)
    return result if isinstance(result, int) else 0


def _words(error: CycloptsError) -> tuple[str, str]:
    """Return a parsing error as a sentence and a hint."""
    error.verbose = False
    sentence = " ".join(str(error).split())
    command = " ".join(error.command_chain or ())
    hint = f"see shoestring {command} --help." if command else "see shoestring --help."
    return sentence[:1].lower() + sentence[1:], hint


def _fail(message: str, hint: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    return code
