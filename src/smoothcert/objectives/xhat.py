"""`xhat`: adversarial training of the empirical-Bayes smoothed classifier (Saremi & Srivastava 2020)."""

from dataclasses import dataclass

from torch import Tensor, nn

from smoothcert.attacks import PGD, attack_images
from smoothcert.checks import check_count, check_flag, check_weight
from smoothcert.denoise import DenoisedClassifier
from smoothcert.errors import InputError
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch, attack_parts, warm_up
from smoothcert.smoothing.soft import draw_noise, noisy_logits, soft_cross_entropy, unwrap


@dataclass(frozen=True)
class Xhat(WholeBatch):
    """Minimise over the classifier H the maximum over ||delta||_2 <= eps of

        J(x + delta) = -log (1/m) sum_i H_y(x_hat(x + delta + e_i)),   e_1..e_m ~ N(0, sigma^2 I)

    The model is a `DenoisedClassifier` whose denoiser is frozen. PGD follows J through the denoiser (for an energy,
    (I - sigma^2 Hess phi)^T grad H: double backward); the training pass takes x_hat as it is, and its gradient ends at
    H. Noise is drawn once a step. With eps = 0 there is no attack: the paper's XHAT_0. The ascent runs over the ball
    alone, so that x + delta may leave [0, 1], as it may in the certificate.

    Attributes:
        m: noises an image, 1 in the paper.
        eps: bound on ||delta||_2, 1 in the paper.
        steps: of PGD, 16 in the paper.
        warmup: epochs over which eps grows linearly.
        clamp: keep x + delta in the bounds of the data, which the paper does not.
    """

    sigma: float
    m: int = 1
    eps: float = 1.0
    steps: int = 16
    warmup: float = 0.0
    clamp: bool = False

    def __post_init__(self) -> None:
        check_count("m", self.m)
        check_weight("eps", self.eps)
        check_count("steps", self.steps)
        check_weight("warmup", self.warmup)
        check_flag("clamp", self.clamp)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        _check_composition(unwrap(model))
        noise = draw_noise(images, self.m, self.sigma, step.generator)
        parts = {}
        if self.eps > 0:
            eps = warm_up(self.eps, step.epoch, self.warmup)
            adversarial = attack_images(PGD(eps, self.steps), model, images, labels, noise, generator=step.generator,
                                   bounds=step.bounds if self.clamp else None)
            parts = attack_parts(eps, images, adversarial)
            images = adversarial
        return Loss(soft_cross_entropy(noisy_logits(model, images, noise), labels).mean(), parts)


def _check_composition(model: Model) -> None:
    if not isinstance(model, DenoisedClassifier):
        raise InputError(f"objective xhat trains a classifier behind a denoiser, and {type(model).__name__} has none "
                         f"in front of it: give a denoiser, or use objective smoothadv")
    denoiser = model.denoiser
    if isinstance(denoiser, nn.Module) and any(p.requires_grad for p in denoiser.parameters()):
        raise InputError("objective xhat trains the classifier alone: freeze the denoiser's parameters "
                         "(denoiser.requires_grad_(False))")
