"""Thirty small models that everything said to work on any model is tried on.

Importing this loads no library of models; a model is made by ``case.build()``.
"""

from __future__ import annotations

from tests.zoo.case import Batch, Case, Loss
from tests.zoo.images import IMAGES
from tests.zoo.sequences import SEQUENCES
from tests.zoo.signals import SIGNALS
from tests.zoo.text import TEXT

ZOO: tuple[Case, ...] = (*TEXT, *SIGNALS, *IMAGES, *SEQUENCES)
"""The models, in a fixed order."""

__all__ = ["ZOO", "Batch", "Case", "Loss"]
