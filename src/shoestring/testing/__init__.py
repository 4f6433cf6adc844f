"""Public contract checks: what every optimizer and every technique of shoestring keeps.

They serve tests of your own optimizers and techniques too. Each raises AssertionError with a
sentence that says which clause is broken.
"""

from shoestring.testing.optimizers import check_optimizer as check_optimizer
from shoestring.testing.techniques import check_technique as check_technique
