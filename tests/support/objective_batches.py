"""Small networks and batches for objectives."""

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.objectives import Step


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(classes: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, classes))


IMAGES = torch.rand(6, 1, 4, 4, generator=generator(5))
LABELS = torch.arange(6) % 3


def loss_of(objective, model, images=IMAGES, labels=LABELS, seed=0, epoch=100.0):
    return objective.loss(model, images, labels, Step(generator(seed), epoch))


def gradients(total: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(model.parameters()), allow_unused=True))


def logistic(slope: float | Tensor = 3.0, offset: float = 1.0):
    """logits (slope * x - offset, 0) of one-pixel images: class 0 on the bright side."""

    def model(images: Tensor) -> Tensor:
        s = slope * images.flatten(1)[:, 0] - offset
        return torch.stack([s, torch.zeros_like(s)], dim=1)

    return model


PIXEL = torch.tensor([0.45, 0.5, 0.55]).view(3, 1, 1, 1)
PIXEL_LABELS = torch.tensor([0, 1, 0])
SIGNS = np.array([1.0, -1.0, 1.0])
"""Class 0 gains with brightness, class 1 loses."""


def right(x: np.ndarray, slope: float = 3.0, offset: float = 1.0) -> np.ndarray:
    """F_y at (3, m) pixel values."""
    return 1 / (1 + np.exp(-SIGNS[:, None] * (slope * x - offset)))
