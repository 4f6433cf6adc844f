"""Sphinx builds these pages offline: ``make docs``."""

project = "shoestring"
copyright = "the shoestring developers"  # noqa: A001  # the name that Sphinx reads
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "shoestring"
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
