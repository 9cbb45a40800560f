"""`smoothmix`: mixtures of images with what attacks make of them (Jeong et al. 2021)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import PGD, attack_images, l2_norms
from smoothcert.attacks.geometry import along
from smoothcert.checks import check_count, check_optional_positive, check_weight
from smoothcert.draws import standard_uniforms
from smoothcert.objectives.protocol import Loss, Model, SplitByNoise, Step, warm_up
from smoothcert.objectives.trades import divergence
from smoothcert.smoothing.soft import draw_noise, log_mean_softmax, noisy_logits


@dataclass(frozen=True)
class SmoothMix(SplitByNoise):
    """Minimise (1/m) sum_i [ CE(F(x + e_i), y) + eta 1[argmax G(x) = y] KL(t || F(x_mix + e_i)) ], with

        x_mix = (1 - u) x + u x_adv    t = (1 - u) G(x) + u / K    u ~ U(0, 1/2)    G(x) = (1/m) sum_i F(x + e_i)

    for m noises e_i ~ N(0, sigma^2 I), so that the answer fades towards no class on the way to x_adv, which is
    over-confident about a wrong class. x_adv takes T unit-norm steps that ascend -log G_y under the same noises, each
    clamped to the bounds of the data, and none projected. As for `smoothadv`, a batch of B images is split into m parts
    with an optimiser step each, and costs m T passes of B rows to the input and 2 m to the weights.

    It differs from the authors' code in two points: t is a constant, which has no gradient; and x and x_mix pass
    together, so that BatchNorm sees one batch of both. Their variant that trains on a one-step adversary in place of x
    is left out.

    Attributes:
        m: noises an image; 2 on CIFAR-10, 4 on MNIST.
        eta: weight of the mixtures, 5 in the paper (1 in its other MNIST runs).
        steps: T; 4 on CIFAR-10, and 2 / 4 / 8 on MNIST at sigma .25 / .5 / 1.
        step_size: length of a step; None is 2 sigma, which is .5 / 1 / 2 on CIFAR-10; 1 on MNIST.
        warmup: epochs over which eta grows linearly; 10 in the paper.
    """

    sigma: float
    m: int = 2
    eta: float = 5.0
    steps: int = 4
    step_size: float | None = None
    warmup: float = 10.0

    def __post_init__(self) -> None:
        check_count("m", self.m)
        check_weight("eta", self.eta)
        check_count("steps", self.steps)
        check_optional_positive("step_size", self.step_size)
        check_weight("warmup", self.warmup)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.m, self.sigma, step.generator)
        share = standard_uniforms((len(images),), step.generator, images) / 2
        size = self.step_size or 2 * self.sigma
        inner = PGD(self.steps * size, self.steps, step_size=size)  # a ball that T steps do not leave
        adversarial = attack_images(inner, model, images, labels, noise, generator=step.generator,
                                    bounds=step.bounds)
        mixed = torch.lerp(images, adversarial, along(share, images))
        logits = noisy_logits(model, torch.cat([images, mixed]), torch.cat([noise, noise]))
        at_images, at_mixtures = logits.chunk(2)
        loss = self.of_logits(at_images, at_mixtures, labels, share, step.epoch)
        return Loss(loss.total, {**loss.parts, "perturbation": l2_norms(adversarial - images).mean().to(images.dtype)})

    def of_logits(self, clean: Tensor, mixed: Tensor, labels: Tensor, share: Tensor, epoch: float) -> Loss:
        """Return the loss of the noisy copies' logits at x and at x_mix, (B, m, K) each, for u (B,)."""
        plain = cross_entropy(clean.flatten(0, 1), labels.repeat_interleave(self.m))
        answer = log_mean_softmax(clean.detach()).exp()
        correct = (answer.argmax(dim=1) == labels).to(answer.dtype)
        target = torch.lerp(answer, torch.full_like(answer, 1 / answer.shape[1]), along(share, answer))
        mixture = (correct * divergence(mixed, target)).mean()
        parts = {"cross_entropy": plain, "mixture": mixture, "correct": correct.mean()}
        return Loss(plain + warm_up(self.eta, epoch, self.warmup) * mixture, parts)
