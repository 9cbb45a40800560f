"""`smoothcert compare`."""

import json
from typing import Annotated

import typer

from smoothcert.cli.errors import reported
from smoothcert.cli.options import JsonFlag
from smoothcert.cli.output import Out, emit, number_list
from smoothcert.cli.table import Dimension, Format, LogAlpha, Norm, Radii, RadiusColumn, Rho, format_of

First = Annotated[str, typer.Argument(metavar="STORE", help="A store, a log (TSV) or a count file (NPZ).")]
Second = Annotated[str, typer.Argument(metavar="OTHER", help="Another one over the same images.")]


@reported
def compare(
    first: First, second: Second, radii: Radii = None, style: Format = None, rho: Rho = 0.05, norm: Norm = "l2",
    dimension: Dimension = None, alpha: LogAlpha = None, radius_column: RadiusColumn = None, out: Out = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare two runs image by image: differences of certified accuracy, with paired intervals."""
    from smoothcert.report.certified import render_comparison
    from smoothcert.results.gather import compare_gathered, gather

    form = format_of(style, as_json)
    runs = gather([first, second], alpha=alpha, norm=norm, dimension=dimension, radius_column=radius_column,
                  strict=True)
    found = compare_gathered(runs, number_list("radii", radii), rho)
    emit(json.dumps(found.to_json()) if as_json else render_comparison(found, form), out)
