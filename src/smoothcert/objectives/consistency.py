"""`consistency`: Gaussian augmentation with answers that agree over the noise (Jeong & Shin 2020)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from smoothcert.checks import check_count, check_weight
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch
from smoothcert.smoothing.soft import draw_noise, log_mean_softmax, noisy_logits


@dataclass(frozen=True)
class Consistency(WholeBatch):
    """Minimise mean_i CE(F_i, y) + lambda mean_i KL(F_bar || F_i) + eta H(F_bar), F_i = F(x + e_i) for m noises e_i,
    F_bar their mean and H its entropy.

    Attributes:
        m: noises an image, 2 in the paper.
        lam: lambda; 20 / 10 / 10 on CIFAR-10 and 10 / 5 / 5 on MNIST at sigma .25 / .5 / 1.
        eta: .5 in the paper.
    """

    sigma: float
    m: int = 2
    lam: float = 10.0
    eta: float = 0.5

    def __post_init__(self) -> None:
        check_count("m", self.m)
        check_weight("lam", self.lam)
        check_weight("eta", self.eta)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.m, self.sigma, step.generator)
        return self.of_logits(noisy_logits(model, images, noise), labels)

    def of_logits(self, logits: Tensor, labels: Tensor) -> Loss:
        """Return the loss of the noisy copies' logits (B, m, K)."""
        plain = cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))
        log_mean = log_mean_softmax(logits)
        mean = log_mean.exp()
        entropy = -(mean * log_mean).sum(dim=1).mean()
        spread = -(mean * log_softmax(logits, dim=-1).mean(dim=1)).sum(dim=1).mean() - entropy
        parts = {"cross_entropy": plain, "spread": spread, "entropy": entropy}
        return Loss(plain + self.lam * spread + self.eta * entropy, parts)
