"""One self-contained HTML file that shows what runs certified, to people who must be convinced."""

from smoothcert.report.html.gather import check_page, gathered, write_page
from smoothcert.report.html.page import report_page

__all__ = ["check_page", "gathered", "report_page", "write_page"]
