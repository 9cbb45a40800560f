"""`stability`: stability training with noise, STN (Li et al. 2018)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.checks import check_weight
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch
from smoothcert.smoothing.soft import add_noise


@dataclass(frozen=True)
class Stability(WholeBatch):
    """Minimise CE(F(x), y) + lambda CE(F(x), F(x + e)): clean images teach, noisy ones must answer alike.

    The second term is -sum_c F_c(x) log F_c(x + e), gradients through both. Clean and noisy images pass together, so
    that BatchNorm sees one batch of both.

    Attributes:
        lam: lambda, 2 in the paper.
    """

    sigma: float
    lam: float = 2.0

    def __post_init__(self) -> None:
        check_weight("lam", self.lam)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noisy = add_noise(images, self.sigma, step.generator)
        clean_logits, noisy_logits = model(torch.cat([images, noisy])).chunk(2)
        clean = cross_entropy(clean_logits, labels)
        stability = cross_entropy(noisy_logits, clean_logits.softmax(dim=1))
        return Loss(clean + self.lam * stability, {"clean": clean, "stability": stability})
