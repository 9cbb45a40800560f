"""`smoothcert predict`."""

from smoothcert.cli.options import verb
from smoothcert.cli.output import say_result, show_progress
from smoothcert.runs.options import PredictConfig


@verb
def predict(config: PredictConfig, as_json: bool, quiet: bool) -> None:
    """Predict a data set with the smoothed classifier into a store; the same command resumes an interrupted run."""
    from smoothcert.results.base import Points
    from smoothcert.results.gather import read_result
    from smoothcert.runs.certify import predict as run

    with show_progress("images", quiet) as progress:
        store = run(config, progress)
    say_result(read_result(store), Points(), as_json)
