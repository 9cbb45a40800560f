"""`smoothcert recertify`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.cli.table import format_of
from smoothcert.report.options import RecertifyTableConfig


@verb
def recertify(config: RecertifyTableConfig, as_json: bool) -> None:
    """Recompute certificates from stored counts, at another alpha, method or margin, or for another claim."""
    from smoothcert.interop import open_votes
    from smoothcert.report.shown import render
    from smoothcert.results.base import Points
    from smoothcert.results.certified import Result
    from smoothcert.results.gather import put_side_by_side
    from smoothcert.store.claims import make_claim
    from smoothcert.store.names import name_of
    from smoothcert.store.recertify import recertify as run
    from smoothcert.store.recertify import write_recertified

    form, stored = format_of(config, as_json), open_votes(config.store)
    margin = None if config.no_margin else "stored" if config.margin is None else config.margin
    claim = make_claim(stored, config.top_k, config.groups, config.costs)
    answers, procedure = run(stored, config.alpha, config.method, margin, config.noise, claim, config.labels_known)
    name, kept = (name_of(config.out), str(config.out)) if config.out else (None, "")
    result = Result.build(stored, name, procedure, answers.prediction, answers.radius, kept)
    runs = put_side_by_side([result], Points(tuple(config.radii or ()), config.rho, intervals=config.intervals))
    shown = json.dumps(runs.to_json()[0]) if as_json else render([runs], form)
    if config.out:
        write_recertified(config.out, stored, answers, procedure)
    say(shown)
