"""From bounds on class probabilities to a certified radius: pure functions, float64, vectorised.

Symbols: p_a <= P(f(x + e) = c_A), a lower bound; p_b >= max over c != c_A of P(f(x + e) = c), an upper bound;
e ~ N(0, sigma^2 I); R in the units of sigma. Where a complement 1 - p matters it travels beside p, so that
nothing is lost near 1. Every radius is rounded toward zero: it is never above the value of its formula.
"""

import math
import numbers
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.checks import check_count, check_positive, check_probability
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY

# How far the same value may differ where two processors compute it from the same counts. Logarithms and exponentials
# differ between processors in their last bits: by NumPy's kernels for AVX2 and AVX512, and by the C library's. So do
# the radii and p-values that are computed from them. Counts do not, and are compared exactly.
_RADIUS = 2.0**-47
_P_VALUE = 2.0**-36


@dataclass(frozen=True)
class ProbabilityBounds:
    """Bounds that hold jointly with the stated confidence; arrays of one shape, complements included."""

    p_a: np.ndarray
    q_a: np.ndarray
    p_b: np.ndarray
    q_b: np.ndarray


def cap_rival(
    p_a: np.ndarray, q_a: np.ndarray, p_b: np.ndarray, q_b: np.ndarray, one_sided: np.ndarray | bool = False
) -> ProbabilityBounds:
    """Return the bounds with p_b lowered to 1 - p_a where that is less, and where `one_sided` says so.

    p_b may bound several rivals of each image, (M, k).
    """
    p, q = (p_a, q_a) if p_b.ndim == p_a.ndim else (p_a[:, None], q_a[:, None])
    rest = (q < p_b) | one_sided
    return ProbabilityBounds(p_a, q_a, np.where(rest, q, p_b), np.where(rest, p, q_b))


def z_lower(p: npt.ArrayLike, q: npt.ArrayLike) -> np.ndarray:
    """Return a lower bound of Phi^-1(p), with q = 1 - p to full precision: never above the true value."""
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    z = np.where(p < 0.5, special.ndtri(p * (1 - SAFETY)), -special.ndtri(np.minimum(q * (1 + SAFETY), 1.0)))
    with np.errstate(invalid="ignore"):  # at p = 0 or 1 the quantile is infinite and needs no step
        return np.where(np.isfinite(z), z - np.abs(z) * 2.0**-46, z)


def z_upper(p: npt.ArrayLike, q: npt.ArrayLike) -> np.ndarray:
    """Return an upper bound of Phi^-1(p), with q = 1 - p to full precision: never below the true value."""
    return -z_lower(q, p)


def gaussian_radius(bounds: ProbabilityBounds, sigma: float, margin: float | None = None) -> np.ndarray:
    """Return the l2 radius sigma/2 (Phi^-1 p_a - Phi^-1 p_b) of Cohen et al. 2019, Theorem 1; at least 0.

    With `margin` tau in [0, 1/2) it is instead the radius inside which the probability of c_A stays at or above
    1/2 + tau, sigma (Phi^-1 p_a - Phi^-1(1/2 + tau)): PREDICT with enough samples then need not abstain there.
    """
    sigma = check_positive("sigma", sigma)
    if margin is None:
        with np.errstate(invalid="ignore"):  # p_a = p_b = 0 or 1 is inf - inf: no radius
            gap = (z_lower(bounds.p_a, bounds.q_a) - z_upper(bounds.p_b, bounds.q_b)) / 2
    else:
        tau = check_margin(margin)
        gap = z_lower(bounds.p_a, bounds.q_a) - z_upper(0.5 + tau, 0.5 - tau)
    return _toward_zero(sigma * gap)


def check_margin(margin: float) -> float:
    """Return `margin`, or raise InputError unless it lies in [0, 1/2)."""
    if isinstance(margin, bool) or not isinstance(margin, numbers.Real) or not 0 <= margin < 0.5:
        raise InputError(f"margin must lie in [0, 0.5): a class cannot keep more than all votes, got {margin!r}")
    return float(margin)


def cohen_radius(p_a: npt.ArrayLike, p_b: npt.ArrayLike | None = None, sigma: float = 1.0) -> np.ndarray | np.float64:
    """Return sigma/2 (Phi^-1 p_a - Phi^-1 p_b) (Cohen et al. 2019, eq. 3); p_b = None means 1 - p_a (one-sided).

    >>> round(float(cohen_radius(0.9, 0.1)), 3)
    1.282
    """
    p_a, p_b = _check_pair(p_a, p_b)
    return gaussian_radius(ProbabilityBounds(p_a, 1 - p_a, p_b, 1 - p_b), sigma)[()]


