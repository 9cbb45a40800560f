"""`cat-rs`: confidence-aware training (Jeong et al. 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from smoothcert.attacks import PGD, attack_images, l2_norms
from smoothcert.attacks.geometry import along
from smoothcert.attacks.loop import Probe, Problem, State
from smoothcert.checks import check_count, check_positive, check_weight
from smoothcert.draws import standard_uniforms
from smoothcert.errors import InputError
from smoothcert.objectives.protocol import Loss, Model, SplitByNoise, Step, check_classifier
from smoothcert.objectives.trades import divergence
from smoothcert.smoothing.soft import draw_noise, freeze, noisy_logits


@dataclass(frozen=True)
class NoiseAttack(PGD):
    """PGD on the noise of single copies: rows (B, 1, ...) of noise e, each with a delta of its own.

    After every step, e + delta is brought back into the l2 ball around e, and then to the mean and the root mean square
    of e over its entries, so that it still looks like a draw of the noise. Only the first is exact about the ball.
    A row whose gradient is 0 stays where it is.
    """

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        norms = l2_norms(probe.gradient)
        sizes = torch.where(norms > 0, 2 * problem.eps / self.steps / norms, 0.0)
        return {"delta": state["delta"] + along(sizes, probe.gradient) * probe.gradient}

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        noise = problem.noise[:, 0]
        return match_moments(noise + problem.into_ball(delta, "l2"), noise) - noise


def match_moments(noise: Tensor, wanted: Tensor) -> Tensor:
    """Return noise (B, ...), scaled and shifted, with the mean and the root mean square of each row of `wanted`."""
    rows, others = noise.flatten(1).double(), wanted.flatten(1).double()
    spread = others.std(dim=1, correction=0) / rows.std(dim=1, correction=0).clamp(min=torch.finfo(noise.dtype).tiny)
    shift = others.mean(dim=1) - spread * rows.mean(dim=1)
    return along(spread, noise) * noise + along(shift, noise)


@dataclass(frozen=True)
class CatRS(SplitByNoise):
    """Minimise (1/m) sum_{i <= K} CE_(i) + lambda 1[K = m] max_i KL(p || F(x + e_i*)), m noises e_i ~ N(0, sigma^2 I).

    CE_(1) <= CE_(2) <= ... are the cross-entropies of F(x + e_i) in ascending order and K = max(1, Bin(m, p_hat)), with
    p_hat the share of the m copies that F classifies as y: an image that the network is unsure of is trained on its
    easiest copies only. One that it is sure of is trained on its worst noise as well: e_i* ascends the divergence from
    e_i by T steps of 2 eps / T within ||e_i* - e_i||_2 <= eps, and keeps the mean and the root mean square of e_i. p is
    the share of votes of a given classifier, trained with Gaussian augmentation, over noise of its own level.

    A batch of B images is split into m parts with an optimiser step each, and costs m T passes of B rows to the input,
    2 m to the weights, and `votes` forward through the given classifier.

    It differs from the authors' code in three points. They count the votes for p once, over 10,000 noises an image;
    here `votes` noises are drawn anew at every step, which leaves the expected gradient at given e_i* as it is, because
    the divergence is linear in p but for a constant. They divide by the root mean square where the standard deviation
    keeps it. And x + e_i and x + e_i* pass together, so that BatchNorm sees one batch of both.

    Attributes:
        m: noises an image, 4 in the paper.
        lam: lambda; None is 2 sigma, the paper's .5 / 1 / 2 at sigma .25 / .5 / 1 on CIFAR-10.
        eps: bound on ||e_i* - e_i||_2 before the moments are matched; 1 in the paper.
        steps: T, 4 in the paper.
        votes: noises an image for p.
        classifier_sigma: noise level of the given classifier; .25 in the paper, whatever sigma is.
        classifier: images -> logits, required; on the command line the option `--classifier`.
    """

    sigma: float
    m: int = 4
    lam: float | None = None
    eps: float = 1.0
    steps: int = 4
    votes: int = 16
    classifier_sigma: float = 0.25
    classifier: nn.Module | None = None

    def __post_init__(self) -> None:
        check_count("m", self.m)
        if self.lam is not None:
            check_weight("lam", self.lam)
        NoiseAttack(self.eps, self.steps)
        check_count("votes", self.votes)
        check_positive("classifier_sigma", self.classifier_sigma)
        check_classifier(self.classifier)
        if self.classifier is None:
            raise InputError("cat-rs needs a classifier, trained with Gaussian augmentation (at sigma .25 in the "
                             "paper), whose votes are its targets: give it as --classifier DIR")

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        noise = draw_noise(images, self.m, self.sigma, step.generator)
        numbers = standard_uniforms((len(images), self.m), step.generator, images)
        target = self.count_votes(images, step)
        copies, rows = images.repeat_interleave(self.m, dim=0), noise.flatten(0, 1).unsqueeze(1)
        inner = NoiseAttack(self.eps, self.steps, surrogate=divergence)
        moved = attack_images(inner, model, copies, target.repeat_interleave(self.m, dim=0), rows,
                              generator=step.generator, bounds=None)
        logits = noisy_logits(model, torch.cat([copies, moved]), torch.cat([rows, rows]))
        clean, attacked = (part.unflatten(0, (-1, self.m)) for part in logits.squeeze(1).chunk(2))
        loss = self.of_logits(clean, attacked, labels, target, numbers)
        return Loss(loss.total, {**loss.parts, "perturbation": l2_norms(moved - copies).mean().to(images.dtype)})

    def count_votes(self, images: Tensor, step: Step) -> Tensor:
        """Return p, (B, K): the shares of the noisy copies that the given classifier classifies as each class."""
        noise = draw_noise(images, self.votes, self.classifier_sigma, step.generator)
        with freeze(self.classifier) as network, torch.no_grad():
            logits = noisy_logits(network, images, noise)
        return one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype).mean(dim=1)

    def of_logits(self, clean: Tensor, attacked: Tensor, labels: Tensor, target: Tensor, numbers: Tensor) -> Loss:
        """Return the loss of the logits at x + e_i and at x + e_i*, (B, m, K) each, for p (B, K) and for numbers (B, m)
        from U(0, 1), which decide K."""
        losses = cross_entropy(clean.flatten(0, 1), labels.repeat_interleave(self.m), reduction="none")
        ordered = losses.unflatten(0, (-1, self.m)).sort(dim=1).values
        confidence = (clean.argmax(dim=-1) == labels[:, None]).to(numbers.dtype).mean(dim=1, keepdim=True)
        count = (numbers < confidence).sum(dim=1).clamp(min=1)
        kept = torch.arange(self.m, device=count.device) < count[:, None]
        low = torch.where(kept, ordered, 0.0).mean()
        each = divergence(attacked.flatten(0, 1).unsqueeze(1), target.repeat_interleave(self.m, dim=0))
        sure = (count == self.m).to(each.dtype)
        high = (sure * each.unflatten(0, (-1, self.m)).amax(dim=1)).mean()
        lam = 2 * self.sigma if self.lam is None else self.lam
        parts = {"low": low, "high": high, "sure": sure.mean(), "kept": kept.to(each.dtype).mean()}
        return Loss(low + lam * high, parts)
