"""Denoisers that are known exactly, for tests and teaching: X Gaussian, or a mixture of two Gaussians."""

import math
from typing import Any

import torch
from torch import Tensor

from smoothcert.checks import check_positive
from smoothcert.denoise.estimators import EnergyEstimator
from smoothcert.errors import InputError


class GaussianDenoiser(EnergyEstimator):
    """X ~ N(0, s0^2 I): phi(y) = ||y||^2 / (2 (s0^2 + sigma^2)), so x_hat = beta y, beta = 1 / (1 + sigma^2 / s0^2).

    A linear classifier <w, x> + b behind it, smoothed, predicts what it does at beta x, with radius
    |<w, beta x> + b| / (beta ||w||) (Saremi & Srivastava 2020, Proposition 2.3).
    """

    def __init__(self, s0: float, sigma: float | None = None):
        super().__init__(sigma)
        self.s0 = check_positive("s0", s0)

    def beta(self, sigma: float | None = None) -> float:
        """The factor by which it shrinks."""
        return self.s0**2 / (self.s0**2 + self.level(sigma) ** 2)

    def energy(self, y: Tensor, sigma: float | None = None) -> Tensor:
        return y.square().flatten(1).sum(dim=1) * (self.beta(sigma) / (2 * self.s0**2))

    def gradient(self, y: Tensor, sigma: float | None = None) -> Tensor:
        return y * (self.beta(sigma) / self.s0**2)


class MixtureDenoiser(EnergyEstimator):
    """X ~ N(mu, s0^2 I) or N(-mu, s0^2 I), each half of the time (Saremi & Srivastava 2020, eq. 8):

        x_hat = beta y + (1 - beta) tanh(<beta y, mu> / s0^2) mu,    beta = 1 / (1 + sigma^2 / s0^2)

    Args:
        mu: one image, (C, H, W).
    """

    mu: Tensor

    def __init__(self, mu: Any, s0: float, sigma: float | None = None):
        super().__init__(sigma)
        centre = torch.as_tensor(mu).detach().clone()
        if centre.ndim != 3 or not bool(centre.isfinite().all()):
            raise InputError(f"mu must be one image (C, H, W) of finite numbers, got shape {tuple(centre.shape)}")
        self.register_buffer("mu", centre)
        self.s0 = check_positive("s0", s0)

    def energy(self, y: Tensor, sigma: float | None = None) -> Tensor:
        spread = self.s0**2 + self.level(sigma) ** 2
        squares = y.square().flatten(1).sum(dim=1) + self.mu.square().sum()
        along = self._along(y) / spread
        return squares / (2 * spread) - torch.logaddexp(along, -along) + math.log(2)

    def gradient(self, y: Tensor, sigma: float | None = None) -> Tensor:
        spread = self.s0**2 + self.level(sigma) ** 2
        return (y - torch.tanh(self._along(y) / spread)[:, None, None, None] * self.mu) / spread

    def _along(self, y: Tensor) -> Tensor:
        return y.flatten(1) @ self.mu.flatten()
