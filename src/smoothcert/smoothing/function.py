"""The base of smoothed functions whose outputs are sampled: SmoothedRegressor and SmoothedMultiLabelClassifier."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothcert.checks import check_bounds, check_count, check_positive, check_seed, check_shape
from smoothcert.machine import find_device
from smoothcert.noise import build_noise, fresh_seed, reach_of
from smoothcert.progress import Progress, Workload, metering, reporting
from smoothcert.smoothing.adapters import Fit, adapted, behind_fit
from smoothcert.smoothing.batching import ONE_ROW
from smoothcert.smoothing.classifier import ImageList, refuse_smoothed
from smoothcert.smoothing.contract import check_placed, try_rows
from smoothcert.smoothing.images import check_inputs, noise_keys
from smoothcert.smoothing.outputs import OutputSampler, open_sampler, real_function
from smoothcert.smoothing.precision import isolate, repeatable
from smoothcert.smoothing.protocols import Denoiser, base_classifier, check_ready, device_of, evaluation, is_random
from smoothcert.smoothing.rows import Subject
from smoothcert.smoothing.sampling import behind


class SmoothedFunction:
    """A function (N, *shape) -> (N, M) under Gaussian noise, whose outputs at noisy copies are judged by a plan.

    Arguments and errors: see `smoothcert.SmoothedRegressor`.
    """

    def __init__(
        self, model: Any, sigma: float, seed: int | None = None, noise: str | None = None,
        denoiser: Denoiser | None = None, bounds: tuple[float, float] | None = (0, 1), levels: int | None = 255,
        device: torch.device | str | None = None, *, input_shape: Sequence[int] | None = None,
        noise_format: str = "auto", output: str | int | None = None,
    ):
        refuse_smoothed(model)
        self.model, self.denoiser, self.output, self.noise_format = model, denoiser, output, noise_format
        self.sigma, self.bounds = check_positive("sigma", sigma), check_bounds(bounds)
        self.input_shape = None if input_shape is None else check_shape("input_shape", input_shape)
        self.noise = build_noise(noise, self.sigma, levels if levels is None else check_count("levels", levels),
                                 reach_of(self.bounds))
        self.seed = fresh_seed() if seed is None else check_seed(seed)
        self.device = find_device(device_of(model) if device is None else device)
        self._function = base_classifier(real_function(model), 2)
        check_placed(self.device, model, denoiser)

    def _judge(
        self, x: Tensor | npt.ArrayLike | ImageList, n: int, make_plan: Callable[[int], Any],
        judge: Callable[[Any, OutputSampler, Subject], Any], index: int | Sequence[int] | None,
        progress: Progress | None, verbose: bool,
    ) -> Any:
        """Return what is judged of an input, or a list of it for several.

        Args:
            n: samples of an input. make_plan: of the number M of outputs, once it is known.
            judge: samples the outputs of an input, and judges them.
        """
        inputs, single = check_inputs(x, self.bounds, self.input_shape)
        keys = noise_keys(inputs, index)
        check_ready(self.model)
        check_placed(self.device, self.model, self.denoiser)
        with isolate(self.device), reporting(progress, verbose), evaluation(self.model), repeatable():
            sampler = self._open(inputs.shape[1:])
            plan, found = make_plan(sampler.outputs), []
            with metering("sampling", Workload(len(inputs), len(inputs), "inputs", n * len(inputs), True)) as meter:
                for one, key in zip(inputs, keys, strict=True):
                    found.append(judge(plan, sampler, sampler.subject(one, key)))
                    meter.finish(n, n)
        return found[0] if single else found

    def _open(self, shape: tuple[int, ...]) -> OutputSampler:
        """Try the model on a few rows, and return what draws its outputs."""
        model = adapted(self._function, shape, None, self.output, self.device)
        random = is_random(self.denoiser) or is_random(model)
        conduct = try_rows(behind(self.denoiser, self.sigma, model), shape, None, self.device, model=model,
                           random=random, sigma=self.sigma, bounds=self.bounds)
        ready = behind_fit(model, Fit(batch=ONE_ROW)) if conduct.alone else model
        return open_sampler(ready, self.noise, conduct.answers.shape[1] - 1, shape, self.seed, self.device,
                            self.noise_format, self.denoiser)

    def __repr__(self) -> str:
        name = type(self.model).__name__ if isinstance(self.model, nn.Module) else str(self.model)
        return f"{type(self).__name__}({name}, sigma={self.sigma:g}, seed={self.seed})"
