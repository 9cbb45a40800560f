"""Projected gradient ascent (Madry et al. 2018), on the smoothed classifier as in Salman et al. 2019, section 3."""

from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcert.attacks.geometry import NORMS, along
from smoothcert.attacks.loop import State
from smoothcert.attacks.problem import Probe, Problem
from smoothcert.attacks.surrogates import SURROGATES, Surrogate
from smoothcert.checks import (
    check_count,
    check_known,
    check_optional_positive,
    check_positive,
    check_share,
    check_weight,
)
from smoothcert.draws import standard_normals


@dataclass(frozen=True)
class Projected:
    """Steps of fixed size in the norm's steepest direction, each back into box and ball: all but what is followed.

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

    def __post_init__(self):
        check_positive("eps", self.eps)
        check_count("steps", self.steps)
        check_known("norm", self.norm, NORMS)
        check_optional_positive("step_size", self.step_size)
        if self.stop is not None:
            check_share("stop", self.stop)

    def start(self, problem: Problem) -> State:
        return {"delta": torch.zeros_like(problem.images)}

    def finished(self, problem: Problem, probe: Probe) -> Tensor | None:
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

    def __post_init__(self):
        super().__post_init__()
        named_surrogate(self.surrogate)
        check_weight("start_std", self.start_std)

    def start(self, problem: Problem) -> State:
        images = problem.images
        if not self.start_std:
            return {"delta": torch.zeros_like(images)}
        random = standard_normals(images.shape, problem.generator, images)
        return {"delta": self.project(problem, self.start_std * random)}

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        return problem.gradient(delta, named_surrogate(self.surrogate))


def named_surrogate(surrogate: str | Surrogate) -> Surrogate:
    """The surrogate itself. Raises UnknownNameError."""
    return surrogate if callable(surrogate) else SURROGATES[check_known("surrogate", surrogate, SURROGATES)]
