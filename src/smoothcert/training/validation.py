"""What validation measures of a network under one fixed draw of noise, and which epoch is then the best."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smoothcert.classifiers.card import DENOISER_FIGURES

Sums = Callable[[nn.Module, Tensor, Tensor, Tensor, float | None], list[Tensor]]
"""(network in eval mode, clean images, noisy ones, labels, sigma) -> a sum over the images for each figure."""


@dataclass(frozen=True)
class Measure:
    """The figures of one kind of network, means over the held-out images; the first one says which epoch is best.

    Attributes:
        figures: their names.
        sign: 1 where more of the first is better, -1 where less is.
        sums: of a batch.
        words: the best epoch's figures in a few words; "{noise}" says under what noise.
    """

    figures: tuple[str, ...]
    sign: int
    sums: Sums
    words: str

    def better(self, figures: dict[str, Any], best: dict[str, float]) -> bool:
        """Whether an epoch is at least as good as the best one so far, if any; without figures the last one is."""
        name = self.figures[0]
        return not best or self.sign * figures[name] >= self.sign * best[name]

    def told(self, best: dict[str, float], sigma: float | None) -> str:
        """The best epoch's figures, for a line of text."""
        if not best:
            return "no image held out, so the last epoch is taken"
        return self.words.format(**best, noise=f"under noise sigma {sigma:g}" if sigma else "without noise")


def _classified(
    network: nn.Module, clean: Tensor, noisy: Tensor, labels: Tensor, sigma: float | None
) -> list[Tensor]:
    logits = network(noisy)
    return [(logits.argmax(dim=1) == labels).sum(), cross_entropy(logits, labels, reduction="sum")]


def _denoised(network: nn.Module, clean: Tensor, noisy: Tensor, labels: Tensor, sigma: float | None) -> list[Tensor]:
    return [(clean - estimate).square().sum(dtype=torch.float64) for estimate in (network(noisy, sigma), noisy)]


MEASURES = {
    "classifier": Measure(("validation_accuracy", "validation_loss"), 1, _classified,
                          "held-out accuracy {validation_accuracy:.1%} {noise}"),
    "denoiser": Measure(DENOISER_FIGURES, -1, _denoised,
                        "held-out squared error {validation_error:.4g} an image ({validation_error_without:.4g} "
                        "without the denoiser) {noise}"),
}
"""By what is trained: see `objectives.Objective.trains`."""
