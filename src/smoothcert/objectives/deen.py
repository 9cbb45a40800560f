"""`deen`: deep energy estimator networks (Saremi & Hyvarinen 2019; Saremi & Srivastava 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from smoothcert.checks import check_positive, real_number
from smoothcert.denoise import EnergyEstimator
from smoothcert.errors import InputError
from smoothcert.objectives.protocol import Loss, Model, Step, Trained, WholeBatch
from smoothcert.smoothing.sampling import denoise
from smoothcert.smoothing.soft import add_noise, unwrap

DENOISING: dict[str, Any] = {
    "optimizer": "adam", "schedule": "cosine", "weight_decay": 0.0, "batch_size": 128, "clip_norm": 5.0,
}
"""Training options for squared errors: with SGD at the usual lr of .1 they diverge, and a single step of Adam without
clipping can ruin an energy of the residual form, which grows with the fourth power of its network's output."""


@dataclass(frozen=True)
class Deen(WholeBatch):
    """Minimise E ||x - x_hat(x + e)||^2, x_hat(y) = y - sigma^2 grad phi(y), e ~ N(0, sigma^2 I) fresh at every step.

    The model is an energy estimator; its parameters' gradients go through grad phi (double backward). The minimiser is
    the least-squares estimator, and phi is then the energy of the smoothed density. Labels are not used.

    Attributes:
        sigmas: for a sigma-conditioned energy, the noise levels of its batches, one drawn for each: a list, or a range
            "low:high", uniform. None is the run's sigma throughout.
    """

    trains: ClassVar[Trained] = "denoiser"
    prefers: ClassVar[Mapping[str, Any]] = DENOISING

    sigma: float
    sigmas: Sequence[float] | str | None = None

    def __post_init__(self) -> None:
        if self.sigmas is not None:
            read_levels(self.sigmas)

    def loss(self, model: Model, images: Tensor, labels: Tensor, step: Step) -> Loss:
        if not isinstance(unwrap(model), EnergyEstimator):
            raise InputError(f"objective deen trains an energy (energy-residual or energy-scalar), got "
                             f"{type(unwrap(model)).__name__}: use one, or objective denoise for other denoisers")
        error, _, parts = squared_error(self.sigma, self.sigmas, model, images, step)
        return Loss(error, parts)


def squared_error(
    sigma: float, sigmas: Sequence[float] | str | None, model: Model, images: Tensor, step: Step
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the mean over images of ||x - x_hat(x + e)||^2, the estimates x_hat, and the batch's sigma if drawn."""
    level = sigma if sigmas is None else draw_level(sigmas, model, step.generator)
    estimate = denoise(model, add_noise(images, level, step.generator), level)
    parts = {} if sigmas is None else {"sigma": images.new_tensor(level)}
    return (images - estimate).square().flatten(1).sum(dim=1).mean(), estimate, parts


def draw_level(sigmas: Sequence[float] | str, model: Model, generator: torch.Generator) -> float:
    """Return a noise level of the list, or within the range. Raises InputError for a denoiser of one level."""
    own = getattr(unwrap(model), "sigma", None)
    if own is not None:
        raise InputError(f"sigmas is for a sigma-conditioned denoiser (its option conditioned=true); this one is for "
                         f"sigma {own:g}")
    values = read_levels(sigmas)
    u = float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float64))
    return values[0] + u * (values[1] - values[0]) if isinstance(sigmas, str) else values[int(u * len(values))]


def read_levels(sigmas: Sequence[float] | str) -> list[float]:
    """Return the listed noise levels, or the two ends of a range. Raises InputError."""
    try:
        given = [real_number(part) for part in sigmas.split(":")] if isinstance(sigmas, str) else sigmas
        values = [check_positive("sigmas", value) for value in given]
    except (TypeError, ValueError):
        values = []
    if not values or (isinstance(sigmas, str) and not (len(values) == 2 and values[0] < values[1])):
        raise InputError(f'sigmas must be a list of numbers above 0, or a range such as "0.1:1", got {sigmas!r}')
    return values
