"""Confidence limits of the mean of numbers in [0, 1]."""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.stats.binomial import SAFETY


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


def lower_mean(values: np.ndarray, alpha: float) -> np.ndarray:
    """Return `upper_mean` mirrored: P(limit > true mean) <= alpha, from n independent numbers in [0, 1], (n, ...)."""
    variance = values.var(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])
    return np.maximum(1 - upper_mean(1 - values.mean(axis=0), variance, len(values), alpha), 0.0)
