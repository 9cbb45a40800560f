"""`smoothcert info`."""

import json
from dataclasses import asdict
from pathlib import Path

from smoothcert.cli.options import verb
from smoothcert.cli.output import emit
from smoothcert.io.paths import is_weights_file
from smoothcert.report.options import InfoConfig


@verb
def info(config: InfoConfig, as_json: bool) -> None:
    """Say what a store, a log, a count file, a model directory or a file of weights is; or list what can be named."""
    if config.path is None:
        emit(list_parts(as_json), config.out)
        return
    from smoothcert.report.describe import Description

    if isinstance(config.path, Path) and config.path.is_file() and is_weights_file(config.path):
        from smoothcert.models.weights import describe_weights  # brings torch, which other files do without

        found = Description(describe_weights(config.path))
    else:
        found = Description.of(config.path, config.radius_column)
    emit(json.dumps(found.to_json(), indent=2) if as_json else found.to_text(config.intervals), config.out)


def list_parts(as_json: bool) -> str:
    """Return every part that can be named: smoothcert's own, and those of the packages installed beside it."""
    from smoothcert.attacks import ATTACKS
    from smoothcert.data.load import DATA
    from smoothcert.denoise import DENOISERS
    from smoothcert.loggers import LOGGERS
    from smoothcert.models import MODELS
    from smoothcert.noise import NOISES
    from smoothcert.objectives import OBJECTIVES
    from smoothcert.report.plots.kinds import KINDS

    registries = (OBJECTIVES, ATTACKS, NOISES, DENOISERS, MODELS, DATA, KINDS, LOGGERS)
    found = [(registry.group, list(registry.origins())) for registry in registries]
    if as_json:
        return json.dumps([{"group": group, **asdict(part)} for group, parts in found for part in parts], indent=2)
    width = max(len(part.name) for _, parts in found for part in parts)
    lines: list[str] = []
    for group, parts in found:
        lines += [*([""] if lines else []), f"{group}:"]
        for part in parts:
            package = "" if part.package == "smoothcert" else f"[{part.package}] "
            told = f"cannot be used: {part.problem}" if part.problem else part.words
            lines.append(f"  {part.name:<{width}}  {package}{told}".rstrip())
    return "\n".join([*lines, "", "Any of these can also be your own: file.py:NAME or package.module:NAME."])
