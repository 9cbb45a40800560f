"""`smoothcert attack`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say, say_result
from smoothcert.progress import phase
from smoothcert.runs.options import AttackConfig


@verb
def attack(config: AttackConfig, as_json: bool) -> None:
    """Attack the smoothed classifier on a data set into a store; the same command resumes an interrupted run."""
    with phase("starting"):
        from smoothcert.report.shown import render_result, result_json, under_attack_page
        from smoothcert.results.base import Points
        from smoothcert.results.compare import under_attack
        from smoothcert.results.gather import read_result
        from smoothcert.runs.attack import attack as run
        from smoothcert.store.store import read_store

    store = run(config)
    result, certificates = read_result(store), config.certified or config.eps_from
    if certificates is None:
        say_result(result, Points(), as_json)
        return
    found = under_attack(store, read_store(certificates))
    say(json.dumps({**result_json(result), "certified": found.to_json()}) if as_json else
        f"{render_result(result)}\n\n{under_attack_page(found).to_text()}")
