"""`macer`: maximise the certified radius itself (Zhai et al. 2020)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import nll_loss

from smoothcert.checks import check_count, check_positive, check_weight
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch
from smoothcert.smoothing.soft import draw_noise, log_mean_softmax, noisy_logits, normal_gap


@dataclass(frozen=True)
class Macer(WholeBatch):
    """Minimise -log G_y + lambda (sigma/2) sum (gamma - gap), both over the batch size (Algorithm 1).

    G = mean of softmax(z_j) over k noises and gap = Phi^-1(p_1) - Phi^-1(p_2) of the two likeliest classes of the mean
    of softmax(beta z_j), so that sigma/2 gap is a soft certified radius. The sum is over images whose likeliest class
    there is y and whose gap is finite and at most gamma: the hinge.

    Attributes:
        k: noises an image.
        lam: lambda; 12 / 6 / 12 on CIFAR-10 and 16 / 16 / 6 on MNIST at sigma .25 / .5 / 1.
        gamma: the gap beyond which nothing is gained.
        beta: inverse temperature of the soft votes.
        robust_from: number of epochs with the first term alone; 30 on MNIST.
    """

    sigma: float
    k: int = 16
    lam: float = 12.0
    gamma: float = 8.0
    beta: float = 16.0
    robust_from: float = 0.0

    def __post_init__(self) -> None:
        check_count("k", self.k)
        check_weight("lam", self.lam)
        check_positive("gamma", self.gamma)
        check_positive("beta", self.beta)
        check_weight("robust_from", self.robust_from)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.k, self.sigma, step.generator)
        return self.of_logits(noisy_logits(model, images, noise), labels, step.epoch)

    def of_logits(self, logits: Tensor, labels: Tensor, epoch: float) -> Loss:
        """Return the loss of the noisy copies' logits (B, k, K)."""
        classification = nll_loss(log_mean_softmax(logits), labels)
        top = (self.beta * logits).softmax(dim=-1).mean(dim=1).topk(2, dim=1)
        gap, finite = normal_gap(top.values[:, 0], top.values[:, 1])
        counted = finite & (top.indices[:, 0] == labels) & (gap.abs() <= self.gamma)
        radius = self.sigma / 2 * (self.gamma - gap)[counted].sum() / len(labels)
        weight = self.lam if epoch >= self.robust_from else 0.0
        parts = {"classification": classification, "radius": radius, "counted": counted.to(radius.dtype).mean()}
        return Loss(classification + weight * radius, parts)
