"""The runs that count votes: images of a data set, through a plan, to records of a store.

`certify` (of classes; `PREPARE` has its other tasks) and `predict` are one run with two plans: a plan says what is
drawn for an image, and what its counts mean.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from smoothcert.config.sampling import SamplingConfig
from smoothcert.data import ImageData
from smoothcert.denoise.walks import FrontEnd
from smoothcert.loggers import open_loggers
from smoothcert.noise import Noise, identify_noise
from smoothcert.progress import Progress, phase, reporting
from smoothcert.runs.executors import executor_of
from smoothcert.runs.figures import watch_figures
from smoothcert.runs.forecast import forecast_samples
from smoothcert.runs.inputs import Keep, open_inputs
from smoothcert.runs.multi_label import prepare_multi_label
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.runs.regression import prepare_regression
from smoothcert.runs.run import Done, Run, Task
from smoothcert.smoothing import Finished, Sampling, evaluation, open_voter, run_plan
from smoothcert.smoothing.precision import isolate
from smoothcert.smoothing.rows import Segment
from smoothcert.smoothing.voters import Voter
from smoothcert.stats import Plan
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import Store

_LEAST_TRIED, _TRIED_SECONDS = 16, 0.3  # samples, and seconds, on which the speed is measured

PlanFor = Callable[[Noise, int | None], Plan]
"""Makes the plan, given the noise and the version of its design, or None for the last one."""


@isolate()
def certify(config: CertifyConfig, progress: Progress | None = None, *, verbose: bool = False) -> Store:
    """Certify the images of a data set, or what is left of them, as the task of the options says, and return the
    finished store.

    Args:
        progress: is called with every `smoothcert.progress.Event`.
        verbose: shows a bar, in a terminal or a notebook, and plain lines elsewhere.
    """
    with reporting(progress, verbose), open_loggers(config.log_to, config.out) as log:
        config = config.model_copy(update={"log_to": ()})  # loggers stay in this process
        run = PREPARE[config.task](config)
        return run.fill(executor_of(config), watch_figures(run, log, config.radii or ()))


@isolate()
def predict(config: PredictConfig, progress: Progress | None = None, *, verbose: bool = False) -> Store:
    """Predict the images of a data set, or what is left of them, and return the finished store; see `certify`."""
    with reporting(progress, verbose), open_loggers(config.log_to, config.out) as log:
        config = config.model_copy(update={"log_to": ()})  # loggers stay in this process
        run = prepare_sampling(config, config.plan)
        return run.fill(executor_of(config), watch_figures(run, log))


@dataclass(frozen=True, eq=False, kw_only=True)
class SamplingRun(Run):
    """A run that is ready to sample: each image is a task, and has one record."""

    networks = ("voter", "model")

    config: SamplingConfig
    data: ImageData
    indices: np.ndarray
    plan: Plan
    voter: Voter
    model: Any
    plan_for: PlanFor

    def reopen(self) -> Callable[[], "SamplingRun"]:
        return partial(prepare_sampling, self.config, self.plan_for)

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for done in self.answer(map(self._read, tasks)):  # a generator would not go on after a pause
            index = int(self.indices[done.tag])
            yield done.tag, self.record(index, done, done.values), done.seconds

    def answer(self, images: Iterable[tuple[Any, np.ndarray, int]]) -> Iterator[Finished]:
        """Take images (tag, float32 input, noise key) through the plan, and yield each as it is done."""
        with evaluation(self.model):
            yield from run_plan(self.plan, self.voter, images, self.data.num_classes, self._label)

    def _read(self, task: Task) -> tuple[int, np.ndarray, int]:
        index = int(self.indices[task[0]])
        return task[0], self.data.image(index), index

    def _label(self, position: int) -> int:
        return int(self.data.labels[self.indices[position]])

    def forecast(self, pending: Sequence[int]) -> Iterator[str]:
        return forecast_samples(self, pending)

    def measure(self, most: int) -> float | None:
        """Return how many samples a second are drawn in this process, tried on at most so many; None for too few."""
        if self.voter.capacity is None or most < _LEAST_TRIED:
            return None
        index = int(self.indices[0])
        subject, size, drawn = self.voter.subject(self.data.image(index), index), min(self.voter.capacity, most // 2), 0
        tried = Segment(subject, "estimate", 0, size)
        with evaluation(self.model), phase("measuring the speed"):
            self.voter.count([tried])
            started = elapsed = time.perf_counter()
            while not drawn or (elapsed < _TRIED_SECONDS and drawn + 2 * size <= most):
                self.voter.count([tried])
                drawn, elapsed = drawn + size, time.perf_counter() - started
        return drawn / elapsed

    def record(self, index: int, done: Finished, values: dict[str, Any]) -> Record:
        """Return the record of an image of the data set, with the looks that were taken at it."""
        return Record(index, int(self.data.labels[index]), done.prediction, values, done.off_grid,
                      [Tally.of(look.stage, look.counts) for look in done.history])


def usual_samples(plan: Plan) -> int:
    """Return about how many samples an image takes, against which the start of an engine is weighed.

    Sequential plans stop early. On CIFAR-10 one radius took 1,400 to 2,400 of at most 100,000, four radii 3,300 to
    5,300 of at most 10,000, and seven 6,000 of these: 4 to 13 sqrt(n_max) a radius.
    """
    told = plan.identity()
    if "n_max" not in told:
        return plan.most()
    radii = told.get("radii")
    return min(plan.most(), 10 * math.isqrt(told["n_max"]) * len(radii)) if radii else plan.most() // 10


def prepare_sampling(
    config: SamplingConfig, plan_for: PlanFor, keep: Keep | None = None, answers: int = 1,
) -> SamplingRun:
    """Load and check everything that the options name.

    Args:
        plan_for: makes the plan, once the noise is known. A store goes on in the version of its design that it has.
        keep: as for `open_inputs`.
        answers: how often each image is judged.
    """
    inputs = open_inputs(config, keep)
    data, indices, noise, model = inputs.data, inputs.indices, inputs.noise, inputs.classifier.model
    plan = plan_for(noise, None)
    if (stored := inputs.stored and inputs.stored.procedure) and stored.design == plan.identity().get("design"):
        plan = plan_for(noise, stored.version)
    engine = inputs.stored.engine if config.engine == "auto" and inputs.stored else config.engine
    noise_format = inputs.noise_format(config.noise_format)
    how = Sampling("plain" if engine == "exact" else engine, config.space, config.precision, noise_format,
                   config.batch_size, inputs.device, usual_samples(plan) * len(indices) * answers)
    with phase("preparing to sample"):
        ready = open_voter(model, noise, data.num_classes, data.shape, inputs.seed, None, how,
                           inputs.classifier.conduct, data.bounds)
    identity = Identity.parse({
        "kind": plan.kind, **inputs.identity, "procedure": plan.identity(),
        "noise": {**identify_noise(noise, config.noise), "format": ready.voter.format},
        **ready.identity(config.precision, inputs.device), **({} if noise.norm == "l2" else {"norm": noise.norm}),
        **({"claim": config.claim} if isinstance(config, CertifyConfig) and config.claim else {}),
    })
    front = getattr(model, "denoiser", None)
    cost = front.cost if isinstance(front, FrontEnd) else None
    provenance = {**inputs.provenance(config), **({"each_sample": cost} if cost else {}),
                  **(ready.choice.provenance() if ready.choice else {})}
    return SamplingRun(
        config=inputs.resolve(config, engine=ready.engine, noise_format=noise_format), identity=identity,
        most_samples=plan.most(), exact="n_max" not in plan.identity(), sample_cost=cost, provenance=provenance,
        source=inputs.source, data=data, indices=indices, plan=plan, voter=ready.voter, model=model, plan_for=plan_for)


PREPARE: dict[str, Callable[[CertifyConfig], Run]] = {
    "classification": lambda config: prepare_sampling(config, config.plan),
    "multi-label": prepare_multi_label,
    "regression": prepare_regression,
}
"""How the run of each task is made ready."""
