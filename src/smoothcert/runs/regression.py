"""The regression run: median smoothing of real-valued functions over a data set, to order statistics in a store.

A record is that of an input and one of the function's outputs. The outputs of an input are sampled together. A record
keeps a sketch of exact order statistics, and the intervals at the run's radii, which are computed from it again
whenever the store is verified (`smoothcert.stats.percentiles`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from smoothcert.data import ImageData
from smoothcert.errors import InputError
from smoothcert.noise import NOISES, identify_noise
from smoothcert.progress import count_passes, phase
from smoothcert.runs.inputs import open_inputs
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.run import Done, Run, Task
from smoothcert.smoothing.outputs import OutputSampler, open_sampler
from smoothcert.smoothing.precision import repeatable
from smoothcert.smoothing.protocols import evaluation
from smoothcert.stats import PercentilePlan
from smoothcert.stats.percentiles import order_statistics
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record


@dataclass(frozen=True, eq=False, kw_only=True)
class RegressionRun(Run):
    """A regression that is ready to sample: each input has a record for every output, in their order."""

    networks = ("sampler", "model")

    config: CertifyConfig
    data: ImageData
    indices: np.ndarray
    plan: PercentilePlan
    sampler: OutputSampler
    model: Any

    def reopen(self) -> Callable[[], "RegressionRun"]:
        return partial(prepare_regression, self.config)

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        """Return the pending positions, those of one input together."""
        return [tuple(task) for _, task in groupby(pending, lambda position: position // self.plan.outputs)]

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            started = time.perf_counter()
            made = self._sample(task)
            seconds = (time.perf_counter() - started) / len(task)
            yield from ((position, record, seconds) for position, record in zip(task, made, strict=True))

    def _sample(self, task: Task) -> list[Record]:
        """Return the records at these positions, which are of one input."""
        index = int(self.indices[task[0] // self.plan.outputs])
        subject = self.sampler.subject(self.data.image(index), index)
        with repeatable(), evaluation(self.model):
            values = self.sampler.draw(subject, "estimate", self.plan.n)
        count_passes(self.plan.n)
        kept = np.array(self.identity.regression.ranks)
        sketch = order_statistics(values, kept).T
        estimate, lower, upper = self.plan.read(kept, sketch)
        targets = None if self.data.targets is None else self.data.targets[index]
        return [Record(index, 0, -1, {
                    "output": k, "target": None if targets is None else float(targets[k]),
                    "estimate": float(estimate[k]), "lower": lower[k].tolist(), "upper": upper[k].tolist(),
                    "sketch": sketch[k].tolist()}, subject.centre.off_grid)
                for k in (position % self.plan.outputs for position in task)]


def prepare_regression(config: CertifyConfig) -> RegressionRun:
    """Load and check everything that the options name.

    Raises:
        InputError: radii that n cannot give, or targets that are not as many as the model's outputs.
    """
    inputs = open_inputs(config, real=True)
    data, noise, model = inputs.data, inputs.noise, inputs.classifier.model
    if config.noise is not None and not NOISES.is_own(config.noise):
        raise InputError(f"a regression rests on the theorem of Gaussian noise, and {noise.kind} is noise of a user's "
                         f"own code: give noise grid, gaussian or sound")
    outputs = inputs.classifier.num_classes - 1
    if data.targets is not None and data.targets.shape[1] != outputs:
        raise InputError(f"the model has {outputs} outputs, and {data.name} has {data.targets.shape[1]} targets an "
                         f"input")
    plan = config.percentile_plan(noise.sigma, outputs)
    with phase("preparing to sample"):
        sampler = open_sampler(model, noise, outputs, data.shape, inputs.seed, inputs.device, config.noise_format)
    identity = Identity.parse({
        "kind": "regression", **inputs.identity, "num_classes": outputs, "procedure": plan.identity(),
        "noise": {**identify_noise(noise, config.noise), "format": sampler.format},
        "space": "pixels", "engine": "plain", "precision": "float32", "device": inputs.device.type,
        "records_per_image": outputs,
        "regression": {"percentile": plan.percentile, "radii": list(plan.radii), "outputs": outputs,
                       "ranks": plan.sketch().tolist()},
    })
    return RegressionRun(
        config=inputs.resolve(config), identity=identity, most_samples=-(-plan.n // outputs),
        provenance={**inputs.provenance(config), "classes": []}, source=inputs.source, data=data,
        indices=inputs.indices, plan=plan, sampler=sampler, model=model)
