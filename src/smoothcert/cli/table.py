"""`smoothcert table`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit, fail_for
from smoothcert.errors import InputError
from smoothcert.report.options import PrintedConfig, TableConfig


def format_of(config: PrintedConfig, as_json: bool) -> str:
    """Return the format asked for; raise InputError where JSON is asked for too."""
    if as_json and config.format is not None:
        raise InputError(f"--json and --format {config.format} are two forms of one output: give one of them")
    return config.format or "text"


@verb
def table(config: TableConfig, as_json: bool) -> None:
    """Print certified accuracy, ACR, abstentions and data-set intervals of stores and logs; the best is starred."""
    from smoothcert.report.shown import render
    from smoothcert.results.base import Points
    from smoothcert.results.gather import gather

    form = format_of(config, as_json)
    found = gather(config.stores, alpha=config.alpha, norm=config.norm, dimension=config.dimension,
                   radius_column=config.radius_column, merge=config.merge, one_pass=config.one_pass)
    runs = found.at(Points(tuple(config.radii or ()), config.rho, config.envelope, config.intervals,
                           config.paired, config.one_pass))
    emit(json.dumps([entry for one in runs for entry in one.to_json()]) if as_json else render(runs, form), config.out)
    fail_for(found.problems)
