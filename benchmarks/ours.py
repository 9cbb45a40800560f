"""The package under test, set up as a run over a whole test set would set it up."""

import os
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from networks import CLASSES, Network
from timing import Run

from smoothcert.noise import Noise
from smoothcert.smoothing import OpenVoter, Sampling, open_voter, run_plan
from smoothcert.stats import predict_plan

LONG_RUN = 500 * 100_100
"""Samples of a run over 500 images as published: what engines are chosen for."""
CACHE = Path(tempfile.gettempdir()) / "smoothcert-benchmarks"
"""Trained networks, and the engines' ranking on this machine: kept from run to run, apart from the user's own."""


@dataclass(frozen=True)
class Opened:
    """A voter, and the seconds it took to open: space found, engine chosen, built and checked."""

    open: OpenVoter
    seconds: float


def set_up() -> None:
    """One thread, and a ranking of engines that is the benchmarks' own; what is started from here inherits it."""
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    torch.set_num_threads(1)


def opened(network: Network, noise: Noise, how: Sampling | None = None) -> Opened:
    """A voter for a network, by default with the engine that `auto` chooses for a long run."""
    how = how or Sampling(engine="auto", samples=LONG_RUN)
    started = time.perf_counter()
    voter = open_voter(network.model, noise, CLASSES, network.image.shape, 0, None, how)
    return Opened(voter, time.perf_counter() - started)


def drawing(network: Network, voter: Opened, n: int, images: int = 1) -> Run:
    """A call that takes so many new images through n samples each, end to end, and returns the number of samples."""
    plan, keys = predict_plan(n=n), count()

    def run() -> int:
        batch = [(k, network.image, next(keys)) for k in range(images)]
        done = list(run_plan(plan, voter.open.voter, batch, CLASSES))
        return sum(int(finished.history[-1].counts.sum()) for finished in done)

    return run
