"""Classifiers whose every probability under N(0, sigma^2 I) is known, on images (1, 4, 4); and one that is not.

With orthonormal a, b whose entries are +-1/4 and sum to 0 (exact in any precision), u = <a, x> and v = <b, x>:

    halfspace   class 1 where u > 0                   P = Phi(u / sigma), true radius |u|
    quadrants   the signs of u and v                  products of Phi(+-u / sigma) and Phi(+-v / sigma)
    band        class 0 where |u| < 1/4 (by a ReLU)   Phi((1/4 - u) / sigma) - Phi((-1/4 - u) / sigma)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import nn

from smoothcert.draws import seed_torch

SHAPE = (1, 4, 4)
CONVOLUTIONAL = (1, 8, 8)
_SIGNS = np.array([[1, -1] * 8, [1, 1, -1, -1] * 4])
_HALF_WIDTH = 0.25


@dataclass(frozen=True, eq=False)
class Known:
    """A network and its law: `probabilities(u / sigma, v / sigma, 1/4 / sigma)` -> (K,)."""

    name: str
    network: nn.Module
    num_classes: int
    space: str
    probabilities: Callable[[float, float, float], list[float]]

    def law(self, image: np.ndarray, sigma: float) -> np.ndarray:
        """Return (K,) the probability of each class on noisy copies of an image."""
        u, v = positions(image)
        return np.array(self.probabilities(u / sigma, v / sigma, _HALF_WIDTH / sigma))


def positions(image: np.ndarray) -> tuple[float, float]:
    """Return u and v of an image."""
    u, v = _SIGNS @ image.ravel().astype(np.float64) / 4
    return float(u), float(v)


def image_at(u: float, v: float) -> np.ndarray:
    """Return an image of whole 255ths near 1/2 whose u and v are about these: its own are `positions`."""
    pixels = 0.5 + (u * _SIGNS[0] + v * _SIGNS[1]) / 4
    return (np.rint(pixels * 255) / 255).astype(np.float32).reshape(SHAPE)


def halfspace() -> Known:
    return Known("halfspace", _freeze(nn.Flatten(), _linear([[-1, 0], [1, 0]])), 2, "binary",
                 lambda u, v, c: [_phi(-u), _phi(u)])


def quadrants() -> Known:
    return Known("quadrants", _freeze(nn.Flatten(), _linear([[-1, -1], [1, -1], [-1, 1], [1, 1]])), 4, "logits",
                 lambda u, v, c: [_phi(-u) * _phi(-v), _phi(u) * _phi(-v), _phi(-u) * _phi(v), _phi(u) * _phi(v)])


def band() -> Known:
    """Return the band: class 1 where relu(u - c') + relu(-u - c') > 1/16, with c' = 1/4 - 1/16."""
    sums = nn.Linear(2, 2)
    sums.weight.data, sums.bias.data = torch.tensor([[0.0, 0], [1, 1]]), torch.tensor([0.0625, 0])
    inside = _linear([[1, 0], [-1, 0]])
    inside.bias.data -= _HALF_WIDTH - 0.0625
    return Known("band", _freeze(nn.Flatten(), inside, nn.ReLU(), sums), 2, "linear",
                 lambda u, v, c: [_phi(c - u) - _phi(-c - u), _phi(u - c) + _phi(-c - u)])


def convolutional(noisy: torch.Tensor) -> nn.Module:
    """Return a network with BatchNorm whose ten classes are near each other on `noisy` (N, 1, 8, 8).

    Its weights are random, but always the same.
    """
    with seed_torch(0, "selftest"):
        norm, last = nn.BatchNorm2d(8), nn.Linear(128, 10)
        for values in norm.state_dict(keep_vars=True).values():
            if values.is_floating_point():
                values.data.uniform_(0.5, 1.5)
        network = _freeze(nn.Conv2d(1, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1),
                         nn.ReLU(), nn.Flatten(), last)
    last.bias -= network(noisy).mean(dim=0)
    return network


def _linear(mixed: list[list[int]]) -> nn.Linear:
    weight = torch.from_numpy(np.array(mixed) @ _SIGNS / 4).float()
    layer = nn.Linear(16, len(mixed))
    layer.weight.data, layer.bias.data = weight, torch.zeros(len(mixed))
    return layer


def _freeze(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _phi(z: float) -> float:
    return float(special.ndtr(z))
