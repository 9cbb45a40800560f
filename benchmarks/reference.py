"""The plain reference that speeds are quoted against: the procedure as published, written for this purpose.

One image at a time, batches of 1,000 noisy copies of it, noise from torch, a host synchronisation and a Python
counting loop a batch (Cohen et al. 2019, section 3.2).
"""

import torch
from torch import nn


def plain_counts(model: nn.Module, image: torch.Tensor, sigma: float, n: int, num_classes: int) -> list[int]:
    """Votes of n noisy copies of image (C, H, W)."""
    counts = [0] * num_classes
    with torch.no_grad():
        remaining = n
        while remaining > 0:
            size = min(1000, remaining)
            remaining -= size
            batch = image.repeat((size, 1, 1, 1))
            votes = model(batch + torch.randn_like(batch) * sigma).argmax(dim=1)
            for vote in votes.cpu().numpy():
                counts[vote] += 1
    return counts
