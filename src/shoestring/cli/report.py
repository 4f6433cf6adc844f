"""The command ``report``: one offline page about one run, or several side by side."""

from __future__ import annotations

import sys
from pathlib import Path

from shoestring.core.errors import InputError


def report(*folders: Path, out: Path | None = None) -> int:
    """Write one offline HTML page about a run, or about several side by side.

    The page holds all it needs: nothing is asked of any host. What a run has not written, or
    not yet, is said in its place. An older report is replaced; any other file is left alone.

    Args:
        folders: the folder of a run, as train makes it; several are compared.
        out: the file; report.html in the run's folder by default, or in the working folder
            where there are several runs.

    Returns:
        The exit code.

    Raises:
        InputError: a folder is no run's, or the file cannot be written.
    """
    if not folders:
        raise InputError("report needs the folder of a run.", hint="see shoestring report --help.")
    from shoestring.report.page import write_report

    path = write_report(folders, out)
    sys.stdout.write(f"{path}\n")
    return 0
