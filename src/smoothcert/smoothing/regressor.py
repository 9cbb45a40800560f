"""SmoothedRegressor: median smoothing of a function with real-valued outputs, beside SmoothedClassifier."""

from collections.abc import Sequence
from typing import Any, overload

import numpy.typing as npt
from torch import Tensor

from smoothcert.progress import Progress
from smoothcert.smoothing.classifier import ImageList
from smoothcert.smoothing.function import SmoothedFunction
from smoothcert.stats.percentiles import Intervals, PercentilePlan


class SmoothedRegressor(SmoothedFunction):
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

    >>> import torch
    >>> h = SmoothedRegressor(lambda x: x.mean(dim=(1, 2, 3)), sigma=0.5, seed=0)
    >>> found = h.certify(torch.ones(1, 4, 4), radii=(0.25, 0.5), n=1000)
    >>> low, high = found.at(0.25)  # the mean moves by r / 4
    >>> bool(low[0] <= 1 - 0.25 / 4 < 1 + 0.25 / 4 <= high[0])
    True
    """

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
        PercentilePlan(self.sigma, tuple(radii), n, alpha, percentile)  # what one output could not give
        return self._judge(
            x, n, lambda outputs: PercentilePlan(self.sigma, tuple(radii), n, alpha, percentile, outputs),
            lambda plan, sampler, subject: plan.judge(sampler.draw(subject, "estimate", n)), index, progress, verbose)

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
