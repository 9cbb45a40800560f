"""`smoothcert recertify`."""

import json
from typing import Annotated

import typer

from smoothcert.cli.errors import reported
from smoothcert.cli.options import JsonFlag
from smoothcert.cli.output import number_list, real, say
from smoothcert.cli.table import Format, Radii, Rho, format_of
from smoothcert.errors import InputError

StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="A store of `smoothcert certify`, or a count file (NPZ).")
]
Alpha = Annotated[float | None, real(help="Failure probability of each certificate (default: as stored).")]
Method = Annotated[
    str | None, typer.Option(metavar="TEXT", help="two-sided, cohen or t-certify (default: as stored).")
]
Margin = Annotated[
    float | None,
    real(help="tau: the radius within which the class keeps probability 1/2 + tau (default: as stored)."),
]
NoMargin = Annotated[bool, typer.Option("--no-margin", help="Drop the stored margin: plain radii.")]
OutStore = Annotated[
    str | None, typer.Option("--out", "-o", metavar="PATH", help="Keep the result as a store of its own.")
]


@reported
def recertify(
    store: StorePath, alpha: Alpha = None, method: Method = None, margin: Margin = None, no_margin: NoMargin = False,
    radii: Radii = None, style: Format = None, rho: Rho = 0.05, out: OutStore = None, as_json: JsonFlag = False,
) -> None:
    """Recompute certificates from stored counts, at another alpha, method or margin; needs no model."""
    from smoothcert.interop import open_votes
    from smoothcert.io.paths import place
    from smoothcert.report.shown import render
    from smoothcert.results.base import Points
    from smoothcert.results.certified import Result
    from smoothcert.results.gather import put_side_by_side
    from smoothcert.store.names import name_of
    from smoothcert.store.recertify import recertify as run
    from smoothcert.store.recertify import write_recertified

    form = format_of(style, as_json)
    if no_margin and margin is not None:
        raise InputError("give either --margin or --no-margin")
    stored, to = open_votes(place(store)), place(out) if out else None
    answers, procedure = run(stored, alpha, method, None if no_margin else "stored" if margin is None else margin)
    name, kept = (name_of(to), str(to)) if to else (None, "")
    result = Result.build(stored, name, procedure, answers.prediction, answers.radius, kept)
    runs = put_side_by_side([result], Points(tuple(number_list("radii", radii)), rho))
    shown = json.dumps(runs.to_json()[0]) if as_json else render([runs], form)
    if to:
        write_recertified(to, stored, answers, procedure)
    say(shown)
