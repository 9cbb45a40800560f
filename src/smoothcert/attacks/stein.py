"""Attack without gradients, by Stein's lemma (Salman et al. 2019, appendix on the gradient-free attack)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcert.attacks.pgd import Projected
from smoothcert.attacks.problem import Probe, Problem, draw_noise
from smoothcert.checks import check_flag, check_optional_positive


@dataclass(frozen=True)
class Stein(Projected):
    """Descend G_y(x) = E F_y(x + e) along an estimate of its gradient that asks the model only for answers.

    Projected steps as in PGD, each following `stein_gradient` of the m noisy copies. The estimate's error grows with
    the square root of the dimension over m: on images it is a weak attack, for models that give no gradient.

    Attributes:
        hard: ask for classes, 1[f = y], instead of probabilities F_y.
        sigma: draw fresh noise of this level at every step, as many copies as the given noise has; None uses the given
            noise at every step, and then delta stays in the span of its m draws.
    """

    hard: bool = False
    sigma: float | None = None

    def __post_init__(self):
        super().__post_init__()
        check_flag("hard", self.hard)
        check_optional_positive("sigma", self.sigma)

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        noise = problem.noise if self.sigma is None \
            else draw_noise(problem.images, problem.noise.shape[1], self.sigma, problem.generator)
        logits = problem.logits(delta, noise)
        labels = problem.labels[:, None]
        answers = (logits.argmax(dim=-1) == labels).to(delta.dtype) if self.hard \
            else logits.softmax(dim=-1).gather(-1, labels.expand(-1, logits.shape[1])[..., None])[..., 0]
        return Probe(logits, stein_gradient(answers, noise, 1.0).mul_(1.0 if problem.targeted else -1.0))


def stein_gradient(values: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """An unbiased estimate of grad_x E f(x + e), e ~ N(0, sigma^2 I): (1/m) sum_i (e_i / sigma^2) (f_i - b_i).

    The baseline b_i, the mean of the other draws' values, lowers the variance and, unlike the mean of all, leaves the
    expectation alone; there is none at m = 1.

    Args:
        values: f(x + e_i), (B, m).
        noise: e_i, (B, m, ...).
    Returns:
        (B, ...).
    """
    m = values.shape[1]
    if m > 1:
        values = (values - values.mean(dim=1, keepdim=True)) * (m / (m - 1))
    return torch.einsum("bm,bm...->b...", values.to(noise.dtype), noise) / (m * sigma**2)
