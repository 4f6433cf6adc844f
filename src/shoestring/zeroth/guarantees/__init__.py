"""What is proved of a method: its step, its radius and how far it comes, from a few constants."""

from shoestring.zeroth.guarantees.differences import difference_error as difference_error
from shoestring.zeroth.guarantees.differences import (
    finite_difference_radius as finite_difference_radius,
)
from shoestring.zeroth.guarantees.gains import Gains as Gains
from shoestring.zeroth.guarantees.methods import guarantee as guarantee
from shoestring.zeroth.guarantees.record import Assumption as Assumption
from shoestring.zeroth.guarantees.record import Bound as Bound
from shoestring.zeroth.guarantees.record import Guarantee as Guarantee
from shoestring.zeroth.guarantees.record import Term as Term
