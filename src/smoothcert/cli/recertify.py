"""`smoothcert recertify`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.cli.table import format_of
from smoothcert.report.options import RecertifyTableConfig


@verb
def recertify(config: RecertifyTableConfig, as_json: bool) -> None:
    """Recompute certificates from stored counts, at another alpha, method or margin; needs no model."""
    from smoothcert.interop import open_votes
    from smoothcert.report.tables import render, summary
    from smoothcert.results.certified import Result, default_radii
    from smoothcert.store.recertify import recertify as run
    from smoothcert.store.recertify import write_recertified

    form, rho, stored = format_of(config, as_json), config.rho, open_votes(config.store)
    margin = None if config.no_margin else "stored" if config.margin is None else config.margin
    answers, procedure = run(stored, config.alpha, config.method, margin)
    name = config.out.name if config.out else None
    result = Result.build(stored, name, procedure, answers.prediction, answers.radius)
    radii = config.radii or default_radii([result])
    shown = json.dumps(summary(result, radii, rho)) if as_json else render([result], radii, rho, form)
    if config.out:
        write_recertified(config.out, stored, answers, procedure)
    say(shown)
