"""A model's step as a graph of operations, and graphs that run it in a given order."""
