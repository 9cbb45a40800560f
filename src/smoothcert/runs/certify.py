"""The certification run: images of a data set, through a plan, to records of a store.

`predict` is the same run with another plan: a plan says what is drawn for an image, and what its counts mean.
"""

from collections.abc import Callable
from functools import partial

from smoothcert.noise import Noise
from smoothcert.runs.config import CertifyConfig, PredictConfig, SamplingConfig
from smoothcert.runs.prepare import Prepared, prepare
from smoothcert.runs.progress import Progress, silent
from smoothcert.runs.provenance import provenance
from smoothcert.runs.records import Record
from smoothcert.runs.store import Store, StoreWriter, open_store, read_store
from smoothcert.runs.workers import records_of
from smoothcert.stats import Plan, certify_plan, predict_plan


def certify(config: CertifyConfig, progress: Progress = silent) -> Store:
    """Certify the images of a data set, or what is left of them; the finished store."""
    return _run(config, partial(_certify_plan, config), progress)


def predict(config: PredictConfig, progress: Progress = silent) -> Store:
    """Predict the images of a data set with the smoothed classifier, or what is left of them; the finished store."""
    return _run(config, partial(_predict_plan, config), progress)


def _certify_plan(config: CertifyConfig, noise: Noise) -> Plan:
    radius_of = partial(noise.radius, margin=config.margin)
    radii = config.radii if config.n_max is not None else None  # else they only say what to print
    return certify_plan(radius_of, n0=config.n0, n=config.n, radii=radii, curve_loss=config.curve_loss,
                        n_max=config.n_max, alpha=config.alpha, method=config.method, margin=config.margin)


def _predict_plan(config: PredictConfig, noise: Noise) -> Plan:
    return predict_plan(config.alpha, config.n, config.n_max)


def _run(config: SamplingConfig, plan_for: Callable[[Noise], Plan], progress: Progress) -> Store:
    run = prepare(config, plan_for)
    told = provenance(model=run.shown_model, data=run.data.name, classes=list(run.data.class_names))
    with open_store(config.out, run.identity, told) as store:
        _fill(store, run, plan_for, progress)
        store.finish()
    return read_store(config.out)


def _fill(store: StoreWriter, run: Prepared, plan_for: Callable[[Noise], Plan], progress: Progress) -> None:
    """Sample what is pending, and keep each image as it is done."""
    pending = store.pending()
    total, done = len(run.indices), len(run.indices) - len(pending)
    progress(done, total, f"resumed, {done} images were done" if done else "sampling")
    drawn = 0
    for finished, (position, record, seconds) in enumerate(records_of(run, plan_for, pending), start=1):
        store.add(position, record, seconds)
        drawn += samples_of(record)
        progress(done + finished, total, _words(drawn, finished * run.plan.most()))


def samples_of(record: Record) -> int:
    """Samples drawn for a record: its tallies are cumulative within a stage."""
    return sum({tally.stage: tally.n for tally in record.tallies}.values())


def _words(drawn: int, most: int) -> str:
    saved = f", {1 - drawn / most:.0%} saved by stopping early" if drawn < most else ""
    return f"{_short(drawn)} samples{saved}"


def _short(count: int) -> str:
    """12.3M for 12,345,678."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
