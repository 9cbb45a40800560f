"""`smoothcert predict`."""

from smoothcert.cli.options import configured
from smoothcert.cli.output import say_result
from smoothcert.cli.progress import shown
from smoothcert.runs.options import PredictConfig


@configured(PredictConfig, positional="model")
def predict(config: PredictConfig, as_json: bool, quiet: bool) -> None:
    """Predict a data set with the smoothed classifier into a store; the same command resumes an interrupted run."""
    from smoothcert.results.base import Points
    from smoothcert.results.gather import read_result
    from smoothcert.runs.certify import predict as run

    with shown("images", quiet) as progress:
        store = run(config, progress)
    say_result(read_result(store), Points(), as_json)
