"""The losses on both sides of the parameters in one call, without writing to them."""

from shoestring.zeroth.twin.asking import Twin, TwinForward
from shoestring.zeroth.twin.watch import TwinWarning

__all__ = ["Twin", "TwinForward", "TwinWarning"]
