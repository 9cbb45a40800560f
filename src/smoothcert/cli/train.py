"""`smoothcert train`."""

import json
import os

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.errors import LostProcessError
from smoothcert.progress import phase, silent
from smoothcert.training.options import TrainConfig


@verb
def train(config: TrainConfig, as_json: bool) -> None:
    """Train a base classifier or a denoiser into a model directory; the same command resumes an interrupted run."""
    with phase("starting"):
        from smoothcert.machine import keep_freed_memory
        from smoothcert.training.distributed import is_main_process
        from smoothcert.training.loop import MEASURES
        from smoothcert.training.train import train as run

    keep_freed_memory()
    try:
        card = run(config, None if is_main_process() else silent)
    except LostProcessError as error:
        say(f"error: {error}", err=True)
        os._exit(error.exit_code)
    if not is_main_process():
        return
    if as_json:
        say(json.dumps({"out": str(config.out), "epochs": card.epochs_done, "best_epoch": card.best_epoch,
                               **card.best}))
    else:
        figures = MEASURES[card.kind].describe(card.best, card.sigma)
        say(f"{config.out}: best epoch {card.best_epoch} of {card.epochs_done}, {figures}")
