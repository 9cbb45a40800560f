"""`smoothcert route`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.cli.table import format_of
from smoothcert.report.options import RouteConfig


@verb
def route(config: RouteConfig, as_json: bool) -> None:
    """Compose the certificates of a router and of the classifiers that it chooses among into those of one classifier.
    """
    from smoothcert.report.shown import render
    from smoothcert.results.base import Points
    from smoothcert.results.gather import put_side_by_side, read_result
    from smoothcert.store.routed import route as compose
    from smoothcert.store.store import read_store

    form = format_of(config, as_json)
    store = compose(read_store(config.router), [read_store(one) for one in config.classifiers], config.out)
    runs = put_side_by_side([read_result(store)], Points(tuple(config.radii or ()), config.rho,
                                                         intervals=config.intervals))
    say(json.dumps(runs.to_json()[0]) if as_json else render([runs], form))
