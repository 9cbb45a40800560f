"""`smoothcert train`."""

import json

import typer

from smoothcert.cli.options import configured
from smoothcert.cli.progress import shown
from smoothcert.runs.config import TrainConfig


@configured(TrainConfig)
def train(config: TrainConfig, as_json: bool, quiet: bool) -> None:
    """Train a base classifier and leave a model directory; the same command resumes an interrupted run."""
    from smoothcert.runs.train import train as run

    with shown("steps", quiet) as progress:
        card = run(config, progress)
    if as_json:
        typer.echo(json.dumps({"out": str(config.out), "epochs": card.epochs_done, "best_epoch": card.best_epoch,
                               **card.best}))
    else:
        noise = f"under noise sigma {config.sigma:g}" if config.sigma else "without noise"
        typer.echo(f"{config.out}: best epoch {card.best_epoch} of {card.epochs_done}, held-out accuracy "
                   f"{card.best['validation_accuracy']:.1%} {noise}")
