"""`gaussian`: Gaussian data augmentation (Cohen et al. 2019, section 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.draws import standard_normals
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch


@dataclass(frozen=True)
class Gaussian(WholeBatch):
    """Minimise CE(F(x + e), y), e ~ N(0, sigma^2 I) fresh at every step; x + e is never clipped.

    A draw of F(x + e) is what certification will vote with, so its cross-entropy bounds the smoothed classifier's
    error (the paper's appendix on training).
    """

    sigma: float

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        return Loss(cross_entropy(model(add_noise(images, self.sigma, step.generator)), labels))


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + e, e ~ N(0, sigma^2 I), of any shape."""
    return images + sigma * standard_normals(images.shape, generator, images)
