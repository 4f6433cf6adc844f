"""Measurements of zeroth-order training."""
