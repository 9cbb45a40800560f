"""Designs of earlier versions: stores that were made with them go on in them, and no new run takes them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.stats.certify_plans import Curve
from smoothcert.stats.predict_plans import Sequential
from smoothcert.stats.radius import ProbabilityBounds
from smoothcert.stats.sequential import growing_looks, spending_shares
from smoothcert.stats.sizing import INTERVAL, estimate_lower, hoped_radius, interval_of

LAST_SHARE = 0.7
"""Share of alpha that sequential PREDICT kept for its last look."""


@dataclass(frozen=True, repr=False)
class EarlierCurve(Curve):
    """The first `Curve`: n is the least that suffices whatever the pilot's intervals leave possible (`curve_sizes`)."""

    to: None = field(default=None, init=False, repr=False)

    def identity(self) -> dict[str, Any]:
        return {"design": "curve", "method": self.method, "alpha": self.alpha, "n0": self.n0, "n_max": self.n_max,
                "loss": self.loss, "interval": INTERVAL, "margin": self.margin}

    def sizes(self, n_a: np.ndarray, rival: np.ndarray) -> np.ndarray:
        return curve_sizes(n_a, rival, self.n0, self.n_max, self.loss, self.alpha, self.method, self.radius_of)


@dataclass(frozen=True, repr=False)
class EarlierSequential(Sequential):
    """The first `Sequential`: looks that grow by half, equal shares of .3 alpha before the last, and no giving up."""

    def identity(self) -> dict[str, Any]:
        return {"design": "sequential", "method": "predict", "alpha": self.alpha, "n_max": self.n_max,
                "looks": "16*1.5^k", "spending": f"{1 - LAST_SHARE:.1g}/{LAST_SHARE:g}"}

    @cached_property
    def looks(self) -> tuple[int, ...]:
        return growing_looks(self.n_max)

    @cached_property
    def shares(self) -> np.ndarray:
        return np.array(spending_shares(len(self.looks), LAST_SHARE))

    def is_futile(self, look: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.zeros(len(look), dtype=bool)


def curve_sizes(
    n_a: np.ndarray, rival: np.ndarray, pilot: int, n_max: int, loss: float, alpha: float, method: str,
    radius_of: Callable[[ProbabilityBounds], np.ndarray],
) -> np.ndarray:
    """Return the number of fresh samples for each image, int64 (M,), from its pilot counts; 0 where it may abstain.

    n = max over the pilot's intervals of min {n : R_n(p) >= (1 - loss) R_n_max(p)}, R_n(p) the radius at the counts
    expected of p: floor(n p_A) and ceil(n p_B). 0 where even the best ends of the intervals have no radius; n_max
    where the worst ends have none at n_max (somewhere between, the radius is then as close to 0 as one likes, and a
    share of it takes every sample).

    For "cohen", p is p_A alone: the need is U-shaped in it (near 1/2 the radius vanishes, near 1 it lives on n), so
    largest at an end. For the others p is (p_A, p_B) with p_A + p_B <= 1: the need is largest at (low, high), the
    smallest radius, (high, low), the largest, or (low, low), where p_A costs nothing yet and p_B's limit lives on n.
    Inside, at the steps of the counts and where the two arms of p_b meet, up to 7 % more was found.
    "t-certify" is sized as "two-sided", whose radius is close to its own, but has none unless p_a > 1/2.

    Limits are to the precision of SciPy's: they choose n and prove nothing.
    """
    pairs, where = np.unique(n_a * (pilot + 1) + (0 if method == "cohen" else rival), return_inverse=True)
    n_a, rival = np.divmod(pairs, pilot + 1)
    low_a, high_a = interval_of(n_a, pilot)
    low_b, high_b = interval_of(rival, pilot)
    hoped = hoped_radius(n_a, rival, pilot, method, radius_of)

    def radius(n: np.ndarray, p_a: np.ndarray, p_b: np.ndarray) -> np.ndarray:
        k_a = np.floor(n * p_a * (1 + 1e-15))  # (k / n) n may fall an ulp short of k
        return radius_of(_estimate_bounds(k_a, np.minimum(np.ceil(n * p_b * (1 - 1e-15)), n - k_a), n, alpha, method))

    if method == "cohen":
        ends = [(low_a, 1 - low_a), (high_a, 1 - high_a)]
    else:
        ends = [(low_a, np.minimum(high_b, 1 - low_a)), (low_a, low_b), (np.minimum(high_a, 1 - low_b), low_b)]
    p_a, p_b = (np.concatenate(p) for p in zip(*ends, strict=True))
    needs, at_most = _least_n(lambda n: radius(n, p_a, p_b), np.full(len(p_a), n_max), loss)
    needs, at_most = needs.reshape(len(ends), -1), at_most.reshape(len(ends), -1)
    sizes = np.where(at_most[0] > 0, needs.max(axis=0), n_max)
    return np.where(hoped > 0, sizes, 0)[where]


def _least_n(
    radius: Callable[[np.ndarray], np.ndarray], n_max: np.ndarray, loss: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return min {n : R_n >= (1 - loss) R_n_max} to 1/512 of itself, and R_n_max, by geometric bisection."""
    at_most = radius(n_max)
    enough, high = (1 - loss) * at_most, n_max
    low = np.zeros_like(high)
    while True:
        open_ = high - low > np.maximum(high >> 9, 1)
        if not open_.any():
            return high, at_most
        middle = np.clip(np.sqrt(np.maximum(low, 1) * high.astype(float)).astype(np.int64), low + 1, high - 1)
        middle = np.where(open_, middle, high)
        reached = radius(middle) >= enough
        high, low = np.where(open_ & reached, middle, high), np.where(open_ & ~reached, middle, low)


def _estimate_bounds(
    k_a: np.ndarray, k_b: np.ndarray, n: np.ndarray, alpha: float, method: str
) -> ProbabilityBounds:
    if method == "cohen":
        p, q = estimate_lower(k_a, n, alpha)
        return ProbabilityBounds(p, q, q, p)
    p, q = estimate_lower(k_a, n, 0.9 * alpha)
    q_b, p_b = estimate_lower(n - k_b, n, 0.1 * alpha)
    rest = (q < p_b) | ((method == "t-certify") & (p <= 0.5))
    return ProbabilityBounds(p, q, np.where(rest, q, p_b), np.where(rest, p, q_b))
