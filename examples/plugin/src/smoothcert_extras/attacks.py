"""PGD that starts on a sphere."""

from dataclasses import dataclass

import torch

from smoothcert.attacks import PGD


@dataclass(frozen=True)
class SpherePGD(PGD):
    """PGD from a random point at the distance `share` times eps from the image."""

    share: float = 0.5

    def start(self, problem):
        shape, device = problem.images.shape, problem.images.device
        direction = torch.randn(shape, generator=problem.generator, device=device)
        norm = direction.flatten(1).norm(dim=1)
        length = (self.share * problem.eps).to(norm.dtype) / norm
        return {"delta": length.view(-1, 1, 1, 1) * direction}
