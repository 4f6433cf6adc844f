"""What the measurements of this folder are held against."""

from __future__ import annotations

from typing import Final

BUDGETS: Final = {"half": (0.50, 0.15), "third": (0.35, 0.33)}
"""Share of the plain peak, and the most seconds of computing again, as a share of the step."""
CLOSE: Final = 0.05
"""Points of the step's seconds that measured and predicted overhead may lie apart."""

TORCH_BUDGETS: Final = tuple(tenth / 10 for tenth in range(9, 0, -1))
"""Budgets of torch at which its choice is compared with ours."""

PLAN_MOST: Final = {"gpt12": 1 / 4, "gpt24": 1 / 4, "gpt48": 1 / 4, "resnet": 1 / 2}
"""Share of the time of torch's choice that planning may take, by model."""
AGAIN_MOST: Final = 1 / 30
"""Share of it that another budget on the same graph may take."""
WHOLE_MOST: Final = 2.0
"""`fit` may take so many times as long as compiling the step."""

EMITTED_MOST: Final = 1.02
"""Time of a step of our graphs that compute nothing again, over that of torch's."""
