"""The base of runs over a function's outputs: each input has a record for every output, and is sampled once for all."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from smoothcert.data import ImageData
from smoothcert.errors import InputError
from smoothcert.noise import NOISES, identify_noise
from smoothcert.progress import phase
from smoothcert.runs.inputs import Inputs, open_inputs
from smoothcert.runs.options import CertifyConfig
from smoothcert.runs.run import Done, Run, Task
from smoothcert.smoothing.outputs import OutputSampler, open_sampler
from smoothcert.smoothing.precision import repeatable
from smoothcert.smoothing.protocols import evaluation
from smoothcert.store.records import Record


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputRun(Run):
    """A run that is ready to sample outputs."""

    networks = ("sampler", "model")

    config: CertifyConfig
    data: ImageData
    indices: np.ndarray
    sampler: OutputSampler
    model: Any

    def tasks(self, pending: Sequence[int]) -> list[Task]:
        """Return the pending positions, those of one input together."""
        outputs = self.identity.records_per_image  # the sampler is gone where other processes make the records
        return [tuple(task) for _, task in groupby(pending, lambda position: position // outputs)]

    def records(self, tasks: Iterable[Task]) -> Iterator[Done]:
        for task in tasks:
            started = time.perf_counter()
            with repeatable(), evaluation(self.model):
                made = self.sample(int(self.indices[task[0] // self.sampler.outputs]))
            seconds = (time.perf_counter() - started) / len(task)
            yield from ((position, made[position % len(made)], seconds) for position in task)

    @abstractmethod
    def sample(self, index: int) -> list[Record]:
        """Return the records of an input, one for each output."""


def open_outputs(config: CertifyConfig, what: str) -> tuple[Inputs, OutputSampler]:
    """Load and check what the options name, and make the model's outputs ready to be sampled.

    Args:
        what: the task, for messages.
    Raises:
        InputError: noise of a user's own code, or targets that are not as many as the model's outputs.
    """
    inputs = open_inputs(config, real=True)
    data, noise = inputs.data, inputs.noise
    if config.noise is not None and not NOISES.is_own(config.noise):
        raise InputError(f"{what} rests on the theorem of Gaussian noise, and {noise.kind} is noise of a user's own "
                         f"code: give noise grid, gaussian or sound")
    outputs = inputs.classifier.num_classes - 1
    if data.targets is not None and data.targets.shape[1] != outputs:
        raise InputError(f"outputs of the model: {outputs}, targets of an input of {data.name}: "
                         f"{data.targets.shape[1]}; there must be as many: name the targets with label, or give "
                         f"another model")
    with phase("preparing to sample"):
        return inputs, open_sampler(inputs.classifier.model, noise, outputs, data.shape, inputs.seed, inputs.device,
                                    inputs.noise_format(config.noise_format))


def identify_outputs(config: CertifyConfig, inputs: Inputs, sampler: OutputSampler) -> dict[str, Any]:
    """Return what the identities of all runs over outputs have."""
    return {**inputs.identity, "noise": {**identify_noise(inputs.noise, config.noise), "format": sampler.format},
            "space": "pixels", "engine": "plain", "precision": "float32", "device": inputs.device.type,
            "records_per_image": sampler.outputs}
