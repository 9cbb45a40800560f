"""`smoothcert certify`."""

from smoothcert.cli.options import verb
from smoothcert.cli.output import say_result, show_progress
from smoothcert.report.options import IntervalsConfig
from smoothcert.runs.options import CertifyConfig


class CertifyTableConfig(CertifyConfig, IntervalsConfig):
    """Options of `smoothcert certify`: the run, and the table of it."""


@verb
def certify(config: CertifyTableConfig, as_json: bool, quiet: bool) -> None:
    """Certify the images of a data set into a store; the same command resumes an interrupted run."""
    from smoothcert.results.base import Points
    from smoothcert.results.gather import read_result
    from smoothcert.runs.certify import certify as run

    with show_progress("images", quiet) as progress:
        store = run(config, progress)
    say_result(read_result(store), Points(tuple(config.radii or ()), intervals=config.intervals), as_json)
