"""The plain reference that speeds are quoted against: the procedure as published, written for this purpose.

One image at a time, batches of 1,000 noisy copies of it, noise from torch, a host synchronisation and a Python
counting loop a batch, and a one-sided Clopper-Pearson limit (Cohen et al. 2019, section 3.2).
"""

import torch
from scipy import stats
from torch import nn

N0, N, ALPHA, BATCH = 100, 100_000, 0.001, 1000
"""The published constants."""


def plain_counts(model: nn.Module, image: torch.Tensor, sigma: float, n: int, num_classes: int) -> list[int]:
    """Votes of n noisy copies of image (C, H, W), on its device."""
    counts = [0] * num_classes
    with torch.no_grad():
        remaining = n
        while remaining > 0:
            size = min(BATCH, remaining)
            remaining -= size
            copies = image.repeat((size, 1, 1, 1))
            votes = model(copies + torch.randn_like(copies) * sigma).argmax(dim=1)
            for vote in votes.cpu().numpy():
                counts[vote] += 1
    return counts


def plain_radius(votes: int, sigma: float) -> float:
    """sigma Phi^-1 of the lower limit of votes out of N at ALPHA; 0 where it abstains."""
    lower = stats.beta.ppf(ALPHA, votes, N - votes + 1)
    return float(sigma * stats.norm.ppf(lower)) if lower > 0.5 else 0.0
