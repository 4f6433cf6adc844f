"""Few-bit backward: a derivative that is kept as a code of a few bits for each element."""

from shoestring.activations.fewbit.quantizer import Quantizer as Quantizer
from shoestring.activations.fewbit.weights import Histogram as Histogram