def lecuyer_radius(p_a: npt.ArrayLike, p_b: npt.ArrayLike | None = None, sigma: float = 1.0) -> np.ndarray | np.float64:
    """Return the radius of Lecuyer et al. 2019 (differential privacy), as restated in Cohen et al. 2019, appendix I.

    sup over 0 < b <= min(1, ln(p_a / p_b) / 2) of sigma b / sqrt(2 ln(1.25 (1 + e^b) / (p_a - e^(2b) p_b))).
    Every b gives a valid radius, so the numerical supremum errs to the safe side.

    >>> round(float(lecuyer_radius(0.9, 0.1)), 3)
    0.39
    """
    p_a, p_b = _check_pair(p_a, p_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(p_a > p_b, np.log(p_a) - np.log(p_b), -1.0)
    top = np.minimum(1.0, ratio / 2)

    def value(share: np.ndarray) -> np.ndarray:
        b = share * top
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(np.isinf(ratio), p_a, -p_a * np.expm1(2 * b - ratio)) * (1 - 2.0**-40)
            radius = b / np.sqrt(2 * np.log(1.25 * (1 + np.exp(b)) / room))
        return np.where((room > 0) & np.isfinite(radius), radius, 0.0)

    best = _supremum(value, np.linspace(1e-6, 1.0, 257), p_a.shape)
    return _toward_zero(np.where(ratio > 0, check_positive("sigma", sigma) * best * (1 - 2.0**-40), 0.0))[()]


def li_radius(p_a: npt.ArrayLike, p_b: npt.ArrayLike | None = None, sigma: float = 1.0) -> np.ndarray | np.float64:
    """Return the radius of Li et al. 2018 (Renyi divergence), as restated in Cohen et al. 2019, appendix I.

    sup over a > 0 of sigma sqrt(-(2/a) ln(1 - p_a - p_b + 2 M_(1-a)(p_a, p_b))), M_s the power mean of order s
    (a = 1 is its limit, the geometric mean). Every a gives a valid radius, so the numerical supremum is safe.

    >>> round(float(li_radius(0.9, 0.1)), 3)
    1.032
    """
    p_a, p_b = _check_pair(p_a, p_b)
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(p_a), np.log(p_b)

    def value(log_order: np.ndarray) -> np.ndarray:
        a = np.exp(log_order)
        s = np.where(np.abs(1 - a) < 1e-9, 1e-9, 1 - a)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            mean = np.exp((np.logaddexp(s * log_a, s * log_b) - np.log(2.0)) / s)
        mean = np.where(np.isneginf(log_b) & (s < 0), 0.0, mean)
        deficit = (p_a + p_b - 2 * mean) - 2.0**-46 * (p_a + p_b)  # the step covers the rounding of the difference
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = np.sqrt(-(2 / a) * np.log1p(-deficit))
        return np.where(np.isfinite(radius) & (deficit > 0), radius, 0.0)

    best = _supremum(value, np.linspace(np.log(1e-3), np.log(1e3), 257), p_a.shape)
    return _toward_zero(np.where(p_a > p_b, check_positive("sigma", sigma) * best * (1 - 2.0**-40), 0.0))[()]


def linf_radius(r2: npt.ArrayLike, dimension: int) -> np.ndarray | np.float64:
    """Return r2 / sqrt(d), the l_inf ball in an l2 ball of radius r2 in R^d (Salman et al. 2019, section 4)."""
    d = check_count("dimension", dimension)
    return (np.asarray(r2, dtype=np.float64) / np.sqrt(d) * (1 - 2.0**-51))[()]


def max_radius(n: npt.ArrayLike, alpha: float, sigma: float = 1.0) -> np.ndarray | np.float64:
    """Return r_max = sigma Phi^-1(alpha^(1/n)), the one-sided radius when all n samples agree: no run certifies more.

    >>> round(float(max_radius(100_000, 0.001)), 3)
    3.811
    """
    if not np.all(np.asarray(n) >= 1):
        raise InputError(f"n must be at least 1, got {n}")
    log_p = np.log(check_probability("alpha", alpha)) / np.asarray(n, dtype=np.float64)
    p, q = np.exp(log_p), -np.expm1(log_p)
    return gaussian_radius(ProbabilityBounds(p, q, q, p), sigma)[()]


def is_same(name: str, stored: object, found: object, sigma: float) -> bool:
    """Return whether a stored value is the one that its votes give, perhaps on another processor.

    Args:
        name: of the value. A "radius" may differ by 2^-47 (sigma + radius), three times the largest difference found
            over all methods, n to 1e10, and kernels with and without AVX512, AVX2 and FMA. It is less than radii are
            rounded down by (2^-44 of each limit and 2^-46 of each quantile): what is larger by no more is still proved
            by the votes. A "p_value" may differ by a share of 2^-36. All else must be equal, as 0 must.
        sigma: noise level, in whose units the radius is.
    """
    if not isinstance(stored, float) or not isinstance(found, float) or found == 0:
        return stored == found
    most = {"radius": _RADIUS * (sigma + abs(found)), "p_value": _P_VALUE * abs(found)}.get(name, 0.0)
    return math.isclose(stored, found, rel_tol=0, abs_tol=most)


def _supremum(value, grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the maximum of `value` over a grid, then over a golden-section refinement around the best grid point."""
    axis = grid.reshape(-1, *([1] * len(shape)))
    best_at = np.argmax(value(axis), axis=0)
    low, high = grid[np.maximum(best_at - 1, 0)], grid[np.minimum(best_at + 1, len(grid) - 1)]
    best, golden = value(grid[best_at]), (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        v_left, v_right = value(left), value(right)
        best = np.maximum(best, np.maximum(v_left, v_right))
        low, high = np.where(v_left < v_right, left, low), np.where(v_left < v_right, high, right)
    return best


def _check_pair(p_a: npt.ArrayLike, p_b: npt.ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    p_a = np.asarray(p_a, dtype=np.float64)
    p_b = 1 - p_a if p_b is None else np.asarray(p_b, dtype=np.float64)
    if not (np.all((p_a >= 0) & (p_a <= 1)) and np.all((p_b >= 0) & (p_b <= 1))):
        raise InputError(f"p_a and p_b must be probabilities in [0, 1], got {p_a} and {p_b}")
    p_a, p_b = np.broadcast_arrays(p_a, p_b)
    return p_a, p_b


def _toward_zero(radius: np.ndarray) -> np.ndarray:
    """Return the next float toward zero, and 0 for what is not positive."""
    return np.where(radius > 0, np.nextafter(radius, 0.0), 0.0)
