"""Sample sizes for whole curves of radii: the least n that brings the radius near the one at n_max.

A pilot says which probabilities are likely. Sizes choose n and prove nothing, so limits are to SciPy's precision here.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import special

from smoothcert.stats.radius import ProbabilityBounds, cap_rival

INTERVAL = 0.99
"""Confidence of a pilot's two-sided interval of each probability."""
LOWEST = -2.5
"""Before the pilot, Phi^-1(p_A) is taken to be uniform from here to the top that `aim_of` returns."""
LEAST = 0.02
"""Radii below so many sigma lose the allowed share of this in place of their own."""

_STEP, _FINEST = 0.05, 0.005  # of the grid over Phi^-1(p_A)
_RIVAL, _RIVAL_STEP = (-8.0, 0.5), 0.05  # grid over Phi^-1(p_B)
_RATIO = 1 + 2.0**-8  # between the sizes that are tried

Radii = Callable[[ProbabilityBounds], np.ndarray]


def size_curves(
    n_a: np.ndarray, rival: np.ndarray, pilot: int, n_max: int, loss: float, alpha: float, method: str,
    radius_of: Radii, to: float | None = None,
) -> np.ndarray:
    """Return the number of fresh samples for each image, int64 (M,), from its pilot counts; 0 where it may abstain.

    With E the mean over the pilot's posterior and R_n(p) the radius at the counts expected of p, n is the least of
    E R_n >= E R_n_max - aim loss max(E R_n_max, LEAST sigma), to 1/256 of itself. Radii above `to` count as `to`.
    0 where the right side is not positive, or where the best ends of the pilot's intervals have no radius.

    The posterior is that of a uniform prior in Phi^-1(p_A); the largest rival's share of the other votes is taken at
    its posterior mean. "t-certify" is sized as "two-sided", whose radius is close to its own, but has none unless
    p_a > 1/2.
    """
    pairs, where = np.unique(n_a * (pilot + 1) + (0 if method == "cohen" else rival), return_inverse=True)
    n_a, rival = np.divmod(pairs, pilot + 1)
    aim, top = aim_of(method, to)
    limits = _limits(n_max, alpha, method, pilot, top)
    log_weight = n_a[:, None] * special.log_ndtr(limits.z) + (pilot - n_a)[:, None] * special.log_ndtr(-limits.z)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    share = (rival + 1) / (pilot - n_a + 2)
    z_b = special.ndtri(share[:, None] * special.ndtr(-limits.z))

    def expect(step: np.ndarray) -> np.ndarray:
        radius = radius_of(limits.expected(step, z_b)).reshape(weight.shape)
        return (weight * (radius if to is None else np.minimum(radius, to))).sum(axis=1)

    low, high = np.full(len(n_a), -1), np.full(len(n_a), len(limits.sizes) - 1)
    at_most, one = expect(high), special.ndtr(np.array([1.0, -1.0]))
    unit = float(radius_of(ProbabilityBounds(one[:1], one[1:], one[1:], one[:1]))[0])  # sigma, of Gaussian noise
    enough = at_most - aim * loss * np.maximum(at_most, LEAST * unit)
    while (high - low > 1).any():
        middle = (low + high + 1) // 2
        reached = expect(middle) >= enough
        high, low = np.where(reached, middle, high), np.where(reached, low, middle)
    hopeful = hoped_radius(n_a, rival, pilot, method, radius_of) > 0
    return np.where(hopeful & (enough > 0), limits.sizes[high], 0)[where]


def aim_of(method: str, to: float | None) -> tuple[float, float]:
    """Return the share of the allowed loss that sizes aim at, and the highest Phi^-1(p_A) that is thought possible.

    With these the mean radius lost, measured on published logs, kept within what was allowed. Images whose votes all
    agree may be far from a half, where a whole curve loses most, or near, where one up to a radius does. A pilot's
    largest rival has more votes than are expected of it, so that two-sided sizes come out too small.
    """
    if to is not None:
        return 0.8, 4.6
    return (0.97 if method == "cohen" else 0.77), 7.0


def hoped_radius(n_a: np.ndarray, rival: np.ndarray, pilot: int, method: str, radius_of: Radii) -> np.ndarray:
    """Return the radius at the best ends of the pilot's intervals, (M,)."""
    high_a = interval_of(n_a, pilot)[1]
    if method == "cohen":
        return radius_of(ProbabilityBounds(high_a, 1 - high_a, 1 - high_a, high_a))
    low_b = interval_of(rival, pilot)[0]
    hoped = radius_of(ProbabilityBounds(high_a, 1 - high_a, low_b, 1 - low_b))
    return np.where((method == "t-certify") & (high_a <= 0.5), 0.0, hoped)


