"""A deliberate fault; README.md says how it is read."""

PROMISE = "a sharded parameter larger than a slice is trained"
SOURCE = "shoestring/optim/sliced.py"
OLD = "return tensor if local is None else local()"
NEW = "return tensor"
TESTS = (
    "tests/integrations/test_distributed.py::test_a_sharded_parameter_larger_than_a_slice_is_trained",
)
