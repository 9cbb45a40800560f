"""The radius within which a class stays among the k most probable ones (see `smoothcert.stats.claims.TopK`)."""

from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.checks import check_positive
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY
from smoothcert.stats.histories import RadiusOf
from smoothcert.stats.ladders import radii_at
from smoothcert.stats.procedures import solve_decreasing
from smoothcert.stats.radius import ProbabilityBounds, cap_rival, gaussian_radius, z_lower, z_upper

_STEP = 2.0**-36
"""How far a root is moved to the safe side, beyond the tolerance of the solver and the error of `log_ndtr`."""


def top_k_radius(p_a: npt.ArrayLike, p_b: npt.ArrayLike, sigma: float = 1.0) -> np.ndarray | np.float64:
    """Return the radius of `TopK` from p_a <= p_A, (...), and upper bounds p_b of the k largest rivals, (..., k).

    >>> round(float(top_k_radius(0.4, [0.35, 0.2])), 3)
    0.294
    """
    p_a, p_b = np.asarray(p_a, dtype=np.float64), np.asarray(p_b, dtype=np.float64)
    if p_b.shape[:-1] != p_a.shape or p_b.ndim == 0 or not p_b.shape[-1]:
        raise InputError(f"p_b must have the shape of p_a and an axis of k rivals, got {p_a.shape} and {p_b.shape}")
    if not (np.all((p_a >= 0) & (p_a <= 1)) and np.all((p_b >= 0) & (p_b <= 1))):
        raise InputError(f"p_a and p_b must be probabilities in [0, 1], got {p_a} and {p_b}")
    flat, rows = p_a.ravel(), np.sort(p_b.reshape(-1, p_b.shape[-1]), axis=1)[:, ::-1]
    bounds = cap_rival(flat, 1 - flat, rows, 1 - rows)
    return top_k_of(bounds, partial(gaussian_radius, sigma=check_positive("sigma", sigma))).reshape(p_a.shape)[()]


def top_k_of(bounds: ProbabilityBounds, radius_of: RadiusOf) -> np.ndarray:
    """Return the radii (M,) of `TopK` from bounds whose p_b, (M, k), descend; each distinct row is solved once."""
    rows = np.column_stack([bounds.p_a, bounds.q_a, bounds.p_b, bounds.q_b])
    distinct, where = np.unique(rows, axis=0, return_inverse=True)
    p_a, q_a, (p_b, q_b) = distinct[:, 0], distinct[:, 1], np.split(distinct[:, 2:], 2, axis=1)
    radius = radius_of(ProbabilityBounds(p_a, q_a, p_b[:, -1], q_b[:, -1]))  # t = 1: the least of the k largest
    sums = np.minimum(np.cumsum(p_b[:, ::-1], axis=1) * (1 + SAFETY), q_a[:, None])
    for t in range(2, sums.shape[1] + 1):
        radius = np.maximum(radius, radii_at(_reach(p_a, q_a, sums[:, t - 1], t), radius_of))
    return radius[where.ravel()]


def _reach(p_a: np.ndarray, q_a: np.ndarray, total: np.ndarray, t: int) -> np.ndarray:
    """Return rho >= 0, rounded down, with Phi(Phi^-1(p_a) - rho) = Phi(Phi^-1(total) + rho) / t, for t >= 2; else 0.

    The logarithms of both sides cross at a slope of .79 or more, because the left side is at most 1/2 there.
    """
    rho = np.zeros(len(p_a))
    some = np.flatnonzero((total > 0) & (t * p_a > total))
    z_a, z_b = z_lower(p_a[some], q_a[some]), z_upper(total[some], 1 - total[some])

    def excess(rho: np.ndarray) -> np.ndarray:
        return np.log(t) + special.log_ndtr(z_a - rho) - special.log_ndtr(z_b + rho)

    most = np.maximum(z_a - special.ndtri(special.ndtr(z_b) / t), 0.0)
    found = np.maximum(solve_decreasing(excess, np.zeros(len(some)), most) - _STEP, 0.0)
    rho[some] = np.where(excess(found) > _STEP / 16, found, 0.0)
    return rho
