"""Small denoisers and images."""

import itertools
import math

import torch
from torch import Tensor, nn

from smoothcert.denoise import (
    build_denoiser,
)

SMALL = {"mlp": {"width": 16}, "conv": {"width": 4, "depth": 3}, "unet": {"width": 4},
         "dncnn": {"width": 4, "depth": 4}}
MU = torch.tensor([[[0.6, -0.2], [0.3, 0.5]]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str, network: str = "mlp", shape=(1, 4, 5), sigma: float | None = 0.5, seed: int = 0, **options):
    """In float64, with weights of a size that makes it curved."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = build_denoiser(name, shape, sigma, network=network, **{**SMALL[network], **options}).double().eval()
        with torch.no_grad():
            for p in found.parameters():
                p.mul_(1.5)
    return found


def images(n: int = 3, shape=(1, 4, 5), seed: int = 1, dtype=torch.float64) -> Tensor:
    return torch.rand(n, *shape, generator=generator(seed), dtype=dtype)


def numerical_gradient(function, y: Tensor, h: float = 1e-5) -> Tensor:
    """Central differences of a function (N, C, H, W) -> (N,), pixel by pixel."""
    found = torch.zeros_like(y)
    with torch.no_grad():
        for place in itertools.product(*map(range, y.shape[1:])):
            step = torch.zeros_like(y)
            step[(slice(None), *place)] = h
            found[(slice(None), *place)] = (function(y + step) - function(y - step)) / (2 * h)
    return found


def classifier(shape=(1, 4, 5), classes: int = 3, seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 6), nn.BatchNorm1d(6), nn.Linear(6, classes)
                             ).double()
