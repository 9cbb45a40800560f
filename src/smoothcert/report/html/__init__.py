"""One self-contained HTML file that shows what runs certified, to people who must be convinced."""

from smoothcert.report.html.page import check_page, frame, report_page, write_page

__all__ = ["check_page", "frame", "report_page", "write_page"]
