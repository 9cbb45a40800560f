"""The worst case that an adversary finds, what eps is worth in rho, and both bounds of one model side by side."""

import math
from dataclasses import dataclass

import numpy as np

from smoothcert.attacks import attacked, draw_noise, l2_norms
from smoothcert.checks import check_count, check_optional_positive, check_weight
from smoothcert.distributional.bounds import seeded
from smoothcert.distributional.ends import SurrogateBound, WorstCase
from smoothcert.distributional.inner import Search, solve
from smoothcert.distributional.limits import check_gammas, check_rho
from smoothcert.distributional.losses import PointLoss, cross_entropy
from smoothcert.distributional.sampling import Batches
from smoothcert.errors import InputError
from smoothcert.objectives.nal import Ascent
from smoothcert.objectives.protocol import Model


def worst_case(
    model: Model, loss: PointLoss, batches: Batches, gammas: float | list[float], sigma: float | None, *, seed: int,
    search: Search | None = None,
) -> WorstCase:
    """The curve (rho, loss) over gammas, with the cost of the bound that it is to be compared with.

    Args:
        model, loss, batches, gammas, seed, search: as for `inside_bound`; a small gamma moves images far.
        sigma: noise level, for the cost of the outside form, ||x - x0||^2; None for the inside one, ||u - x0||^2.
    Raises:
        InputError: values out of range, no images, or the 0-1 loss.
    """
    prices, search = check_gammas(gammas), search or Search()
    check_optional_positive("sigma", sigma)
    sums, images = np.zeros((2, len(prices))), 0
    for x, y, generator in seeded(batches, seed):
        for k, gamma in enumerate(prices):
            solved = solve(model, loss, x, y, gamma, sigma, search, generator)
            sums[:, k] += solved.cost.sum(), solved.loss.sum()
        images += len(x)
    if not images:
        raise InputError("there are no images to attack")
    return WorstCase(np.array(prices), *sums / images)


def rho_of_eps(eps: float) -> float:
    """rho = eps^2: moving every image by at most eps costs at most this. Raises InputError for eps < 0.

    >>> rho_of_eps(0.5)
    0.25
    """
    return check_weight("eps", eps) ** 2


def eps_of_rho(rho: float) -> float:
    """eps = sqrt(rho): what every image may be moved by at that cost. Raises InputError for rho < 0."""
    return math.sqrt(check_rho(rho))


def eps_equivalent(
    model: Model, batches: Batches, gamma: float, sigma: float | None, *, seed: int, loss: PointLoss = cross_entropy,
    steps: int = 15, draws: int = 4,
) -> float:
    """sqrt(mean ||x_K - x0||^2) after `steps` of NAL's ascent: the eps that a gamma stands for (Yang et al., Table 1).

    Differs from NAL's own ascent: the noise is in the loss and not in the cost, nor in the norm, where it would add
    d sigma^2. `steps` and `draws` are the ascent's K and s; sigma = None is without noise. An estimate.
    """
    ascent = Ascent(check_gammas(gamma)[0], check_count("steps", steps), loss.mean, noise_in_cost=False,
                    fresh=check_optional_positive("sigma", sigma))
    check_count("draws", draws)
    total, images = 0.0, 0
    for x, y, generator in seeded(batches, seed):
        still = draw_noise(x, draws if sigma else 1, 0.0, generator)
        moved = attacked(ascent, model, x, y, still, generator=generator, bounds=None)
        total += float(l2_norms(moved - x).square().sum())
        images += len(x)
    if not images:
        raise InputError("there are no images to attack")
    return math.sqrt(total / images)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Both bounds of one network at the same cost, ||x + z - x0||^2 with the noise in it.

    By Jensen's inequality the smoothed one is at most the other at every gamma (Yang et al. 2021, Theorem 3):
    sup_x E_z {...} <= E_z sup_x {...}, and E ||x + z - x0||^2 = ||x - x0||^2 + d sigma^2.

    Attributes:
        gamma: (G,).
        smoothed: mean of sup_x E_z { l(x + z) - gamma ||x + z - x0||^2 }: outside less gamma d sigma^2.
        base: mean of E_z sup_x { the same }: inside.
        noise_cost: d sigma^2.
        label: "estimate".
    """

    gamma: np.ndarray
    smoothed: np.ndarray
    base: np.ndarray
    noise_cost: float
    label: str = "estimate"

    def at(self, rho: float) -> tuple[float, float]:
        """Both bounds, each with its best gamma, where the adversary's own moves cost at most rho."""
        cost = self.gamma * (check_rho(rho) + self.noise_cost)
        return float(np.min(cost + self.smoothed)), float(np.min(cost + self.base))


def side_by_side(outside: SurrogateBound, inside: SurrogateBound) -> SideBySide:
    """Theorem 3 on two bounds of one model, over the same images and gammas. Raises InputError for other pairs."""
    gammas = [tuple(s.gamma for s in bound.surrogates) for bound in (outside, inside)]
    if (outside.form, inside.form) != ("outside", "inside") or gammas[0] != gammas[1] \
            or outside.images != inside.images:
        raise InputError("side by side stand an outside and an inside bound of the same images at the same gammas, in "
                         f"this order; got {outside.form} and {inside.form}, {outside.images} and {inside.images} "
                         f"image(s), gammas {gammas[0]} and {gammas[1]}")
    gamma = np.array(gammas[0])
    smoothed, base = (np.array([s.estimate for s in bound.surrogates]) for bound in (outside, inside))
    return SideBySide(gamma, smoothed - gamma * outside.noise_cost, base, outside.noise_cost)
