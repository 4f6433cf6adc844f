"""A deliberate fault; README.md says how it is read."""

PROMISE = "no more copies are held than those of one function"
SOURCE = "shoestring/zeroth/scratch.py"
OLD = "        move([found], [self._move.only([index])])\n"
NEW = """\
        move([found], [self._move.only([index])])
        self.__dict__.setdefault("kept", []).append(found)
"""
TESTS = ("tests/zeroth/test_scratch.py::test_the_memory_of_one_layer",)
