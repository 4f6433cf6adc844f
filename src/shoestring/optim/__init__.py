"""First-order optimizers and the optimizer's own step."""

from shoestring.optim.step import ReleaseGradients as ReleaseGradients
from shoestring.optim.step import SlicedStep as SlicedStep
