"""`smoothcert predict`."""

import json

from smoothcert.cli.options import verb
from smoothcert.cli.output import say, show_progress
from smoothcert.runs.options import PredictConfig


@verb
def predict(config: PredictConfig, as_json: bool, quiet: bool) -> None:
    """Predict a data set with the smoothed classifier into a store; the same command resumes an interrupted run."""
    from smoothcert.results.predictions import prediction_summary, prediction_text
    from smoothcert.runs.certify import predict as run

    with show_progress("images", quiet) as progress:
        store = run(config, progress)
    say(json.dumps(prediction_summary(store)) if as_json else prediction_text(store))
