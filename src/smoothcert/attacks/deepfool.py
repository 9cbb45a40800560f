"""DeepFool (Moosavi-Dezfooli et al. 2016) on an undefended network, from Foolbox: the dashed "empirical upper bound"
line of Cohen et al. 2019."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.attacks.loop import Bounds, Probe, Problem, State
from smoothcert.checks import check_count, check_positive
from smoothcert.errors import MissingExtraError
from smoothcert.smoothing.soft import freeze


def deepfool(
    model: Any, images: Tensor, labels: Tensor, *, steps: int = 50, candidates: int = 10, overshoot: float = 0.02,
    bounds: Bounds = (0.0, 1.0),
) -> tuple[Tensor, Tensor]:
    """Return nearby misclassified images, found by stepping to the linearised decision boundary.

    There is no noise, and no bound on the norm.

    Args:
        model: (N, *shape) -> (N, K) differentiable logits.
        images: (B, *shape) in `bounds`, if there are any. labels: (B,).
        candidates: how many of the likeliest classes' boundaries are tried.
        overshoot: how far beyond the boundary each step goes, as a share of it.
    Returns:
        The perturbed images (B, *shape), and for each if it is misclassified (B,). ||x' - x||_2 of a misclassified one
        bounds the network's robust radius from above.
    Raises:
        MissingExtraError: Foolbox is not installed.
    """
    try:
        from foolbox.attacks.deepfool import L2DeepFoolAttack
        from foolbox.models.pytorch import PyTorchModel
    except ImportError as error:
        raise MissingExtraError("foolbox", "attacks", "DeepFool") from error
    check_positive("overshoot", overshoot)
    rule = L2DeepFoolAttack(
        steps=check_count("steps", steps), candidates=check_count("candidates", candidates, least=2),
        overshoot=overshoot)
    with freeze(model) as network:
        target = PyTorchModel(_AsModule(network).eval(), bounds=bounds or (-torch.inf, torch.inf),
                              device=images.device)
        _, found, fooled = rule(target, images.detach(), labels, epsilons=None)
    return found.detach(), fooled.to(torch.bool)


@dataclass(frozen=True)
class DeepFool:
    """`deepfool` as an attack on the base classifier: its perturbation, shortened to norm eps if it is longer.

    It sees no noisy copies and has no target class.

    Attributes:
        eps: bound on ||delta||_2.
        steps, candidates, overshoot: as for `deepfool`.
    """

    eps: float
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check_positive("eps", self.eps)
        check_count("steps", self.steps)
        check_count("candidates", self.candidates, least=2)
        check_positive("overshoot", self.overshoot)

    def start(self, problem: Problem) -> State:
        """Do everything here: all examples are finished before the first step."""
        moved, _ = deepfool(problem.model, problem.images, problem.labels, steps=self.steps, bounds=problem.bounds,
                            candidates=self.candidates, overshoot=self.overshoot)
        return {"delta": self.project(problem, moved - problem.images)}

    def probe(self, problem: Problem, delta: Tensor) -> Probe:
        return Probe(problem.logits(delta), torch.zeros_like(delta))

    def is_finished(self, problem: Problem, probe: Probe) -> Tensor:
        return torch.ones(len(problem.images), dtype=torch.bool, device=problem.images.device)

    def step(self, problem: Problem, state: State, probe: Probe, t: int) -> State:
        return state

    def project(self, problem: Problem, delta: Tensor) -> Tensor:
        return problem.into_ball(problem.into_box(delta), "l2")

    def finish(self, problem: Problem, state: State) -> Tensor:
        return state["delta"]


class _AsModule(nn.Module):
    """A callable as the module that Foolbox asks for."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)
