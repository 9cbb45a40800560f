"""Forecasts from small pilots beside the runs that they were for, at one and two workers."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
from workplace import CLI, fresh

from smoothcert.results.cost import FEW, Fleet, Pilot, forecast
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

DESIGNS = {"n = 1,000": ("--n", "1000"),
           "radii .1 and .25, at most 20,000": ("--radii", "0.1,0.25", "--n-max", "20000")}
EVERY = 3


def run(*arguments: str) -> float:
    """Seconds by the clock of a command."""
    started = time.perf_counter()
    subprocess.run([CLI, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


def forecast_of(store: Path, images: int, workers: int, startup: float) -> dict:
    told = subprocess.run([CLI, "cost", str(store), "--images", str(images), "--workers-per-machine", str(workers),
                           "--startup", str(startup), "--json"], check=True, capture_output=True, text=True)
    return json.loads(told.stdout)


def compared(work: Path, design: str, workers: int) -> str:
    """A line of the table: a start, a pilot, its forecast, the run, and what would have been forecast from the run."""
    common = ["certify", str(work / "m"), "--seed", "0", "--engine", "eager", "--workers", str(workers)]
    folder = work / f"{list(DESIGNS).index(design)}-{workers}"
    startup = run(*common, "--n", "1", "--max-images", str(workers), "-o", str(folder / "start"))
    run(*common, *DESIGNS[design], "--every", str(EVERY), "-o", str(folder / "pilot"))
    seconds = run(*common, *DESIGNS[design], "-o", str(folder / "run"))
    pilot, whole = (Pilot.of(read_store(folder / name)) for name in ("pilot", "run"))
    images = len(whole.samples)
    told, again = (forecast_of(folder / name, images, workers, startup) for name in ("pilot", "run"))
    held = "yes" if told["low"] <= seconds <= told["high"] else "no"
    return (f"| {design} | {workers} | {startup:.1f} | {told['seconds']:.1f} | {told['low']:.1f} to {told['high']:.1f} "
            f"| {seconds:.1f} | {held} | {seconds / told['seconds']:.2f} | "
            f"{whole.work().samples / pilot.work().samples:.2f} | {pilot.work().rate / whole.work().rate:.2f} | "
            f"{seconds / again['seconds']:.2f} |")


def drawn_pilots(store: Path, sizes: tuple[int, ...] = (10, 30, 100), trials: int = 2000) -> list[str]:
    """How often the interval of a random pilot holds what the run's images took, in samples at a fixed rate."""
    whole, rng, lines = Pilot.of(read_store(store)), np.random.default_rng(0), []
    total = float(whole.samples.sum())
    for m in sizes:
        held, wide = [], []
        for _ in range(trials):
            chosen = rng.choice(len(whole.samples), m, replace=False)
            part = Pilot("drawn", whole.samples[chosen], np.full(m, np.nan))
            told = forecast(len(whole.samples), part.work(rate=1.0), Fleet())
            if told.low is not None and told.high is not None:
                held.append(told.low <= total <= told.high)
                wide.append((told.high - told.low) / total)
        lines.append(f"| {m} | {np.mean(held):.1%} | {np.median(wide):.2f} |")
    return lines


def main() -> str:
    work = fresh("cost")
    run("train", "--data", "digits", "--model", "cnn", "--sigma", "0.25", "--epochs", "5", "-o", str(work / "m"))
    rows = [compared(work, design, workers) for design in DESIGNS for workers in (1, 2)]
    sequential = work / "1-1" / "run"
    samples = Pilot.of(read_store(sequential)).samples
    spread = (f"{len(samples)} images, samples an image {samples.mean():,.0f} on average, {np.median(samples):,.0f} in "
              f"the median, {samples.max():,} at most")
    return "\n".join([
        _PAGE.format(machine=machine_line(), every=EVERY, load=os.getloadavg()[2]),
        "| design | workers | start | forecast | interval | measured | inside | ratio | samples | load | model |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        _DRAWN.format(spread=spread, few=FEW),
        "| images of the pilot | held | width |",
        "|---|---|---|",
        *drawn_pilots(sequential),
    ]) + "\n"


_PAGE = """# Forecasts and what became of them

{machine}.

`smoothcert cost` from a pilot of every {every}rd of the 359 test digits, with as many workers as the run over all of
them. The small CNN, engine eager. Seconds by the clock of the whole command, start included; `start` is that of a run
of one sample an image, and is given to the forecast. The interval is at 95%.

Other programs ran on the same cores (load average over the last 15 minutes: {load:.1f}), now more and now fewer, which
no pilot can know. So the ratio of measured to forecast is taken apart. Samples: an image's, of the run over the
pilot's. Load: seconds a sample, likewise. Model: measured over the forecast from the run's own samples and rate,
so that only starts, sharing and tail are left to be wrong.
"""

_DRAWN = """
## Intervals of small pilots

Random pilots, 2,000 of each size, from the run that decides radii: {spread}.
How often the 95% interval holds the run's samples, and how wide it is (median, total = 1). With so uneven images a
small pilot often has none of the costly ones, and says too little; so `smoothcert cost` asks for {few}.
"""
