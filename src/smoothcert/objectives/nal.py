"""`nal`: noisy adversarial learning (Yang et al. 2021)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import Ascent, attack_images
from smoothcert.checks import check_count, check_flag, check_optional_positive, check_positive
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch, distance_parts
from smoothcert.smoothing.soft import draw_noise, noisy_logits


@dataclass(frozen=True)
class NAL(WholeBatch):
    """Minimise (1/s) sum_j CE(F(x_K + z_j), y), z_j ~ N(0, sigma^2 I), where K steps from x ascend

        (1/s) sum_j [ CE(F(x' + z_j), y) - gamma ||x' + z_j - x||^2 ]

    without projection: gamma prices the distance (Yang et al. 2021, Algorithm 1). A batch of B images takes K + 1
    passes of s B rows. The ascent sees the network in eval mode, so that it leaves BatchNorm statistics alone.

    The paper does not say which z_j the weights see; here they are drawn anew, as for every step of the ascent. If they
    were those of the last step, the noise would cancel at s = 1 and eta1 = .5 / gamma.

    Attributes:
        K: steps of the ascent; 4 or 8 in the paper.
        s: noises an image, 1, 4 or 8 in the paper.
        gamma: price of a unit of squared distance; .25, 1.5 and 3 (MNIST) or 5 (CIFAR-10) in the paper.
        eta1: size of a step; None is .5 / gamma.
        resample: draw the noise anew for every step and for the weights; False keeps one draw for all of them.
        noise_in_cost: False prices x' - x alone, as in the paper's Figure 2b.
    """

    sigma: float
    K: int = 4
    s: int = 4
    gamma: float = 1.5
    eta1: float | None = None
    resample: bool = True
    noise_in_cost: bool = True

    def __post_init__(self) -> None:
        check_count("K", self.K)
        check_count("s", self.s)
        check_positive("gamma", self.gamma)
        check_optional_positive("eta1", self.eta1)
        check_flag("resample", self.resample)
        check_flag("noise_in_cost", self.noise_in_cost)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.s, self.sigma, step.generator)
        ascent = Ascent(self.gamma, self.K, eta=self.eta1, fresh=self.sigma if self.resample else None,
                        noise_in_cost=self.noise_in_cost)
        moved = attack_images(ascent, model, images, labels, noise, generator=step.generator, bounds=None)
        logits = noisy_logits(model, moved, noise)
        total = cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(self.s))
        return Loss(total, distance_parts(images, moved))

