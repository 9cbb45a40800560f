"""`smoothcert info`."""

import json
from pathlib import Path

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit
from smoothcert.io.paths import is_weights_file
from smoothcert.report.options import InfoConfig


@verb
def info(config: InfoConfig, as_json: bool) -> None:
    """Say what a store, a log, a count file, a model directory or a file of weights is: identity, origin, progress."""
    from smoothcert.report.describe import Description

    if isinstance(config.path, Path) and config.path.is_file() and is_weights_file(config.path):
        from smoothcert.models.weights import describe_weights  # brings torch, which other files do without

        found = Description(describe_weights(config.path))
    else:
        found = Description.of(config.path, config.radius_column)
    emit(json.dumps(found.to_json(), indent=2) if as_json else found.to_text(), config.out)
