"""Small models and problems with known attacks."""

import torch
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=dtype)


def linear(w: Tensor, b: float = 0.0):
    """logits (s, 0), s = <w, x> + b: class 0 where s > 0; its smoothed classifier is itself."""

    def model(images: Tensor) -> Tensor:
        s = images.flatten(1) @ w.flatten() + b
        return torch.stack([s, torch.zeros_like(s)], dim=1)

    return model


W = torch.tensor([3.0, -1.0, 0.5, 2.0, -2.0, 1.0, 0.1, -0.4, 0.7]).view(1, 3, 3)
MIDDLE = torch.full((1, 1, 3, 3), 0.5)
ZERO = torch.zeros(1, dtype=torch.long)
