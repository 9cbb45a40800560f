"""DDN, decoupled direction and norm (Rony et al. 2019), on the smoothed classifier as in Salman et al. 2019."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothcert.attacks.geometry import along, l2_norms
from smoothcert.attacks.loop import Probe, Problem, State
from smoothcert.attacks.surrogates import Surrogate, find_surrogate
from smoothcert.checks import check_count, check_flag, check_optional_positive, check_positive, check_probability
from smoothcert.errors import InputError


@dataclass(frozen=True)
class DDN:
    """Find the smallest l2 perturbation that changes the vote of the m noisy copies, then bring it to ||delta|| <= eps.

    Each step goes along the unit gradient by 1 -> .01 (cosine), then rescales delta to a norm nu that shrinks by
    1 - gamma where the vote is wrong and grows by 1 + gamma where it is right.

    It differs from the published loop in two points: the last iterate is tested too; and if no iterate was adversarial,
    the last one is returned, unless `zero_on_failure`.

    Attributes:
        eps: bound on ||delta|| at the end; math.inf leaves the smallest one found as it is.
        steps: T.
        gamma: None is 1 - (3 / (510 eps))^(1 / T), the value of Salman's test attacks; .05 for training.
        initial_norm: nu at the start; None is eps.
        surrogate: the function that is ascended: a name in `SURROGATES`, or a function.
        zero_on_failure: return delta = 0 if no iterate was adversarial, as the published code does.
    """

    eps: float
    steps: int = 20
    gamma: float | None = 0.05
    initial_norm: float | None = None
    surrogate: str | Surrogate = "smoothed"
    zero_on_failure: bool = False

    def __post_init__(self) -> None:
        if self.eps != math.inf:
            check_positive("eps", self.eps)
        elif self.initial_norm is None or self.gamma is None:
            raise InputError("eps = inf gives neither a norm to start from nor a gamma: give initial_norm and gamma")
        check_count("steps", self.steps)
        if self.gamma is not None:
            check_probability("gamma", self.gamma)
        check_optional_positive("initial_norm", self.initial_norm)
        find_surrogate(self.surrogate)
        check_flag("zero_on_failure", self.zero_on_failure)

    def start(self, problem: Problem) -> State:
        zero = torch.zeros_like(problem.images)
        nu = problem.eps if self.initial_norm is None else torch.full_like(problem.eps, self.initial_norm)
        return {"delta": zero, "nu": nu, "best": zero, "best_norm": torch.full_like(problem.eps, math.inf)}

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        return problem.gradient(delta, find_surrogate(self.surrogate))

    def is_finished(self, problem: Problem, probe: Probe) -> None:
        return None

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        fooled = problem.is_fooled(probe.logits)
        state = _keep_best(state, fooled)
        length = 0.01 + 0.99 * (1 + math.cos(math.pi * t / self.steps)) / 2
        delta = state["delta"] + length * problem.direction(probe.gradient, "l2")
        gamma = self._gamma(problem.eps)
        nu = state["nu"] * torch.where(fooled, 1 - gamma, 1 + gamma)
        return {**state, "delta": delta * along(nu / l2_norms(delta).clamp(min=1e-12), delta), "nu": nu}

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        return problem.into_box(delta)

    def finish(self, problem: Problem, state: State) -> Tensor:
        state = _keep_best(state, problem.is_fooled(problem.logits(state["delta"])))
        never = state["best_norm"].isinf()
        last = torch.zeros_like(state["delta"]) if self.zero_on_failure else state["delta"]
        return problem.into_ball(torch.where(along(never, last).bool(), last, state["best"]), "l2")

    def _gamma(self, eps: Tensor) -> Tensor:
        if self.gamma is not None:
            return torch.full_like(eps, self.gamma)
        return 1 - (3 / (510 * eps)).clamp(max=1) ** (1 / self.steps)


def _keep_best(state: State, fooled: Tensor) -> State:
    """Return the state with delta as the best so far wherever it is adversarial and smaller."""
    norm, delta = l2_norms(state["delta"]), state["delta"]
    better = fooled & (norm < state["best_norm"])
    return {**state, "best": torch.where(along(better, delta).bool(), delta, state["best"]),
            "best_norm": torch.where(better, norm, state["best_norm"])}
