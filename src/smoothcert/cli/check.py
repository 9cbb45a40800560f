"""`smoothcert check`."""

import json

import typer

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit, say
from smoothcert.report.options import CheckConfig


@verb
def check(config: CheckConfig, as_json: bool) -> None:
    """Hold requirements against a run's confidence limits; exit code 1 where one fails or cannot be decided."""
    from smoothcert.interop import open_records
    from smoothcert.report.checked import render_checked, to_junit
    from smoothcert.results.requirements import check_store

    found = check_store(open_records(config.store, config.alpha, config.radius_column), config.require, config.bound,
                        config.rho)
    say(json.dumps(found.to_json()) if as_json else render_checked(found))
    if config.junit is not None:
        emit(to_junit(found), config.junit)
    if not found.holds:
        raise typer.Exit(1)
