"""What the objectives with an inner maximisation share: its warm-up and its summary."""

import math

from torch import Tensor

from smoothcert.attacks import l2_norms


def warmed(eps: float, epoch: float, warmup: float) -> float:
    """eps times (epochs begun) / warmup, at most eps: grown linearly, epoch by epoch, and never 0.

    >>> [warmed(1.0, epoch, 4) for epoch in (0, 0.9, 1, 3, 8)]
    [0.25, 0.25, 0.5, 1.0, 1.0]
    """
    return eps * min(1.0, (math.floor(epoch) + 1) / warmup) if warmup else eps


def strength(eps: float, images: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """Parts worth plotting: the eps of this step, and the mean ||x' - x||_2 that was used of it."""
    return {"eps": images.new_tensor(eps), "perturbation": l2_norms(adversarial - images).mean().to(images.dtype)}
