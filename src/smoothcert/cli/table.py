"""`smoothcert table`."""

import json
from typing import Annotated

import typer

from smoothcert.cli.errors import fail_for, reported
from smoothcert.cli.options import JsonFlag
from smoothcert.cli.output import Out, emit, number_list, real
from smoothcert.errors import InputError

Stores = Annotated[list[str], typer.Argument(
    metavar="STORE...", help="Stores, logs (TSV) or count files (NPZ); METHOD=STORE says which runs are one method.",
)]
Radii = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Radii, in pixel units, such as 0.5,1,1.5 or 2/255 (default: evenly spaced)."),
]
Format = Annotated[
    str | None, typer.Option("--format", metavar="TEXT", help="text (default), markdown, csv or latex.")
]
Rho = Annotated[float, real(help="Failure probability of each data-set interval.")]
Merge = Annotated[bool, typer.Option("--merge", help="Take the stores as parts of one run over different images.")]
LogAlpha = Annotated[
    float | None, real("--alpha", help="Failure probability of each line of logs that do not say it.")
]
RadiusColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of logs that holds the radii (default: radius), or several: "
                                                  "the first that a log has; none: logs of PREDICT.")
]
Norm = Annotated[str, typer.Option(metavar="TEXT", help="l2, or linf: radii of the l_inf ball inside the l2 ball.")]
Dimension = Annotated[
    int | None, typer.Option(help="Values an image has, where a log does not say; for --norm linf (3072: 3 x 32 x 32).")
]
Envelope = Annotated[
    bool, typer.Option("--envelope", help="Add the best of all runs (of each METHOD), with intervals at rho / runs.")
]


def format_of(style: str | None, as_json: bool) -> str:
    """The format asked for; InputError where JSON is asked for too."""
    if as_json and style is not None:
        raise InputError(f"--json and --format {style} are two forms of one output: give one of them")
    return style or "text"


@reported
def table(
    stores: Stores, radii: Radii = None, style: Format = None, rho: Rho = 0.05, merge: Merge = False,
    envelope: Envelope = False, norm: Norm = "l2", dimension: Dimension = None, alpha: LogAlpha = None,
    radius_column: RadiusColumn = None,
    out: Out = None, as_json: JsonFlag = False,
) -> None:
    """Print certified accuracy, ACR, abstentions and data-set intervals of stores and logs; the best is starred."""
    from smoothcert.report.shown import render
    from smoothcert.results.base import Points
    from smoothcert.results.gather import gather

    form = format_of(style, as_json)
    found = gather(stores, alpha=alpha, norm=norm, dimension=dimension, radius_column=radius_column, merge=merge)
    runs = found.at(Points(tuple(number_list("radii", radii)), rho, envelope))
    emit(json.dumps([entry for one in runs for entry in one.to_json()]) if as_json else render(runs, form), out)
    fail_for(found.problems)
