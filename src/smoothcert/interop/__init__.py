"""Other people's formats and signatures: published logs, count files, and (in `smooth` and `art`) their classes.

What opens here stands wherever a store does. Nothing is imported from `smooth` and `art`, which need torch.
"""

from smoothcert.interop.counts import read_counts, write_counts
from smoothcert.interop.logs import read_log, write_log
from smoothcert.interop.opening import Named, name_inputs, open_named, open_records, open_votes, write_records

__all__ = [
    "Named", "name_inputs", "open_named", "open_records", "open_votes", "read_counts", "read_log", "write_counts",
    "write_log", "write_records",
]
