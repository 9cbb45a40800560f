"""Exact sequential tests of a binomial probability: cut-offs for growing counts that spend alpha to the last vote.

Symbols: look k of m is taken at n_k votes, of which N_k fell on the class; p is the largest probability at which a
claim would be false. The cut-offs b_k are the least with P_p(N_j >= b_j for some j <= k) <= s_k, where s_k is what may
have been spent by look k and s_m = alpha. The left side grows with p (by coupling), so the test is of level alpha at
every probability up to p, under any rule of stopping.

The law of N_k on the paths that have not crossed is carried from look to look, by sums of positive terms only. Its
rounding errors are below a share of 1e-10; `_SLACK` is kept for them. What is cut from its ends counts as crossed.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from smoothcert.stats.binomial import point_mass

_SLACK = 1e-9
_CUT = 1e-13  # of alpha, from the lower end at each look
_LEAST, _ENOUGH = 1e-12, 1e-6  # of expectations: the least p and 1 - p, and the probability that may be missing


class CutOffs:
    """The cut-offs of one probability, computed look by look when first asked for.

    Args:
        looks: n_1 < ... < n_m.
        spending: s_1 <= ... <= s_m.
        p, q: the probability and its complement, each to full precision, 0 < p < 1.
    """

    def __init__(self, looks: Sequence[int], spending: Sequence[float], p: float, q: float):
        self.values: list[int] = []
        self._looks, self._spending, self._p, self._q = looks, spending, p, q
        self._first, self._law, self._spent = 0, np.ones(1), 0.0

    def advance(self) -> int:
        """Compute the cut-off of the next look and return it; it is above n_k where no count suffices."""
        k = len(self.values)
        first, steps, lost = _binomial(self._looks[k] - (self._looks[k - 1] if k else 0), self._p, self._q)
        law = np.convolve(self._law, steps)
        first, spent = self._first + first, self._spent + lost
        tails = np.cumsum(law[::-1])[::-1]
        cut = int(np.searchsorted(-tails, spent - self._spending[k] * (1 - _SLACK)))
        law, crossed = law[:cut], tails[cut] if cut < len(law) else 0.0
        below = np.cumsum(law)
        dropped = int(np.searchsorted(below, _CUT * self._spending[-1]))
        self._spent = spent + crossed + (below[dropped - 1] if dropped else 0.0)
        self._first, self._law = first + dropped, law[dropped:]
        self.values.append(first + cut)
        return self.values[-1]

    def complete(self) -> np.ndarray:
        """Return the cut-offs of all looks, int64 (m,)."""
        while len(self.values) < len(self._looks):
            self.advance()
        return np.array(self.values, dtype=np.int64)

    @property
    def spent(self) -> float:
        """An upper bound of P_p(N_j >= b_j for some look j computed so far)."""
        return self._spent * (1 + _SLACK)


@lru_cache(maxsize=4096)
def cut_offs(looks: tuple[int, ...], spending: tuple[float, ...], p: float, q: float) -> CutOffs:
    """Return the cut-offs of a test, shared by all who ask."""
    return CutOffs(looks, spending, p, q)


def crossing_probability(looks: Sequence[int], cuts: Sequence[int], p: float, q: float) -> float:
    """Return an upper bound of P_p(N_k >= cuts[k] for some k)."""
    crossed = 0.0
    for _, lost, (_, law), _ in walk_looks(looks, cuts, [-1] * len(looks), p, q):
        crossed += lost + law.sum()
    return float(crossed) * (1 + _SLACK)


def expect_walk(
    looks: Sequence[int], cuts: Sequence[int], futile: Sequence[int], start: float, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (P_p(crossed), E_p votes drawn), both (P,), for walks that end once N_k >= cuts[k] or N_k <= futile[k].

    To rounding: for plans, not for proofs. The law under `start` is carried once, and that under p follows from it,
    because an end at k of n votes has (p / p_0)^k (q / q_0)^(n - k) times the probability. Where p is so far off that
    the ends kept do not add up to 1, it is carried again from there.
    """
    p = np.clip(p, _LEAST, 1 - _LEAST)
    crossed, drawn, left, at = np.zeros(len(p)), np.zeros(len(p)), np.arange(len(p)), start
    while len(left):
        total, claimed, votes = np.zeros((3, len(left)))
        up, down = np.log(p[left] / at)[:, None], np.log((1 - p[left]) / (1 - at))[:, None]
        for n, _, *ends in walk_looks(looks, cuts, futile, at, 1 - at):
            for is_claim, (first, law) in zip((True, False), ends, strict=True):
                k = first + np.flatnonzero(law)
                mass = np.exp(k * up + (n - k) * down + np.log(law[k - first])).sum(axis=1)
                total, claimed, votes = total + mass, claimed + is_claim * mass, votes + n * mass
        found = total > 1 - _ENOUGH
        found[len(left) // 2] |= at == p[left[len(left) // 2]]
        crossed[left[found]], drawn[left[found]] = claimed[found] / total[found], votes[found] / total[found]
        left = left[~found]
        at = float(p[left[len(left) // 2]]) if len(left) else at
    return crossed, drawn


End = tuple[int, np.ndarray]
"""(first, law): the walks that end at first, first + 1, ... votes, with their probabilities."""


def walk_looks(
    looks: Sequence[int], cuts: Sequence[int], futile: Sequence[int], p: float, q: float
) -> Iterator[tuple[int, float, End, End]]:
    """Yield for each look (n, a bound of the probability left out of it, the walks that cross there, and that give up).

    A walk crosses with N_k >= cuts[k], gives up with N_k <= futile[k] < cuts[k], and goes on with any other count.
    """
    law, first, before = np.ones(1), 0, 0
    for n, cut, low in zip(looks, cuts, futile, strict=True):
        if not len(law):
            return
        start, steps, lost = _binomial(n - before, p, q)
        law, first, before = np.convolve(law, steps), first + start, n
        kept = max(0, min(cut - first, len(law)))
        dropped = max(0, min(low + 1 - first, kept))
        yield n, lost, (first + kept, law[kept:]), (first, law[:dropped])
        law, first = law[dropped:kept], first + dropped


def _binomial(n: int, p: float, q: float) -> tuple[int, np.ndarray, float]:
    """Return (first, f, lost): f[j] = P(Bin(n, p) = first + j), and a bound of all that f leaves out.

    f holds what lies within t = 10 sd + 30 of the mean; by Bernstein's inequality the rest has less than
    2 exp(-t^2 / (2 sd^2 + 2 t / 3)), which is below 1e-19.
    """
    variance = n * p * q
    t = 10 * variance**0.5 + 30
    low, high = max(0, int(n * p - t)), min(n, int(n * p + t) + 1)
    mode = min(max(int((n + 1) * p), low), high)
    k = np.arange(low, high + 1, dtype=np.float64)
    up, down = k[mode - low : -1], k[1 : mode - low + 1]
    above = np.cumprod((n - up) / (up + 1) * (p / q))
    below = np.cumprod((down / (n - down + 1) * (q / p))[::-1])[::-1]
    f = np.concatenate([below, np.ones(1), above]) * point_mass(mode, n, p, q)
    return low, f, 2 * float(np.exp(-t * t / (2 * variance + 2 * t / 3))) if (low, high) != (0, n) else 0.0
