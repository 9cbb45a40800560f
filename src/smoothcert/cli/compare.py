"""`smoothcert compare`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit
from smoothcert.cli.table import format_of
from smoothcert.report.options import CompareConfig


@verb
def compare(config: CompareConfig, as_json: bool) -> None:
    """Compare two runs image by image: differences of certified accuracy, with paired intervals."""
    from smoothcert.report.certified import render_comparison
    from smoothcert.results.gather import compare_gathered, gather

    form = format_of(config, as_json)
    runs = gather([config.store, config.other], alpha=config.alpha, norm=config.norm, dimension=config.dimension,
                  radius_column=config.radius_column, strict=True)
    found = compare_gathered(runs, config.radii or (), config.rho)
    emit(json.dumps(found.to_json()) if as_json else render_comparison(found, form), config.out)
