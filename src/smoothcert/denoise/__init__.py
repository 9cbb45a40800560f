"""Denoisers: estimators of the clean image that stand between the noise and a classifier."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from torch import nn

from smoothcert.checks import check_flag, check_shape, construct
from smoothcert.denoise.closed_forms import GaussianDenoiser, MixtureDenoiser
from smoothcert.denoise.composed import DenoisedClassifier, generator_normals
from smoothcert.denoise.diffusion import DiffusionDenoiser, load_diffusion, noise_schedule
from smoothcert.denoise.estimators import (
    DirectEstimator,
    EnergyEstimator,
    Estimator,
    ResidualEnergy,
    ScalarEnergy,
    ZeroCurvatureWarning,
)
from smoothcert.denoise.jacobian import asymmetry
from smoothcert.denoise.networks import NETWORKS, build_network
from smoothcert.denoise.walks import Attractor, Flow, StepLimitWarning, WalkJump
from smoothcert.errors import InputError
from smoothcert.parts import Registry

Shape = tuple[int, ...]
"""The shape of one input, (C, H, W) of images."""

_ENERGY_NETWORKS = [name for name in NETWORKS if name != "dncnn"]  # BatchNorm would make a row depend on the others


def energy_residual(
    shape: Shape, sigma: float | None, *, network: str = "mlp", width: int | None = None, depth: int | None = None,
    activation: str | None = None,
) -> ResidualEnergy:
    """Return the energy ||y - psi(y)||^2 / (2 sigma^2), psi one of mlp, conv and unet."""
    psi = _build_inside(network, shape, sigma is None, False, _ENERGY_NETWORKS, width, depth, activation)
    return ResidualEnergy(psi, sigma)


def energy_scalar(
    shape: Shape, sigma: float | None, *, network: str = "mlp", width: int | None = None, depth: int | None = None,
    activation: str | None = None,
) -> ScalarEnergy:
    """Return the energy network(y) / sigma^2, of mlp, conv or unet with one number out (summed over pixels)."""
    phi = _build_inside(network, shape, sigma is None, True, _ENERGY_NETWORKS, width, depth, activation)
    return ScalarEnergy(phi, sigma)


def direct(
    shape: Shape, sigma: float | None, *, network: str = "unet", width: int | None = None, depth: int | None = None,
    activation: str | None = None,
) -> DirectEstimator:
    """Return the denoiser x_hat = network(y), one of mlp, conv, unet and dncnn."""
    inside = _build_inside(network, shape, sigma is None, False, tuple(NETWORKS), width, depth, activation)
    return DirectEstimator(inside, sigma)


def _build_inside(network: str, shape: Shape, *settings: Any) -> nn.Module:
    """Return the network inside a denoiser; see `build_network`. Raises InputError where it is for images alone."""
    if len(shape) != 3 and network in NETWORKS and network != "mlp":
        raise InputError(f"network {network} of a denoiser takes images (C, H, W), got inputs of shape {shape}: give "
                         f"network=mlp, which takes any shape")
    return build_network(network, cast(Any, shape), *settings)


def _check_denoiser(part: Any) -> list[str]:
    try:
        first = [p.name for p in inspect.signature(part).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    except (TypeError, ValueError):
        first = []
    return [] if len(first) >= 2 else ["it must be a class or a function (shape, sigma, *, options) -> torch module"]


DENOISERS: Registry[Callable[..., Estimator]] = Registry("denoiser", "smoothcert.denoisers", {
    "energy-residual": energy_residual, "energy-scalar": energy_scalar, "direct": direct}, _check_denoiser)
"""Builders by name: (shape, sigma or None, *, options) -> denoiser; the keyword-only arguments are the options."""


def build_denoiser(
    name: str, shape: Sequence[int], sigma: float | None = None, *, conditioned: bool = False, **options: Any
) -> Estimator:
    """Return a new denoiser by name, with random weights.

    Args:
        name: a key of `DENOISERS`, or a place of code (file.py:NAME, package.module:NAME).
        shape: of one input, (C, H, W) of images.
        sigma: the noise level that it is for.
        conditioned: make a denoiser for every noise level, which is given at each call; `sigma` is then not used.
        options: `network` (mlp for any shape; conv, unet, and dncnn for direct, for images), `width`, `depth`,
            `activation` (silu, softplus, relu).
    Returns:
        A module (y (N, *shape), sigma) -> x_hat of the same shape, in train mode. Weights come from torch's global
        generator.
    Raises:
        UnknownNameError: no such denoiser. CodeError: code that cannot be imported. InputError: a part that does not
        give a torch module, an option that the denoiser lacks, or a value out of range.

    >>> x_hat = build_denoiser("energy-residual", (1, 8, 8), 0.5, width=32)
    >>> x_hat.sigma, x_hat.network.layers[0]
    (0.5, Linear(in_features=64, out_features=32, bias=True))
    """
    builder = DENOISERS[name]
    known = denoiser_options(name)
    check_flag("conditioned", conditioned)
    if sigma is None and not conditioned:
        raise InputError(f"denoiser {name} needs the noise level sigma that it is for, or conditioned=true for all "
                         f"noise levels")
    build = partial(builder, check_shape("shape", shape), None if conditioned else sigma)
    made = construct(f"denoiser {name}", build, known, options)
    if not isinstance(made, nn.Module):
        raise InputError(f"denoiser {name} must be a torch module (y, sigma) -> estimate, got {type(made).__name__}")
    return made


def denoiser_options(name: str) -> dict[str, Any]:
    """Return a denoiser's options and defaults; None is the network's own. Raises UnknownNameError.

    >>> denoiser_options("direct")
    {'network': 'unet', 'width': None, 'depth': None, 'activation': None, 'conditioned': False}
    """
    parameters = inspect.signature(DENOISERS[name]).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return {**own, "conditioned": False}


__all__ = [
    "DENOISERS", "Attractor", "DenoisedClassifier", "DiffusionDenoiser", "DirectEstimator", "EnergyEstimator",
    "Estimator", "Flow", "GaussianDenoiser", "MixtureDenoiser", "ResidualEnergy", "ScalarEnergy", "StepLimitWarning",
    "WalkJump", "ZeroCurvatureWarning", "asymmetry", "build_denoiser", "denoiser_options", "generator_normals",
    "load_diffusion", "noise_schedule",
]
