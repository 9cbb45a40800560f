"""The focal loss (Lin et al. 2017) under Gaussian noise."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.objectives import Loss, WholeBatch
from smoothcert.smoothing.soft import add_noise


@dataclass(frozen=True)
class Focal(WholeBatch):
    """Minimise (1 - p_y)^power CE(F(x + e), y), e ~ N(0, sigma^2 I)."""

    sigma: float  # filled with the run's noise level
    power: float = 2.0  # --objective-option power=1

    def loss(self, model, images: Tensor, labels: Tensor, step) -> Loss:
        noisy = add_noise(images, self.sigma, step.generator)
        each = cross_entropy(model(noisy), labels, reduction="none")
        weight = (1 - (-each).exp()) ** self.power
        return Loss((weight * each).mean(), {"weight": weight.mean()})
