"""A deliberate fault; README.md says how it is read."""

PROMISE = "weights come back to the last bit"
SOURCE = "shoestring/zeroth/places.py"
OLD = 'stages.append(Stages(decay, before, self.state[parameter]["settled"], after))'
NEW = "stages.append(Stages(decay, before, 0.0, after))"
TESTS = ("tests/zeroth/test_engine.py::test_without_a_learning_rate_the_weights_come_back",)
