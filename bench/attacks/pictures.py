"""Fashion-MNIST, as a Debian package ships it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Final

import numpy as np
import torch

FOLDER: Final = Path("/usr/share/datasets/fashion-mnist")
PACKAGE: Final = "dataset-fashion-mnist"
KEPT: Final = 10_000
"""Last images of the training set, which no network is trained on: settings are chosen on them."""

_IMAGES: Final = 2051
_LABELS: Final = 2049


class MissingPictures(RuntimeError):  # noqa: N818  # it says what is missing
    """The package is not installed."""


def read(part: str, folder: Path = FOLDER) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images ``[n, 1, 28, 28]`` from 0 to 1, and labels.

    Args:
        part: ``train``, ``kept`` (the last of the training set) or ``test``.
        folder: of the package.

    Raises:
        MissingPictures: it is not there.
    """
    stem = "t10k" if part == "test" else "train"
    images = _numbers(folder / f"{stem}-images-idx3-ubyte.gz", _IMAGES, 16)
    labels = _numbers(folder / f"{stem}-labels-idx1-ubyte.gz", _LABELS, 8)
    pictures = torch.from_numpy(images.reshape(-1, 1, 28, 28)).float() / 255
    targets = torch.from_numpy(labels).long()
    if part == "test":
        return pictures, targets
    chosen = slice(-KEPT, None) if part == "kept" else slice(None, -KEPT)
    return pictures[chosen], targets[chosen]


def _numbers(path: Path, magic: int, header: int) -> np.ndarray:
    if not path.exists():
        raise MissingPictures(
            f"{path} is missing: install the Debian package {PACKAGE} (apt-get install {PACKAGE})."
        )
    data = gzip.decompress(path.read_bytes())
    if int.from_bytes(data[:4], "big") != magic:
        raise MissingPictures(f"{path} is not of the kind {magic}.")
    return np.frombuffer(data, np.uint8, offset=header).copy()
