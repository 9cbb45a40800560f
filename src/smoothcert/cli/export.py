"""`smoothcert export`."""

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli.errors import reported
from smoothcert.cli.output import say
from smoothcert.cli.table import RadiusColumn

Records = Annotated[str, typer.Argument(metavar="STORE", help="A store, a log (TSV) or a count file (NPZ).")]
OutFile = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="FILE.tsv (log), FILE.npz (counts) or FILE.parquet (table).")
]


@reported
def export(store: Records, out: OutFile, radius_column: RadiusColumn = None) -> None:
    """Write a store as a log of the field (TSV, radii rounded down), a count file (NPZ) or a table (parquet)."""
    from smoothcert.interop import open_records, write_records
    from smoothcert.io.paths import place

    write_records(open_records(place(store), radius_column=radius_column), out)
    say(f"wrote {out}", err=True)
