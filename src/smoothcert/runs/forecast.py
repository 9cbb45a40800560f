"""The forecast of a run before its first sample, and the sequential design that would answer with far fewer."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from smoothcert.progress.pace import describe_count, describe_seconds
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.runs.run import Run
from smoothcert.stats import FixedN, FixedPredict
from smoothcert.stats.sequential import SEQUENTIAL_METHODS

if TYPE_CHECKING:
    from smoothcert.runs.certify import SamplingRun

_TRIED = 200  # of a run's samples, one in so many measures its speed at most
_LONG = 10.0  # seconds of a run, below which there is no need to make it shorter
_ADVISED = 10_000
"""Samples an image from which the sequential designs take a tenth, as was measured on published logs
(docs/results/sequential.md): 2 % for one radius, and 12 % at most for a prediction of up to 10,000 samples."""


def forecast_samples(run: "SamplingRun", pending: Sequence[int]) -> Iterator[str]:
    """Yield what the images that are left will take, and which options would answer with a tenth of it."""
    if not pending:
        return
    most = len(pending) * run.most_samples
    each = f"{run.most_samples:,} samples{'' if run.exact else ' at most'}"
    rate = _measure(run, run, most)
    yield f"{_resumed(run, pending)}{_plural(len(pending), 'image')} x {each}{_describe(run, most, rate)}"
    if rate is None or most / rate >= _LONG:
        yield from _advise(run)


def forecast_attacks(run: Run, base: "SamplingRun", pending: Sequence[int]) -> Iterator[str]:
    """Yield what the attacks that are left will take, in forward passes; a step counts as three."""
    if not pending:
        return
    most = sum(map(run.passes, pending))
    told = _describe(run, most, _measure(run, base, most)).replace("samples", "passes")
    yield f"{_resumed(run, pending)}{_plural(len(pending), 'attack')}{told}"


def _measure(run: Run, base: "SamplingRun", most: int) -> float | None:
    """Return the samples a second of all processes together; None where it was not measured."""
    if run.config.cluster and not run.config.workers:
        return None
    rate = base.measure(most // _TRIED)
    return None if rate is None else rate * run.config.processes


def _describe(run: Run, most: int, rate: float | None) -> str:
    total = f" = {describe_count(most)} samples"
    if rate is None:
        return total
    bound = "about" if run.exact else "at most about"
    several = f" in {run.config.processes} processes" if run.config.processes > 1 else ""
    return f"{total}, {bound} {describe_seconds(most / rate)} at {describe_count(rate)} samples/s{several}"


def _resumed(run: Run, pending: Sequence[int]) -> str:
    done = run.identity.record_count - len(pending)
    return f"{done} of {run.identity.record_count} {run.unit} are done; left: " if done else ""


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _advise(run: "SamplingRun") -> Iterator[str]:
    """Yield the options of a sequential design that takes about a tenth of a fixed number of samples, if there is one.
    """
    config, plan = run.config, run.plan
    if isinstance(config, CertifyConfig) and isinstance(plan, FixedN):
        if plan.n < _ADVISED or plan.method not in SEQUENTIAL_METHODS:
            return
        radii = config.radii or (run.identity.noise.sigma,)
        radius, n = radii[len(radii) // 2], plan.n
        options, question = f"--n-max {n} --radii {radius:g}", f"whether radius {radius:g} is certified"
    elif isinstance(config, PredictConfig) and isinstance(plan, FixedPredict):
        n = plan.most()
        if n < _ADVISED or len(plan.looks) > 1:
            return
        options, question = f"--n-max {n}", "the answer alone"
    else:
        return
    where = "in place of --n" if config.n is not None else "beside the other options"
    yield (f"about a tenth of these samples usually decides {question}: give {options} {where}, and another -o "
           f"(docs/speed.md)")
