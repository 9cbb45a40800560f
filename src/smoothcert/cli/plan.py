"""`smoothcert plan`."""

import json
from pathlib import Path

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.cli.plot import images_of
from smoothcert.report.options import PlanConfig, StoredImages


@verb
def plan(config: PlanConfig, as_json: bool) -> None:
    """Choose images, samples and alpha for a claim about new images, by a pilot; or say what became of a run's claim.
    """
    from smoothcert.interop import open_records
    from smoothcert.io.files import make_folder, write_text
    from smoothcert.report.planning import render_outcome, render_plan
    from smoothcert.results.planning import ClaimOutcome, plan_claim
    from smoothcert.store.store import read_store

    pilot = None if config.pilot is None else open_records(config.pilot)
    if config.check is not None:
        found = ClaimOutcome.of(read_store(config.check), pilot)
        say(json.dumps(found.to_json()) if as_json else render_outcome(found))
    elif pilot is not None:
        where = {name: str(value) if isinstance(value, Path) else value
                 for name, value in config.select(StoredImages).items() if value}
        planned = plan_claim(pilot, config.request(), images_of(config), where)
        if config.out is not None:
            make_folder(config.out.parent)
            write_text(config.out, planned.to_yaml())
        say(json.dumps(planned.to_json()) if as_json else render_plan(planned, config.out))