def interval_of(k: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two ends of the interval of a probability from k of n votes."""
    tail, trials = (1 - INTERVAL) / 2, np.full(len(k), n)
    return estimate_lower(k, trials, tail)[0], estimate_lower(n - k, trials, tail)[1]


def estimate_bounds(
    k_a: np.ndarray, k_b: np.ndarray, n: np.ndarray, alpha: float, method: str
) -> ProbabilityBounds:
    """Return the bounds of a fixed-n method from counts that need not be whole, to SciPy's precision: an estimate."""
    if method == "cohen":
        p, q = estimate_lower(k_a, n, alpha)
        return ProbabilityBounds(p, q, q, p)
    p, q = estimate_lower(k_a, n, 0.9 * alpha)
    q_b, p_b = estimate_lower(n - k_b, n, 0.1 * alpha)
    return cap_rival(p, q, p_b, q_b, (method == "t-certify") & (p <= 0.5))


def estimate_lower(k: np.ndarray, n: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, 1 - p), p the lower limit for k of n votes, to the precision of SciPy's."""
    q = np.where(k > 0, special.betainccinv(n - k + 1, np.maximum(k, 1), alpha), 1.0)
    return 1 - q, q


class _Limits:
    """Limits at the counts that are expected of a grid of probabilities, for the sizes that are tried.

    Attributes:
        z: the grid over Phi^-1(p_A). sizes: the numbers of samples that are tried, ascending to n_max.
    """

    def __init__(self, n_max: int, alpha: float, method: str, pilot: int, top: float) -> None:
        finest = max(min(_STEP, 1.5 / math.sqrt(pilot)), _FINEST)  # the posterior is that narrow at most
        self.z = np.linspace(LOWEST, top, 1 + math.ceil((top - LOWEST) / finest))
        steps = np.arange(math.ceil(math.log(n_max) / math.log(_RATIO)), -1, -1)
        self.sizes = np.unique(np.ceil(n_max * _RATIO**-steps.astype(float)).astype(np.int64))
        self._alpha, self._method = alpha, method
        self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def expected(self, step: np.ndarray, z_b: np.ndarray) -> ProbabilityBounds:
        """Return the bounds, (M Z,), for M sizes by their numbers and rivals' Phi^-1(p_B) (M, Z)."""
        numbers, of = np.unique(step, return_inverse=True)
        rows = [self._row(number) for number in numbers.tolist()]
        q_a = np.array([q for q, _ in rows])[of].ravel()
        p_a = 1 - q_a
        if self._method == "cohen":
            return ProbabilityBounds(p_a, q_a, q_a, p_a)
        upper = np.array([z for _, z in rows])
        place = np.clip((z_b - _RIVAL[0]) / _RIVAL_STEP, 0, upper.shape[1] - 1.001)
        left, part = place.astype(np.int64), place % 1
        z = ((1 - part) * upper[of[:, None], left] + part * upper[of[:, None], left + 1]).ravel()
        p_b, q_b = special.ndtr(z), special.ndtr(-z)
        return cap_rival(p_a, q_a, p_b, q_b, (self._method == "t-certify") & (p_a <= 0.5))

    def _row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return 1 - p_a over the grid, and Phi^-1(p_b) over the rival's."""
        if number not in self._rows:
            n, two = int(self.sizes[number]), self._method != "cohen"
            k_a = n * special.ndtr(self.z)
            q_a = special.betainccinv(n - k_a + 1, k_a, (0.9 if two else 1.0) * self._alpha)
            upper = np.zeros(0)
            if two:
                k_b = n * special.ndtr(np.arange(_RIVAL[0], _RIVAL[1] + _RIVAL_STEP / 2, _RIVAL_STEP))
                p_b = special.betainccinv(k_b + 1, n - k_b, 0.1 * self._alpha)
                upper = special.ndtri(np.minimum(p_b, 1 - 1e-12))
            self._rows[number] = q_a, upper
        return self._rows[number]


@lru_cache(maxsize=4)
def _limits(n_max: int, alpha: float, method: str, pilot: int, top: float) -> _Limits:
    return _Limits(n_max, alpha, method, pilot, top)
