"""`smoothcert table`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli.errors import reported
from smoothcert.cli.options import JsonFlag
from smoothcert.cli.output import Out, emit, number_list

Stores = Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores of `smoothcert certify`.")]
Radii = Annotated[
    str | None, typer.Option(metavar="LIST", help="Radii, in pixel units, such as 0.5,1,1.5 (default: evenly spaced).")
]
Format = Annotated[str, typer.Option("--format", metavar="TEXT", help="text, markdown, csv or latex.")]
Rho = Annotated[float, typer.Option(help="Failure probability of each data-set interval.")]
Merge = Annotated[bool, typer.Option("--merge", help="Take the stores as parts of one run over different images.")]


@reported
def table(
    stores: Stores, radii: Radii = None, style: Format = "text", rho: Rho = 0.05, merge: Merge = False,
    out: Out = None, as_json: JsonFlag = False,
) -> None:
    """Print certified accuracy, ACR, abstentions and data-set intervals of stores."""
    from smoothcert.report.results import Result, default_radii, merged
    from smoothcert.report.tables import render, summary
    from smoothcert.runs.store import read_store

    results = [Result.of(read_store(store)) for store in stores]
    results = [merged(results)] if merge else results
    grid = number_list("radii", radii) or default_radii(results)
    emit(json.dumps([summary(r, grid, rho) for r in results]) if as_json else render(results, grid, rho, style), out)
