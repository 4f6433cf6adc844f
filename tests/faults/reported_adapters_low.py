"""A deliberate fault; README.md says how it is read."""

PROMISE = "adapters of a half-precision base are in float32"
SOURCE = "shoestring/planner/adapters.py"
OLD = "dtype = torch.float32 if weight.dtype in _LOW else weight.dtype"
NEW = "dtype = weight.dtype"
TESTS = ("tests/planner/test_reported.py::test_the_predicted_peak_of_lora_holds",)
