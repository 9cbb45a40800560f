"""`smoothcert info`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit
from smoothcert.report.options import InfoConfig


@verb
def info(config: InfoConfig, as_json: bool) -> None:
    """Say what a store, a log, a count file or a model directory is: identity, origin, progress."""
    from smoothcert.report.describe import Description

    found = Description.of(config.path, config.radius_column)
    emit(json.dumps(found.to_json(), indent=2) if as_json else found.to_text(config.intervals), config.out)
