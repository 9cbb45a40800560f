"""Upper confidence limits of the mean of numbers in [0, 1], and checks of the values behind certificates."""

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.checks import check_positive
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY

CLIP_IT = ("cross-entropy has no upper bound, and a loss without one can be made as large as one likes by moving a "
           "small share of the images far away; clip it, min(l, M), as clipped_cross_entropy(M) does, or use zero_one")


def upper_mean(mean: npt.ArrayLike, variance: npt.ArrayLike, n: int, alpha: float) -> np.ndarray:
    """Return the smaller of `hoeffding_limit` and `bernstein_limit`, each at alpha / 2: P(limit < true mean) <= alpha.

    Args:
        mean, variance: of n independent numbers in [0, 1], the variance unbiased; arrays of one shape.
    """
    return np.minimum(hoeffding_limit(mean, n, alpha / 2), bernstein_limit(mean, variance, n, alpha / 2))


def hoeffding_limit(mean: npt.ArrayLike, n: int, alpha: float) -> np.ndarray:
    """Return the largest p with n kl(mean, p) <= ln(1/alpha), rounded up (Hoeffding 1963, eq. 2.1).

    kl is the relative entropy of two coins: tight near 0 and 1, and never above mean + sqrt(ln(1/alpha) / (2 n)).
    """
    mean = np.asarray(mean, dtype=np.float64)
    low, high = mean.copy(), np.ones_like(mean)
    for _ in range(60):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            entropy = special.rel_entr(mean, middle) + special.rel_entr(1 - mean, 1 - middle)
        inside = n * entropy <= math.log(1 / alpha)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.minimum(high * (1 + SAFETY), 1.0)


def bernstein_limit(mean: npt.ArrayLike, variance: npt.ArrayLike, n: int, alpha: float) -> np.ndarray:
    """Return mean + sqrt(2 V ln(2/alpha) / n) + 7 ln(2/alpha) / (3 (n - 1)), at most 1.

    This is Theorem 4 of Maurer & Pontil 2009.
    """
    if n < 2:
        return np.ones_like(np.asarray(mean, dtype=np.float64))
    log = math.log(2 / alpha)
    limit = np.asarray(mean) + np.sqrt(2 * np.asarray(variance) * log / n) + 7 * log / (3 * (n - 1))
    return np.minimum(limit * (1 + SAFETY), 1.0)


def check_rho(rho: Any) -> float:
    """Return a transport cost as a float, or raise InputError unless it is a finite number of at least 0."""
    if isinstance(rho, bool) or not isinstance(rho, numbers.Real) or not 0 <= float(rho) < math.inf:
        raise InputError(f"rho, the transport cost, must be a finite number of at least 0, got {rho!r}")
    return float(rho)


def check_gammas(gammas: float | Iterable[float]) -> tuple[float, ...]:
    """Return one or several prices of distance as a tuple, or raise InputError unless all are above 0."""
    several = tuple(gammas) if isinstance(gammas, Iterable) else (gammas,)
    if not several:
        raise InputError("gamma must name at least one price of distance, got none")
    return tuple(check_positive("gamma", float(g) if isinstance(g, np.floating) else g) for g in several)


def round_up(value: float) -> float:
    """Return a float that exceeds `value` by more than the rounding of the few sums that made it."""
    return float(np.nextafter(value + abs(value) * 2.0**-40, np.inf))
