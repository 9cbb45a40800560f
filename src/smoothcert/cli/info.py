"""`smoothcert info`."""

import json
from typing import Annotated

import typer

from smoothcert.cli.errors import reported
from smoothcert.cli.options import JsonFlag
from smoothcert.cli.output import Out, emit
from smoothcert.cli.table import RadiusColumn

Folder = Annotated[
    str, typer.Argument(metavar="PATH", help="A store, a log (TSV), a count file (NPZ) or a model directory.")
]


@reported
def info(
    path: Folder, radius_column: RadiusColumn = None, out: Out = None, as_json: JsonFlag = False,
) -> None:
    """Say what a store, a log, a count file or a model directory is: identity, origin, progress."""
    from smoothcert.io.paths import place
    from smoothcert.report.describe import Description

    found = Description.of(place(path), radius_column)
    emit(json.dumps(found.to_json(), indent=2) if as_json else found.to_text(), out)
