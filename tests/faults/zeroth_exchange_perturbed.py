"""A deliberate fault; README.md says how it is read."""

PROMISE = "where workers cannot be reached, the weights are as they were"
SOURCE = "shoestring/zeroth/engine.py"
OLD = """        except BaseException:
            self._go(None)
            raise
        deltas = tuple("""
NEW = """        except ZeroDivisionError:
            raise
        deltas = tuple("""
TESTS = ("tests/zeroth/test_engine.py::test_an_exchange_that_fails_leaves_the_weights",)
