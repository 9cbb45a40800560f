"""Denoisers: estimators of the clean image that stand between the noise and a classifier."""

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
from smoothcert.denoise.registry import DENOISERS, build_denoiser, denoiser_options
from smoothcert.denoise.walks import Attractor, Flow, StepLimitWarning, WalkJump

__all__ = [
    "DENOISERS", "Attractor", "DenoisedClassifier", "DiffusionDenoiser", "DirectEstimator", "EnergyEstimator",
    "Estimator", "Flow", "GaussianDenoiser", "MixtureDenoiser", "ResidualEnergy", "ScalarEnergy", "StepLimitWarning",
    "WalkJump", "ZeroCurvatureWarning", "asymmetry", "build_denoiser", "denoiser_options", "generator_normals",
    "load_diffusion", "noise_schedule",
]
