"""Both bounds of one model side by side, at one cost: Theorem 3 of Yang et al. 2021. No torch."""

from dataclasses import dataclass

import numpy as np

from smoothcert.distributional.ends import SurrogateBound
from smoothcert.distributional.limits import check_rho
from smoothcert.errors import InputError


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
