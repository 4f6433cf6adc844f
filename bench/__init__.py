"""Measurements whose results the README shows; one scenario a file."""
