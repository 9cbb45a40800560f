"""`smoothcert distributional`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say, show_progress
from smoothcert.runs.distributional_options import DistributionalConfig


@verb
def distributional(config: DistributionalConfig, as_json: bool, quiet: bool) -> None:
    """Bound the expected loss under all data laws near the images' own, of a model or from a store's counts."""
    from smoothcert.report.distributional_tables import render_robustness
    from smoothcert.results.distributional import Robustness
    from smoothcert.runs.distributional import distributional as run

    with show_progress("records", quiet) as progress:
        store = run(config, progress)
    result = Robustness.of(store, alpha=config.alpha if "alpha" in config.model_fields_set else None)
    if as_json:
        say(json.dumps({"store": str(store.folder), **result.content(config.rho)}))
    else:
        say(render_robustness([result], config.rho, "text"))
