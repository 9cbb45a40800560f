"""`smoothcert certify`."""

from smoothcert.cli.options import configured
from smoothcert.cli.output import say_result
from smoothcert.cli.progress import shown
from smoothcert.runs.options import CertifyConfig


@configured(CertifyConfig, positional="model")
def certify(config: CertifyConfig, as_json: bool, quiet: bool) -> None:
    """Certify the images of a data set into a store; the same command resumes an interrupted run."""
    from smoothcert.results.base import Points
    from smoothcert.results.gather import read_result
    from smoothcert.runs.certify import certify as run

    with shown("images", quiet) as progress:
        store = run(config, progress)
    say_result(read_result(store), Points(tuple(config.radii or ())), as_json)
