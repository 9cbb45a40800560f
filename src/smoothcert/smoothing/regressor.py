"""SmoothedRegressor: median smoothing of a function with real-valued outputs, beside SmoothedClassifier."""

from collections.abc import Sequence
from typing import Any, overload

import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothcert.checks import check_bounds, check_count, check_positive, check_seed, check_shape
from smoothcert.machine import find_device
from smoothcert.noise import build_noise, fresh_seed, reach_of
from smoothcert.progress import Progress, Workload, count_passes, metering, reporting
from smoothcert.smoothing.adapters import Fit, adapted, behind_fit
from smoothcert.smoothing.batching import ONE_ROW
from smoothcert.smoothing.classifier import ImageList, refuse_smoothed
from smoothcert.smoothing.contract import check_placed, try_rows
from smoothcert.smoothing.images import check_inputs, noise_keys
from smoothcert.smoothing.outputs import OutputSampler, open_sampler, real_function
from smoothcert.smoothing.precision import isolate, repeatable
from smoothcert.smoothing.protocols import Denoiser, base_classifier, check_ready, device_of, evaluation, is_random
from smoothcert.smoothing.sampling import behind
from smoothcert.stats.percentiles import Intervals, PercentilePlan


class SmoothedRegressor:
    """h(x) = the p-th percentile of f(x + N(0, sigma^2 I)), for each output of f (Chiang et al. 2020).

    `certify` bounds h within a radius, `predict` estimates it at the input itself, each with a guarantee; the theorem
    and its proof are in `smoothcert.stats.percentiles`.

    Args:
        model: f, (N, *shape) float32 -> real values (N,) or (N, M), normalisation inside; or an object with `predict`,
            such as a scikit-learn regressor, which gets the inputs flattened. Values are taken as float32.
        sigma, seed, noise, denoiser, bounds, levels, device, input_shape, noise_format: as for `SmoothedClassifier`.
        output: name or position of the output that holds the values, where the model has several.
    Raises:
        InputError: values outside these. ModelError: a model that is no function of one input.

    >>> h = SmoothedRegressor(lambda x: x.mean(dim=(1, 2, 3)), sigma=0.5, seed=0)
    >>> found = h.certify(torch.ones(1, 4, 4), radii=(0.25, 0.5), n=1000)
    >>> low, high = found.at(0.25)  # the mean moves by r / 4
    >>> bool(low[0] <= 1 - 0.25 / 4 < 1 + 0.25 / 4 <= high[0])
    True
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

    @overload
    def certify(
        self, x: ImageList, radii: Sequence[float], n: int = 10_000, alpha: float = 0.001, percentile: float = 0.5, *,
        index: int | Sequence[int] | None = None, progress: Progress | None = None, verbose: bool = False,
    ) -> list[Intervals]: ...

    @overload
    def certify(
        self, x: Tensor | npt.ArrayLike, radii: Sequence[float], n: int = 10_000, alpha: float = 0.001,
        percentile: float = 0.5, *, index: int | Sequence[int] | None = None, progress: Progress | None = None,
        verbose: bool = False,
    ) -> Any: ...

    def certify(
        self, x: Tensor | npt.ArrayLike | ImageList, radii: Sequence[float], n: int = 10_000, alpha: float = 0.001,
        percentile: float = 0.5, *, index: int | Sequence[int] | None = None, progress: Progress | None = None,
        verbose: bool = False,
    ) -> Intervals | list[Intervals]:
        """Return the intervals in which the percentile of each output stays, at each radius.

        Args:
            x: one input or several, as for `SmoothedClassifier.predict`.
            radii: l2 radii in units of the inputs, chosen beforehand.
            n: samples an input. alpha: failure probability, for all outputs together at one radius.
            percentile: p in (0, 1); 0.5 is the median.
            index, progress, verbose: as for `SmoothedClassifier.predict`.
        Returns:
            The intervals of one input, or a list of them for several.
        Raises:
            InputError: radii that n cannot give; the least n that can is named. ModelError: a model that fails, or
                returns NaN.
        """
        inputs, single = check_inputs(x, self.bounds, self.input_shape)
        keys = noise_keys(inputs, index)
        PercentilePlan(self.sigma, tuple(radii), n, alpha, percentile)  # what one output could not give
        check_ready(self.model)
        check_placed(self.device, self.model, self.denoiser)
        with isolate(self.device), reporting(progress, verbose), evaluation(self.model), repeatable():
            sampler = self._open(inputs.shape[1:])
            plan, found = PercentilePlan(self.sigma, tuple(radii), n, alpha, percentile, sampler.outputs), []
            with metering("sampling", Workload(len(inputs), len(inputs), "inputs", n * len(inputs), True)) as meter:
                for one, key in zip(inputs, keys, strict=True):
                    found.append(plan.judge(sampler.draw(sampler.subject(one, key), "estimate", n)))
                    count_passes(n)
                    meter.finish(n, n)
        return found[0] if single else found

    def predict(
        self, x: Tensor | npt.ArrayLike | ImageList, n: int = 1000, alpha: float = 0.001, percentile: float = 0.5, *,
        index: int | Sequence[int] | None = None, progress: Progress | None = None, verbose: bool = False,
    ) -> Any:
        """Return the percentile of each output at the input itself, with the interval that it lies in.

        Args:
            x, n, alpha, percentile, index, progress, verbose: as for `certify`.
        Returns:
            `Intervals` at radius 0 for one input, a list of them for several.
        """
        return self.certify(x, (0.0,), n, alpha, percentile, index=index, progress=progress, verbose=verbose)

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
        return f"SmoothedRegressor({name}, sigma={self.sigma:g}, seed={self.seed})"
