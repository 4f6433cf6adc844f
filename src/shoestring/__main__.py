"""Runs the command line: ``python -m shoestring``."""

import sys

from shoestring.cli.app import process

sys.exit(process())
