"""Files of other tools in and out: logs (TSV) and count files, wherever a store is accepted."""

from smoothcert.report.interop.counts import read_counts, write_counts
from smoothcert.report.interop.logs import read_log, write_log
from smoothcert.report.interop.opening import Named, named, open_records, open_votes, write_records

__all__ = [
    "Named", "named", "open_records", "open_votes", "read_counts", "read_log", "write_counts", "write_log",
    "write_records",
]
