"""A deliberate fault; README.md says how it is read."""

PROMISE = "a momentum stays in float32 beside weights in bfloat16"
SOURCE = "shoestring/zeroth/kept.py"
OLD = "self.state[parameter][name] = value.to(parameter.device, copy=True)"
NEW = "pass"
TESTS = ("tests/contracts/test_zeroth.py::test_the_contract_is_kept",)
