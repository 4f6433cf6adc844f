"""One self-contained page about a training run, or about several side by side."""

from shoestring.report.page import write_report as write_report
