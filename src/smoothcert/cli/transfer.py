"""`smoothcert transfer`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.progress import phase
from smoothcert.report.options import IntervalsConfig
from smoothcert.runs.transfer_options import TransferConfig


class TransferTableConfig(TransferConfig, IntervalsConfig):
    """Options of `smoothcert transfer`: the run, and the table of it."""


@verb
def transfer(config: TransferTableConfig, as_json: bool) -> None:
    """Certify a network by the store of another one, such as its float32 original, from noisy copies that both judge;
    the same command resumes an interrupted run."""
    with phase("starting"):
        from smoothcert.report.shown import render_result, result_json, transfer_page
        from smoothcert.results.base import Points
        from smoothcert.results.gather import read_result
        from smoothcert.results.transfers import Transferred
        from smoothcert.runs.transfer import transfer as run

    store = run(config)
    result, points = read_result(store), Points(tuple(config.radii or ()), intervals=config.intervals)
    found = Transferred.of(store, points.radii)
    say(json.dumps({**result_json(result, points), "transfer": found.to_json()}) if as_json else
        f"{render_result(result, points)}\n\n{transfer_page(found).to_text()}")
