"""A deliberate fault; README.md says how it is read."""

PROMISE = "a computation is taken back only where the memory allows"
SOURCE = "shoestring/activations/remat/solvers/mend.py"
OLD = "return bool(room.min(initial=np.iinfo(np.int64).max) >= tables.sizes[starts[0][1]])"
NEW = "return True"
TESTS = ("tests/activations/remat/test_hilp_mend.py::test_no_more_is_taken_back_than_fits",)
