"""Projected ascent on the smoothed classifier: PGD (Madry et al. 2018; Salman et al. 2019, section 3), and the same
steps without gradients, by Stein's lemma (Salman et al. 2019, appendix on the gradient-free attack)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcert.attacks.geometry import NORMS, along
from smoothcert.attacks.loop import Probe, Problem, State
from smoothcert.attacks.surrogates import Surrogate, find_surrogate
from smoothcert.checks import (
    check_count,
    check_flag,
    check_known,
    check_optional_positive,
    check_positive,
    check_share,
    check_weight,
)
from smoothcert.draws import standard_normals
from smoothcert.smoothing.soft import draw_noise


@dataclass(frozen=True)
class Projected:
    """Steps of fixed size in the norm's steepest direction, each projected into box and ball; subclasses say what to
    follow.

    Attributes:
        eps: bound on ||delta||.
        steps: T.
        norm: "l2" (unit-norm steps) or "linf" (signs).
        step_size: None is 2 eps / T.
        stop: an example is finished once at most this share of its noisy copies is still classified as its label (or
            at least 1 - stop of them as the class wanted); None never stops.
    """

    eps: float
    steps: int = 20
    norm: str = "l2"
    step_size: float | None = None
    stop: float | None = None

    def __post_init__(self) -> None:
        check_positive("eps", self.eps)
        check_count("steps", self.steps)
        check_known("norm", self.norm, NORMS)
        check_optional_positive("step_size", self.step_size)
        if self.stop is not None:
            check_share("stop", self.stop)

    def start(self, problem: Problem) -> State:
        return {"delta": torch.zeros_like(problem.images)}

    def is_finished(self, problem: Problem, probe: Probe) -> Tensor | None:
        if self.stop is None:
            return None
        share = problem.share(probe.logits)
        return share >= 1 - self.stop if problem.targeted else share <= self.stop

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        delta = state["delta"]
        size = 2 * problem.eps / self.steps if self.step_size is None else torch.full_like(problem.eps, self.step_size)
        return {"delta": delta + along(size, delta) * problem.direction(probe.gradient, self.norm)}

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        return problem.into_ball(problem.into_box(delta), self.norm)

    def finish(self, problem: Problem, state: State) -> Tensor:
        return state["delta"]


@dataclass(frozen=True)
class PGD(Projected):
    """delta <- project(delta + (2 eps / T) grad J / ||grad J||), from 0.

    Attributes:
        surrogate: J: a name in `SURROGATES`, or a function of the noisy copies' logits and the labels.
        start_std: standard deviation of a Gaussian start; 0 starts at x.
    """

    surrogate: str | Surrogate = "smoothed"
    start_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        find_surrogate(self.surrogate)
        check_weight("start_std", self.start_std)

    def start(self, problem: Problem) -> State:
        images = problem.images
        if not self.start_std:
            return {"delta": torch.zeros_like(images)}
        random = standard_normals(images.shape, problem.generator, images)
        return {"delta": self.project(problem, self.start_std * random)}

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        return problem.gradient(delta, find_surrogate(self.surrogate))


@dataclass(frozen=True)
class Stein(Projected):
    """Descend G_y(x) = E F_y(x + e) along an estimate of its gradient that asks the model only for answers.

    Each step is projected as in PGD, and follows `stein_gradient` of the m noisy copies. The estimate's error grows
    with the square root of the dimension over m: on images it is a weak attack, for models that give no gradient.

    Attributes:
        hard: ask for classes, 1[f = y], instead of probabilities F_y.
        sigma: draw fresh noise of this level at every step, as many copies as the given noise has; None uses the given
            noise at every step, and then delta stays in the span of its m draws.
    """

    hard: bool = False
    sigma: float | None = None

    def __post_init__(self) -> None:
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
    """Return an unbiased estimate of grad_x E f(x + e), e ~ N(0, sigma^2 I): (1/m) sum_i (e_i / sigma^2) (f_i - b_i).

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
