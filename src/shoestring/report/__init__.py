"""One self-contained page about a training run, or about several side by side."""

from shoestring.report.page import write_report as write_report
from shoestring.report.remat_front import Other as Other
from shoestring.report.remat_page import remat_page as remat_page
