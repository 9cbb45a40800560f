"""`smoothcert bundle`."""

import json

import typer

from smoothcert.bundles.options import BundleConfig
from smoothcert.checks import one_line
from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.progress import phase


@verb
def bundle(config: BundleConfig, as_json: bool) -> None:
    """Put the evidence of stores into one folder or zip file: report, tables, outcomes, ML-BOM, model card, statement.

    Exit code 1 where verification, the selftest or a requirement fails; the bundle is written all the same.
    """
    with phase("starting"):
        from smoothcert.bundles.bundle import bundle as run

    made = run(config)
    lines = [one_line(f"{one.outcome}  {one.name}: {one.words}") for one in made.outcomes]
    say(json.dumps(made.to_json()) if as_json else "\n".join([*lines, made.result]))
    say(f"wrote {made.out}", err=True)
    if not made.holds:
        raise typer.Exit(1)
