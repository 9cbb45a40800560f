"""Losses and batches with known worst cases."""

import torch
from torch import Tensor, nn

D = 4
W = torch.tensor([0.5, -1.0, 0.25, 0.75], dtype=torch.float64)
IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS = torch.zeros(6, dtype=torch.long)


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


def batches(images: Tensor = IMAGES, labels: Tensor = LABELS, size: int = 4):
    return zip(images.split(size), labels.split(size), strict=True)


def classifier(seed: int = 0, classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.ELU(), nn.Linear(8, classes)).eval()
