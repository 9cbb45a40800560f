"""`smoothcert predict`."""

from smoothcert.cli.options import verb
from smoothcert.cli.output import say_result
from smoothcert.progress import phase
from smoothcert.runs.options import PredictConfig


@verb
def predict(config: PredictConfig, as_json: bool) -> None:
    """Predict a data set with the smoothed classifier into a store; the same command resumes an interrupted run."""
    with phase("starting"):
        from smoothcert.results.base import Points
        from smoothcert.results.gather import read_result
        from smoothcert.runs.certify import predict as run

    store = run(config)
    say_result(read_result(store), Points(), as_json)
