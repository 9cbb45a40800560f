"""`smoothcert certify`."""

from collections.abc import Iterator

from smoothcert.cli.options import verb
from smoothcert.cli.output import say_result
from smoothcert.progress import phase
from smoothcert.report.options import IntervalsConfig
from smoothcert.runs.options import CertifyConfig


class CertifyTableConfig(CertifyConfig, IntervalsConfig):
    """Options of `smoothcert certify`: the run, and the table of it."""

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.task != "classification" and self.intervals != "one":
            yield f"intervals chooses among lower bounds that the task {self.task} does not have: leave it out"


@verb
def certify(config: CertifyTableConfig, as_json: bool) -> None:
    """Certify the images of a data set into a store; the same command resumes an interrupted run."""
    with phase("starting"):
        from smoothcert.results.base import Points
        from smoothcert.results.gather import read_result
        from smoothcert.runs.certify import certify as run

    store = run(config)
    say_result(read_result(store), Points(tuple(config.radii or ()), intervals=config.intervals), as_json)
