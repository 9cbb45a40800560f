"""`smoothcert attack`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say, show_progress
from smoothcert.runs.attack_options import AttackConfig


@verb
def attack(config: AttackConfig, as_json: bool, quiet: bool) -> None:
    """Attack the smoothed classifier on a data set into a store; the same command resumes an interrupted run."""
    from smoothcert.report.attack_tables import attack_summary, attack_text
    from smoothcert.runs.attack import attack as run
    from smoothcert.store.store import read_store

    with show_progress("attacks", quiet) as progress:
        store = run(config, progress)
    certificates = config.certified or config.eps_from
    certified = None if certificates is None else read_store(certificates)
    say(json.dumps(attack_summary(store, certified)) if as_json else attack_text(store, certified))
