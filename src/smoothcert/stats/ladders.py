"""Ladders of exact tests: which of many radii, fixed beforehand, some looks prove.

A step is a quantile z, whose test asks whether p_A > Phi(z), and the radius that z stands for. Steps are claimed in
ascending order without a gap: a false claim then needs the lowest false step to be crossed, so each test may spend all
of alpha. (The cut-offs nearly always grow with z at every look; the order is for the rare ones that do not.)
"""

import numpy as np
from scipy import special

from smoothcert.stats.cutoffs import CutOffs, cut_offs
from smoothcert.stats.histories import RadiusOf
from smoothcert.stats.radius import ProbabilityBounds
from smoothcert.stats.sequential import Seen

_HIGHEST = 37.0  # the quantile where 1 - p is near the least float
_NEVER = np.iinfo(np.int64).max


def find_quantiles(radii: np.ndarray, radius_of: RadiusOf) -> np.ndarray:
    """Return for each radius, (R,), the least z in [0, 37] with radius_of(Phi(z)) > 0 and >= the radius, by bisection.

    37 where there is none: no number of votes that could be drawn certifies it.
    """
    low, high = np.zeros(len(radii)), np.full(len(radii), _HIGHEST)
    while True:
        middle = (low + high) / 2
        if not (apart := (low < middle) & (middle < high)).any():
            return high
        found = radii_at(middle, radius_of)
        reached = (found >= radii) & (found > 0)
        high, low = np.where(apart & reached, middle, high), np.where(apart & ~reached, middle, low)


def radii_at(z: np.ndarray, radius_of: RadiusOf) -> np.ndarray:
    """Return the radii of p_A = Phi(z), one-sided."""
    return radius_of(bounds_at(z))


def bounds_at(z: np.ndarray) -> ProbabilityBounds:
    """Return the one-sided bounds p_A >= Phi(z)."""
    p, q = special.ndtr(z), special.ndtr(-z)
    return ProbabilityBounds(p, q, q, p)


def test_at(looks: tuple[int, ...], spending: tuple[float, ...], z: float) -> CutOffs:
    """Return the test of p_A > Phi(z)."""
    return cut_offs(looks, spending, float(special.ndtr(z)), float(special.ndtr(-z)))


class Ladder:
    """The steps at some quantiles; their cut-offs are computed as far as looks ask for them.

    Args:
        looks, spending: as for `CutOffs`.
        z: quantiles, in any order. Those that stand for no radius are left out.
        radius_of: the radius of probability bounds.
    """

    def __init__(self, looks: tuple[int, ...], spending: tuple[float, ...], z: np.ndarray, radius_of: RadiusOf):
        quantiles = np.unique(z)
        quantiles = quantiles[radii_at(quantiles, radius_of) > 0]
        self._z = np.append(-np.inf, quantiles)
        self._tests = [test_at(looks, spending, z) for z in quantiles.tolist()]
        self._cuts = np.full((len(self._tests), len(looks)), _NEVER)

    def climb(self, seen: Seen) -> np.ndarray:
        """Return the quantile of the highest step that each image's looks claim, (M,); -inf where they claim none."""
        z, ends = np.full(seen.images, -np.inf), seen.ends + 1
        for image, start, end in zip(seen.looked_at, seen.starts, ends, strict=True):
            z[image] = self._z[self._count_claimed(seen.look[start:end], seen.n_a[start:end])]
        return z

    def _count_claimed(self, look: np.ndarray, votes: np.ndarray) -> int:
        """Return how many steps are claimed by the votes at some looks, from the lowest one on."""
        while True:
            missed = np.flatnonzero((votes < self._cuts[:, look]).all(axis=1))
            if not len(missed):
                return len(self._tests)
            step = int(missed[0])
            if not self._crosses(step, look, votes):
                return step

    def _crosses(self, step: int, look: np.ndarray, votes: np.ndarray) -> bool:
        """Compute cut-offs of a step until one is crossed or all that the looks need are known; tell if one is."""
        test = self._tests[step]
        known = int(np.searchsorted(self._cuts[step], _NEVER))  # no cut-off is that large, and they ascend
        for k in range(known, int(look[-1]) + 1):
            self._cuts[step, k] = test.values[k] if k < len(test.values) else test.advance()
            if (votes[look == k] >= self._cuts[step, k]).any():
                return True
        return False
