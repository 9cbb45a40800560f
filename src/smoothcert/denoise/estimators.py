"""Estimators of the clean image: the least-squares one of an energy, and the direct one.

Y = X + N(0, sigma^2 I). Of all functions of y, E[X | y] has the least mean squared error, and where phi is the negative
logarithm of Y's density (up to a constant) it is

    x_hat(y) = y - sigma^2 grad phi(y)            (Robbins 1956, Miyasawa 1961; Saremi & Srivastava 2020)
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checks import check_positive
from smoothcert.errors import InputError

_PIECEWISE_LINEAR = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)


class ZeroCurvatureWarning(UserWarning):
    """An energy's network is piecewise linear: its second derivatives, which train it, are zero almost everywhere."""


class Estimator(nn.Module):
    """x_hat: (N, C, H, W) and sigma -> (N, C, H, W).

    Attributes:
        sigma: the noise level that it is for; None serves every one, and then each call names its own.
    """

    def __init__(self, sigma: float | None = None):
        super().__init__()
        self.sigma = None if sigma is None else check_positive("sigma", sigma)

    def shown(self, y: Tensor, level: float) -> Tensor:
        """What a network sees of y: where it serves every noise level, y with one plane more, sigma at each pixel."""
        return y if self.sigma is not None else with_level(y, level)

    def level(self, sigma: float | None) -> float:
        """The noise level of a call. Raises InputError for another than the denoiser's own, or for none at all."""
        return agreed(self.sigma, sigma)

    def forward(self, y: Tensor, sigma: float | None = None) -> Tensor:
        """Raises InputError for another sigma than the denoiser's own (beyond 1e-6 of it)."""
        raise NotImplementedError

    def gradient(self, y: Tensor, sigma: float | None = None) -> Tensor:
        """grad phi(y) = (y - x_hat(y)) / sigma^2, minus the estimated score of Y's density."""
        level = self.level(sigma)
        return (y - self(y, level)) / level**2


class DirectEstimator(Estimator):
    """x_hat(y) = network(y): any network, whose Jacobian need not be symmetric.

    A sigma-conditioned one (`sigma` None) hands its network y with one plane more, sigma at each pixel.
    """

    def __init__(self, network: nn.Module, sigma: float | None = None):
        super().__init__(sigma)
        self.network = network

    def forward(self, y: Tensor, sigma: float | None = None) -> Tensor:
        level = self.level(sigma)
        return self.network(self.shown(y, level))


class EnergyEstimator(Estimator):
    """x_hat(y) = y - sigma^2 grad phi(y), grad phi by automatic differentiation; members say what phi is.

    The gradient is computed whatever the grad mode is outside. A graph is kept where something follows it: where y
    requires a gradient (attacks), or the parameters do (training), and grad mode is on.
    """

    def energy(self, y: Tensor, sigma: float | None = None) -> Tensor:
        """phi(y) of each image, (N,); a row must not depend on the others."""
        raise NotImplementedError

    def forward(self, y: Tensor, sigma: float | None = None) -> Tensor:
        level = self.level(sigma)
        return y - level**2 * self.gradient(y, level)

    def gradient(self, y: Tensor, sigma: float | None = None) -> Tensor:
        """grad phi(y), (N, C, H, W)."""
        if torch.compiler.is_compiling():  # this form can be traced; not compiled, it is the slower one
            return torch.func.grad(lambda z: self.energy(z, sigma).sum())(y)
        follows = torch.is_grad_enabled() and (y.requires_grad or any(p.requires_grad for p in self.parameters()))
        with torch.inference_mode(False), torch.enable_grad():
            if not (follows and y.requires_grad):
                y = (y.clone() if y.is_inference() else y.detach()).requires_grad_()
            (gradient,) = torch.autograd.grad(self.energy(y, sigma).sum(), y, create_graph=follows)
        return gradient


class ResidualEnergy(EnergyEstimator):
    """phi(y) = ||y - psi(y)||^2 / (2 sigma^2), psi a network from image to image.

    x_hat = psi(y) + J^T (y - psi(y)), J psi's Jacobian: one pass forward and one back. A sigma-conditioned one (`sigma`
    None) hands psi y with one plane more, sigma at each pixel. Warns where psi is piecewise linear.
    """

    def __init__(self, network: nn.Module, sigma: float | None = None):
        super().__init__(sigma)
        self.network = network
        _warn_of_zero_curvature(network)

    def energy(self, y: Tensor, sigma: float | None = None) -> Tensor:
        level = self.level(sigma)
        residual = y - self.network(self.shown(y, level))
        return residual.square().flatten(1).sum(dim=1) / (2 * level**2)


class ScalarEnergy(EnergyEstimator):
    """phi(y) = network(y) / sigma^2, a network from image to number, (N, C, H, W) -> (N,).

    A sigma-conditioned one and piecewise linear networks as for `ResidualEnergy`.
    """

    def __init__(self, network: nn.Module, sigma: float | None = None):
        super().__init__(sigma)
        self.network = network
        _warn_of_zero_curvature(network)

    def energy(self, y: Tensor, sigma: float | None = None) -> Tensor:
        level = self.level(sigma)
        return self.network(self.shown(y, level)) / level**2


def agreed(own: float | None, given: float | None) -> float:
    """The noise level of a call to a denoiser that is for `own` (None: for every one).

    Raises InputError where `given` is another (beyond 1e-6 of it), or where neither is there.
    """
    if given is None and own is None:
        raise InputError("this denoiser serves every noise level and has none of its own: pass sigma")
    if given is None or own is None:
        return check_positive("sigma", own if given is None else given)
    if not math.isclose(own, given, rel_tol=1e-6):
        raise InputError(f"the denoiser is for sigma {own:g}, and sigma {given:g} was asked for: take that sigma, or a "
                         f"denoiser trained for it")
    return own


def with_level(y: Tensor, sigma: float) -> Tensor:
    """y with one plane more that holds sigma: (N, C, H, W) -> (N, C + 1, H, W)."""
    return torch.cat([y, y.new_full((len(y), 1, *y.shape[2:]), sigma)], dim=1)


def energy_gradient(denoiser: Any, y: Tensor, sigma: float) -> Tensor:
    """grad phi(y) of any denoiser: its own `gradient`, or (y - x_hat(y)) / sigma^2."""
    own = getattr(denoiser, "gradient", None)
    return (y - denoiser(y, sigma)) / sigma**2 if own is None else own(y, sigma)


def _warn_of_zero_curvature(network: nn.Module) -> None:
    kinds = {type(module).__name__ for module in network.modules() if isinstance(module, _PIECEWISE_LINEAR)}
    if kinds:
        warnings.warn(f"the energy's network has {', '.join(sorted(kinds))} layers, which have zero curvature: its "
                      f"training follows second derivatives. Take activation silu or softplus", ZeroCurvatureWarning,
                      stacklevel=3)
