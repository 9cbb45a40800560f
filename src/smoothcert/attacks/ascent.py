"""Ascent of a loss less the price of moving: the inner maximisation of NAL (Yang et al. 2021) and WRM (Sinha et al.
2018)."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smoothcert.attacks.geometry import l2_norms
from smoothcert.attacks.loop import Probe, Problem, State
from smoothcert.attacks.surrogates import Surrogate
from smoothcert.smoothing.soft import draw_noise, mean_cross_entropy


@dataclass(frozen=True)
class Ascent:
    """Unprojected ascent of a loss less the price of moving; an attack for `attack_images(..., bounds=None)`.

        x <- x + eta_t (1/s) sum_j [ grad l(x + z_j) - 2 gamma (x + z_j - x0) ],   from x = x0

    Attributes:
        gamma: price of a unit of squared distance.
        steps: T.
        surrogate: (1/s) sum_j l, of the logits of the s noisy copies (b, s, K) and the labels.
        eta: step size; None is .5 / gamma, which makes a step exactly x0 - mean z + mean grad l / (2 gamma).
        decay: divide the size of step t = 0, 1, ... by sqrt(t + 1).
        fresh: noise level at which z is drawn anew for every step, as many copies as the given noise has; None keeps
            the given noise.
        noise_in_cost: charge for x + z_j, as printed above, instead of for x alone.
        tolerance: an example is finished once ||direction||^2 / (4 gamma), in units of the loss, is at most this.
    """

    gamma: float
    steps: int
    surrogate: Surrogate = mean_cross_entropy
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
        """Return the logits, and the gradient of the loss less the price."""
        if self.fresh is not None:
            copies = problem.noise.shape[1]
            problem = replace(problem, noise=draw_noise(problem.images, copies, self.fresh, problem.generator))
        seen = problem.gradient(delta, self.surrogate)
        paid = delta + problem.noise.mean(dim=1) if self.noise_in_cost else delta
        return Probe(seen.logits, seen.gradient - 2 * self.gamma * paid)

    def is_finished(self, problem: Problem, probe: Probe) -> Tensor | None:
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
