"""`smoothadv`: adversarial training of the smoothed classifier (Salman et al. 2019)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import ATTACKS, attack_images, build_attack
from smoothcert.checks import check_count, check_known, check_weight
from smoothcert.objectives.protocol import Loss, Model, SplitByNoise, Step, attack_parts, warm_up
from smoothcert.smoothing.soft import draw_noise, noisy_logits


@dataclass(frozen=True)
class SmoothAdv(SplitByNoise):
    """Minimise (1/m) sum_i CE(F(x^ + e_i), y), where x^ maximises J(x') = -log (1/m) sum_i F_y(x' + e_i) over
    ||x' - x||_2 <= eps, under the same e_1..e_m ~ N(0, sigma^2 I).

    A batch of B images is split into m parts of B/m images x m noises with an optimiser step each: a training pass has
    B rows whatever m is, and a batch costs m (T + 1) passes of B rows, forward and backward (DDN: m more, forward).

    Attributes:
        m: noises an image, m_train; the paper's grid is 1, 2, 4, 8.
        eps: bound on ||x^ - x||_2; the paper's grid is .25, .5, 1, 2.
        steps: T of the attack; 2 to 10 in the paper.
        attack: "pgd" or "ddn" (gamma .05).
        warmup: epochs over which eps grows linearly; the paper's 10 belong to its 150 epochs.
    """

    sigma: float
    m: int = 2
    eps: float = 0.5
    steps: int = 2
    attack: str = "pgd"
    warmup: float = 10.0

    def __post_init__(self) -> None:
        check_count("m", self.m)
        check_known("attack of smoothadv", self.attack, [name for name in ATTACKS if name not in ("stein", "deepfool")])
        check_weight("warmup", self.warmup)
        build_attack(self.attack, eps=self.eps, steps=self.steps)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.m, self.sigma, step.generator)
        eps = warm_up(self.eps, step.epoch, self.warmup)
        inner = build_attack(self.attack, eps=eps, steps=self.steps)
        adversarial = attack_images(inner, model, images, labels, noise, generator=step.generator,
                                    bounds=step.bounds)
        logits = noisy_logits(model, adversarial, noise)
        total = cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(self.m))
        return Loss(total, attack_parts(eps, images, adversarial))
