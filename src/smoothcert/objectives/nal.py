"""`nal`: noisy adversarial learning (Yang et al. 2021), and the ascent that it shares with `wrm`."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from smoothcert.attacks import Surrogate, attacked, draw_noise, l2_norms, noisy_logits
from smoothcert.attacks.loop import State
from smoothcert.attacks.problem import Probe, Problem
from smoothcert.attacks.surrogates import wrong
from smoothcert.checks import check_count, check_flag, check_optional_positive, check_positive
from smoothcert.objectives.protocol import Loss, Model, Step, WholeBatch


@dataclass(frozen=True)
class Ascent:
    """Ascent of a loss less the price of moving, unprojected; an attack for `attacked(..., bounds=None)`.

        x <- x + eta_t (1/s) sum_j [ grad l(x + z_j) - 2 gamma (x + z_j - x0) ],   from x = x0

    Attributes:
        gamma: price of a unit of squared distance.
        steps: T.
        surrogate: (1/s) sum_j l, of the logits of the s noisy copies (b, s, K) and the labels.
        eta: step size; None is .5 / gamma, which makes a step exactly x0 - mean z + mean grad l / (2 gamma).
        decay: divide the size of step t = 0, 1, ... by sqrt(t + 1).
        fresh: noise level at which z is drawn anew for every step, as many copies as the given noise has; None keeps
            the given noise.
        noise_in_cost: whether the price is that of x + z_j, as printed above, or of x alone.
        tolerance: an example is finished once ||direction||^2 / (4 gamma), in units of the loss, is at most this.
    """

    gamma: float
    steps: int
    surrogate: Surrogate = wrong
    eta: float | None = None
    decay: bool = False
    fresh: float | None = None
    noise_in_cost: bool = True
    tolerance: float | None = None

    @property
    def eps(self) -> float:
        return math.inf

    def start(self, problem: Problem) -> State:
        return {"delta": torch.zeros_like(problem.images)}

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        """The gradient is that of the loss less the price."""
        if self.fresh is not None:
            copies = problem.noise.shape[1]
            problem = replace(problem, noise=draw_noise(problem.images, copies, self.fresh, problem.generator))
        seen = problem.gradient(delta, self.surrogate)
        paid = delta + problem.noise.mean(dim=1) if self.noise_in_cost else delta
        return Probe(seen.logits, seen.gradient - 2 * self.gamma * paid)

    def finished(self, problem: Problem, probe: Probe) -> Tensor | None:
        if self.tolerance is None:
            return None
        return l2_norms(probe.gradient).square() <= 4 * self.gamma * self.tolerance

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        size = 0.5 / self.gamma if self.eta is None else self.eta
        size = size / math.sqrt(t + 1) if self.decay else size
        return {"delta": state["delta"] + size * probe.gradient}

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        return delta

    def finish(self, problem: Problem, state: State) -> Tensor:
        return state["delta"]


@dataclass(frozen=True)
class NAL(WholeBatch):
    """Minimise (1/s) sum_j CE(F(x_K + z_j), y), z_j ~ N(0, sigma^2 I), where K steps from x ascend

        (1/s) sum_j [ CE(F(x' + z_j), y) - gamma ||x' + z_j - x||^2 ]

    with no projection: gamma prices the distance (Yang et al. 2021, Algorithm 1). A batch of B images takes K + 1
    passes of s B rows. The ascent sees the network in eval mode, so that it leaves BatchNorm statistics alone.

    Differs from the paper: it does not say which z_j the weights see; here they are drawn anew, as for every step of
    the ascent. Were they those of the last step, at s = 1 and eta1 = .5 / gamma the noise would cancel.

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

    def __post_init__(self):
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
        moved = attacked(ascent, model, images, labels, noise, generator=step.generator, bounds=None)
        logits = noisy_logits(model, moved, noise)
        total = cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(self.s))
        return Loss(total, distance(images, moved))


def distance(images: Tensor, moved: Tensor) -> dict[str, Tensor]:
    """Parts worth plotting: the mean of ||x_K - x||_2, and rho, that of its square."""
    norms = l2_norms(moved - images)
    return {"perturbation": norms.mean().to(images.dtype), "rho": norms.square().mean().to(images.dtype)}
