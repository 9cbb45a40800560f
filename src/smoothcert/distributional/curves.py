"""The worst case that an adversary finds, and the conversion between eps and rho."""

import math

import numpy as np
import torch
from torch import Tensor

from smoothcert.attacks import Ascent, attack_images, l2_norms
from smoothcert.checks import check_count, check_optional_positive, check_weight
from smoothcert.distributional.bounds import WorstCase
from smoothcert.distributional.limits import check_gammas, check_rho
from smoothcert.distributional.losses import Batches, PointLoss, cross_entropy
from smoothcert.distributional.search import Search, read_batches, solve
from smoothcert.errors import InputError
from smoothcert.objectives.protocol import Model
from smoothcert.smoothing.soft import draw_noise


def worst_case(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], sigma: float | None, *, seed: int,
    search: Search | None = None,
) -> WorstCase:
    """Return the curve (rho, loss) over gammas, with the cost of the bound that it is to be compared with.

    Args:
        model, loss, batches, gammas, seed, search: as for `inside_bound`; a small gamma moves images far.
        sigma: noise level, for the cost of the outside form, ||x - x0||^2; None for the inside form, ||u - x0||^2.
    Raises:
        InputError: values out of range, no images, or the 0-1 loss.
    """
    prices, search = check_gammas(gammas), search or Search()
    check_optional_positive("sigma", sigma)
    sums, images = np.zeros((2, len(prices))), 0
    for x, y, generator in read_batches(batches, seed):
        for k, gamma in enumerate(prices):
            solved = solve(model, loss, x, y, gamma, sigma, search, generator)
            sums[:, k] += solved.cost.sum(), solved.loss.sum()
        images += len(x)
    if not images:
        raise InputError("there are no images to attack")
    return WorstCase(np.array(prices), *sums / images)


def rho_of_eps(eps: float) -> float:
    """Return rho = eps^2, the most that moving every image by at most eps can cost. Raises InputError for eps < 0.

    >>> rho_of_eps(0.5)
    0.25
    """
    return check_weight("eps", eps) ** 2


def eps_of_rho(rho: float) -> float:
    """Return eps = sqrt(rho), how far every image may be moved at that cost. Raises InputError for rho < 0."""
    return math.sqrt(check_rho(rho))


def eps_equivalent(
    model: Model, batches: Batches, gamma: float, sigma: float | None, *, seed: int, loss: PointLoss = cross_entropy,
    steps: int = 15, draws: int = 4,
) -> float:
    """Estimate the eps that a gamma stands for (Yang et al., Table 1): sqrt(mean ||x_K - x0||^2) after NAL's ascent.

    Unlike in NAL's own ascent, the noise is in the loss alone, and neither in the cost nor in the norm, where it would
    add d sigma^2. `steps` and `draws` are the ascent's K and s; sigma = None is without noise.
    """
    total, images = 0.0, 0
    for x, y, generator in read_batches(batches, seed):
        moved = move_equivalently(model, x, y, gamma, sigma, generator, loss=loss, steps=steps, draws=draws)
        total += float(l2_norms(moved - x).square().sum())
        images += len(x)
    if not images:
        raise InputError("there are no images to attack")
    return math.sqrt(total / images)


def move_equivalently(
    model: Model, images: Tensor, labels: Tensor, gamma: float, sigma: float | None, generator: torch.Generator, *,
    loss: PointLoss = cross_entropy, steps: int = 15, draws: int = 4,
) -> Tensor:
    """Return the images (B, C, H, W) after the ascent of `eps_equivalent`."""
    ascent = Ascent(check_gammas(gamma)[0], check_count("steps", steps), loss.mean, noise_in_cost=False,
                    fresh=check_optional_positive("sigma", sigma))
    still = draw_noise(images, check_count("draws", draws) if sigma else 1, 0.0, generator)
    return attack_images(ascent, model, images, labels, still, generator=generator, bounds=None)
