"""SmoothedMultiLabelClassifier: several labels for an input, beside SmoothedClassifier."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from torch import Tensor

from smoothcert.checks import check_finite
from smoothcert.progress import Progress
from smoothcert.smoothing.classifier import ImageList
from smoothcert.smoothing.function import SmoothedFunction
from smoothcert.smoothing.outputs import OutputSampler
from smoothcert.smoothing.rows import Subject
from smoothcert.stats.multi_label import LabelAnswers, MultiLabelPlan


class SmoothedMultiLabelClassifier(SmoothedFunction):
    """g(x) = for each label, whether it is more probably present or absent in f(x + N(0, sigma^2 I)).

    Each label is a binary smoothed classifier, certified at alpha / L (see `smoothcert.stats.multi_label`).

    Args:
        model: f, (N, *shape) float32 -> a score for each label (N, L), or (N,) for one; normalisation inside.
        threshold: a label is present where its score exceeds this: 0 for logits, 0.5 for probabilities.
        sigma, seed, noise, denoiser, bounds, levels, device, input_shape, noise_format, output: as for
            `SmoothedRegressor`.
    Raises:
        InputError: values outside these. ModelError: a model that is no function of one input.

    >>> import torch
    >>> g = SmoothedMultiLabelClassifier(lambda x: x.flatten(1) - 0.5, sigma=0.25, seed=0)
    >>> found = g.certify(torch.tensor([[[1.0, 0.0]]]), n=1000)
    >>> found.prediction.tolist()
    [1, 0]
    >>> bool((found.radius < 0.5).all())  # the labels change 0.5 away
    True
    """

    def __init__(self, model: Any, sigma: float, *, threshold: float = 0.0, **options: Any):
        super().__init__(model, sigma, **options)
        self.threshold = check_finite("threshold", threshold)

    def certify(
        self, x: Tensor | npt.ArrayLike | ImageList, n: int = 10_000, n0: int = 100, alpha: float = 0.001, *,
        index: int | Sequence[int] | None = None, progress: Progress | None = None, verbose: bool = False,
    ) -> Any:
        """Return what is certified of the labels: `LabelAnswers` of one input, each (L,), a list of them for several.

        Args:
            x: one input or several, as for `SmoothedClassifier.predict`.
            n0, n: samples that choose the answers, and that bound their probabilities.
            alpha: failure probability of an input: of all its labels together.
            index, progress, verbose: as for `SmoothedClassifier.predict`.
        """
        MultiLabelPlan(1, n0, n, alpha)

        def judge(plan: MultiLabelPlan, sampler: OutputSampler, subject: Subject) -> LabelAnswers:
            votes = [sampler.count_above(subject, stage, size, self.threshold)[None]
                     for stage, size in (("select", n0), ("estimate", n))]
            found = plan.judge(*votes)
            return LabelAnswers(found.chosen[0], found.radius[0], found.holm[0])

        return self._judge(x, n0 + n, lambda labels: MultiLabelPlan(labels, n0, n, alpha, self.noise.radius), judge,
                           index, progress, verbose)
