"""`gaussian`: Gaussian data augmentation (Cohen et al. 2019, section 3.3); and `clean`, training without noise."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch
from smoothcert.smoothing.soft import add_noise


@dataclass(frozen=True)
class Gaussian(WholeBatch):
    """Minimise CE(F(x + e), y), e ~ N(0, sigma^2 I) fresh at every step; x + e is never clipped.

    Certification votes with such draws of F(x + e), so their cross-entropy bounds the smoothed classifier's error (the
    paper's appendix on training).
    """

    sigma: float

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        return Loss(cross_entropy(model(add_noise(images, self.sigma, step.generator)), labels))


@dataclass(frozen=True)
class Clean(WholeBatch):
    """Minimise CE(F(x), y), the cross-entropy of the images as they are: the undefended baseline."""

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        return Loss(cross_entropy(model(images), labels))
