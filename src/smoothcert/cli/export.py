"""`smoothcert export`."""

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.report.options import ExportConfig


@verb
def export(config: ExportConfig) -> None:
    """Write a store as a log of the field (TSV, radii rounded down), a count file (NPZ) or a table (parquet)."""
    from smoothcert.interop import open_records, write_records

    write_records(open_records(config.store, radius_column=config.radius_column), config.out)
    say(f"wrote {config.out}", err=True)
