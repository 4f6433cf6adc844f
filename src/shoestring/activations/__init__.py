"""What is alive between forward and backward: techniques that decide it."""

from shoestring.activations.chunked_cross_entropy import (
    chunked_cross_entropy as chunked_cross_entropy,
)
from shoestring.activations.chunked_loss import ChunkedLoss as ChunkedLoss
from shoestring.activations.micro_batches import MicroBatches as MicroBatches
from shoestring.activations.micro_batches import couplings as couplings
from shoestring.activations.micro_batches import find_weighting as find_weighting
from shoestring.activations.offload import Offload as Offload
from shoestring.activations.offload import offloading as offloading
from shoestring.activations.rematerialisation import Rematerialisation as Rematerialisation
