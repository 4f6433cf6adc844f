"""A deliberate fault; README.md says how it is read."""

PROMISE = "evaluating changes no bit"
SOURCE = "shoestring/zeroth/forward_gradient.py"
OLD = "        dual = forward_ad.make_dual(parameter.detach(), tangent)\n    parameter.copy_(dual)"
NEW = (
    "        dual = forward_ad.make_dual(torch.zeros_like(parameter), tangent)\n"
    "    parameter.add_(dual)"
)
TESTS = ("tests/zeroth/test_forward_gradient.py::test_evaluating_changes_no_bit",)
