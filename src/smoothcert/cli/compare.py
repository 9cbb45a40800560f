"""`smoothcert compare`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit
from smoothcert.cli.table import format_of
from smoothcert.report.options import CompareConfig


@verb
def compare(config: CompareConfig, as_json: bool) -> None:
    """Compare two runs image by image: differences of certified accuracy, with paired intervals."""
    from smoothcert.report.gather import compared, gather
    from smoothcert.report.listings import comparison_content, render_comparison

    form = format_of(config, as_json)
    runs = gather([config.store, config.other], alpha=config.alpha, norm=config.norm, dimension=config.dimension,
                  radius_column=config.radius_column, whole=True)
    found = compared(runs, config.radii or (), config.rho)
    emit(json.dumps(comparison_content(found)) if as_json else render_comparison(found, form), config.out)
