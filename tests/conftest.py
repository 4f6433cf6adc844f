"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis

import shoestring

# The same examples in every run: a failure seen once is seen again. HYPOTHESIS_PROFILE=wide
# draws new ones, and more of them.
hypothesis.settings.register_profile(
    "steady", derandomize=True, deadline=None, database=None, max_examples=100
)
hypothesis.settings.register_profile(
    "first",  # that fails, however large: enough to notice a fault by
    hypothesis.settings.get_profile("steady"),
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)
hypothesis.settings.register_profile("wide", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

# The runner of the deliberate faults tests a changed copy: an installed package found in its
# stead would make every fault go unnoticed.
_expected = os.environ.get("SHOESTRING_FAULT_SOURCE")
if _expected and not Path(shoestring.__file__).is_relative_to(_expected):
    raise RuntimeError(f"the tests import {shoestring.__file__}, not the copy in {_expected}")
