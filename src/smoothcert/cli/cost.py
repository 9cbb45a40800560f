"""`smoothcert cost`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.report.options import CostConfig


@verb
def cost(config: CostConfig, as_json: bool) -> None:
    """Forecast time and price of a run, from a pilot's store or from given samples an image and samples/s."""
    from smoothcert.report.cost import render_cost
    from smoothcert.results.cost import CostRequest, estimate_cost
    from smoothcert.store.store import read_store

    asked = CostRequest(config.images, config.n, config.samples_per_image, config.rate, config.machines,
                        config.workers_per_machine, config.block, config.startup, config.preemptions_per_hour,
                        config.price)
    found = estimate_cost(asked, None if config.store is None else read_store(config.store))
    say(json.dumps(found.to_json()) if as_json else render_cost(found))
