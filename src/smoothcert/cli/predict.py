"""`smoothcert predict`."""

import json

from smoothcert.cli.options import configured
from smoothcert.cli.output import say
from smoothcert.cli.progress import shown
from smoothcert.runs.options import PredictConfig


@configured(PredictConfig, positional="model")
def predict(config: PredictConfig, as_json: bool, quiet: bool) -> None:
    """Predict a data set with the smoothed classifier into a store; the same command resumes an interrupted run."""
    from smoothcert.results.predictions import prediction_summary, prediction_text
    from smoothcert.runs.certify import predict as run

    with shown("images", quiet) as progress:
        store = run(config, progress)
    say(json.dumps(prediction_summary(store)) if as_json else prediction_text(store))
