"""Sequential procedures: looks at growing counts, the shares of alpha they spend, and bounds that hold at all of them.

Symbols: look k of m is taken at n_k samples of one growing sample; alpha_k is spent at it, sum alpha_k = alpha. The
bounds of look k fail with probability <= alpha_k, so with probability >= 1 - alpha those of every look hold: the best
of those taken so far may be reported whenever one stops, for whatever reason, and at every radius at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from smoothcert.checks import check_known
from smoothcert.errors import InputError
from smoothcert.stats.binomial import lower_limit
from smoothcert.stats.radius import ProbabilityBounds, cap_rival
from smoothcert.stats.rivals import spread

SEQUENTIAL_METHODS = ("two-sided", "cohen")
"""The methods that have a sequential form: their two events, or their one, are spent look by look."""

_KEPT = 1 << 18
"""Limits of looks at up to so many samples are kept; beyond, drawing dwarfs computing them again."""
_DENSE = 1600
"""Limits of looks at up to so many samples are computed in blocks: nearly all of them will be needed."""
_BLOCK = 64


def doubling_looks(n_max: int, first: int = 100) -> tuple[int, ...]:
    """Return {first * 2^k < n_max} and n_max.

    >>> doubling_looks(1000)
    (100, 200, 400, 800, 1000)
    """
    looks = []
    while first < n_max:
        looks.append(first)
        first *= 2
    return (*looks, n_max)


def close_looks(n_max: int) -> tuple[int, ...]:
    """Return 100, and then a tenth more, in hundreds and at least 100 more, up to n_max.

    >>> close_looks(1000)
    (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
    >>> len(close_looks(100_000))
    64
    """
    looks, n = [], 100
    while 1000 * n < 999 * n_max:
        looks.append(n)
        n = max(n + 100, n * 11 // 1000 * 100)
    return (*looks, n_max)


def growing_looks(n_max: int) -> tuple[int, ...]:
    """Return 16, and then half as many again, rounded down, up to n_max.

    >>> growing_looks(100)
    (16, 24, 36, 54, 81, 100)
    """
    looks, n = [], 16
    while n < n_max:
        looks.append(n)
        n = n * 3 // 2
    return (*looks, n_max)


def spending_shares(m: int, last: float) -> tuple[float, ...]:
    """Return the shares of m looks: `last` for the last one, equal parts of the rest for the others; 1 for one look."""
    return (*[(1 - last) / (m - 1)] * (m - 1), last) if m > 1 else (1.0,)


def early_spending(looks: Sequence[int]) -> tuple[float, ...]:
    """Return the share of alpha that may have been spent by each look, n of n_max samples: .3 (n / n_max)^.6, last 1.

    >>> [round(share, 3) for share in early_spending((100, 400, 1000))]
    [0.075, 0.173, 1.0]
    """
    return (*(0.3 * (n / looks[-1]) ** 0.6 for n in looks[:-1]), 1.0)


def check_sequential(method: str) -> str:
    """Return `method`, or raise InputError unless it has a sequential form."""
    if method == "t-certify":
        raise InputError("t-certify has no sequential form: bounds at several looks hold together because each look "
                         "spends its own part of alpha, and t-certify splits alpha after seeing the counts, which is "
                         "proved for one look, at 2 alpha; use two-sided or cohen")
    return check_known("method", method, SEQUENTIAL_METHODS)


@dataclass(frozen=True)
class Seen:
    """The looks taken at M images, one row each: of image `owner` at look number `look`, int64 (T,).

    `n_a` votes fell on the selected class and `rival` on the largest other one, or, (T, k), on each of k others. Rows
    of an image follow one another; an image may have none.
    """

    images: int
    owner: np.ndarray
    look: np.ndarray
    n_a: np.ndarray
    rival: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each image that has any."""
        return np.flatnonzero(np.concatenate([[True], self.owner[1:] != self.owner[:-1]])[:len(self.owner)])

    @cached_property
    def ends(self) -> np.ndarray:
        """The last row of each image that has any."""
        return np.append(self.starts[1:], len(self.owner)) - 1 if len(self.owner) else self.starts

    @cached_property
    def looked_at(self) -> np.ndarray:
        """The images that have a row."""
        return self.owner[self.starts]


@dataclass(frozen=True)
class RunningBounds:
    """Bounds on the class probabilities that hold at all looks at once with probability 1 - sum of `alphas`.

    "cohen": p_a = max over the looks of CP_lo(N_A, n_k, alpha_k), p_b = 1 - p_a. "two-sided": p_a with .9 alpha_k, and
    p_b = min over the looks of CP_up(largest rival, n_k, .1 alpha_k), or 1 - p_a if that is less. The limits of k
    rivals, (M, k), have .1 alpha_k / k each.
    """

    looks: tuple[int, ...]
    alphas: tuple[float, ...]
    method: str

    def __post_init__(self) -> None:
        check_sequential(self.method)

    def prove(self, seen: Seen) -> ProbabilityBounds:
        """Return the bounds from the looks taken, (M,); p_a = 0 and p_b = 1 where there are none."""
        rivals = 1 if seen.rival.ndim == 1 else seen.rival.shape[1]
        p, q = self._table(rivals).lower(*self._requests(seen, rivals))
        t = len(seen.owner)
        p_a, q_a = largest(seen, p[:t], q[:t])
        if self.method == "cohen":
            return ProbabilityBounds(p_a, q_a, q_a, p_a) if seen.rival.ndim == 1 else spread(p_a, q_a, rivals)
        q_b, p_b = largest(seen, p[t:].reshape(seen.rival.shape), q[t:].reshape(seen.rival.shape))
        return cap_rival(p_a, q_a, p_b, q_b)

    def _requests(self, seen: Seen, rivals: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and counts of the table: CP_lo(N_A), and if two-sided 1 - CP_up(rival) = CP_lo(n - rival)."""
        if self.method == "cohen":
            return seen.look, seen.n_a
        look = np.repeat(seen.look, rivals)
        others = np.array(self.looks, dtype=np.int64)[look] - seen.rival.ravel()
        return np.concatenate([2 * seen.look, 2 * look + 1]), np.concatenate([seen.n_a, others])

    def _table(self, rivals: int) -> "LimitTable":
        if rivals not in self._tables:
            parts = (1.0,) if self.method == "cohen" else (0.9, 0.1 / rivals)
            self._tables[rivals] = limit_table(tuple(
                (n, share * alpha) for n, alpha in zip(self.looks, self.alphas, strict=True) for share in parts))
        return self._tables[rivals]

    @cached_property
    def _tables(self) -> dict[int, "LimitTable"]:
        """The tables in use, by the number of rivals that are bounded."""
        return {}


def largest(seen: Seen, p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, 1 - p) of the largest p among each image's rows, (T, ...) -> (M, ...); p = 0 without rows."""
    shape = (seen.images, *p.shape[1:])
    most, rest = np.zeros(shape), np.ones(shape)
    if len(seen.owner):
        most[seen.looked_at] = np.maximum.reduceat(p, seen.starts)
        rest[seen.looked_at] = np.minimum.reduceat(q, seen.starts)
    return most, rest


class LimitTable:
    """Lower limits for every count of a list of (n, level), computed when first asked for: bits as `lower_limit`'s."""

    def __init__(self, rows: tuple[tuple[int, float], ...]) -> None:
        self._n = np.array([n for n, _ in rows], dtype=np.int64)
        self._level = np.array([level for _, level in rows])
        kept = np.where(self._n <= _KEPT, self._n + 1, 0)
        self._end = np.cumsum(kept)
        self._start = self._end - kept
        self._dense_end = int(kept[self._n <= _DENSE].sum())  # exact where rows ascend in n, as those of looks do
        self._p, self._q = np.zeros(int(kept.sum())), np.zeros(int(kept.sum()))  # pages never touched take no memory

    def lower(self, row: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (p, 1 - p), p the lower limit for k successes of row's n at row's level; integers (T,)."""
        kept = self._n[row] <= _KEPT
        if kept.all():
            return self._look_up(self._start[row] + k)
        p, q = np.empty(len(row)), np.empty(len(row))
        p[kept], q[kept] = self._look_up(self._start[row[kept]] + k[kept])
        far = row[~kept]
        p[~kept], q[~kept] = lower_limit(k[~kept], self._n[far], self._level[far])
        return p, q

    def _look_up(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q = self._q[at]
        missing = q == 0
        if missing.any():
            self._compute(at[missing])
            q = self._q[at]
        return self._p[at], q

    def _compute(self, at: np.ndarray) -> None:
        dense = at < self._dense_end
        blocks = np.unique(at[dense] // _BLOCK)[:, None] * _BLOCK + np.arange(_BLOCK)
        at = np.unique(np.concatenate([np.minimum(blocks.ravel(), len(self._q) - 1), at[~dense]]))
        row = np.searchsorted(self._end, at, side="right")
        p, q = lower_limit(at - self._start[row], self._n[row], self._level[row])
        self._p[at] = p
        self._q[at] = q  # last: a limit counts as there once its complement, never 0, is


@lru_cache(maxsize=16)
def limit_table(rows: tuple[tuple[int, float], ...]) -> LimitTable:
    """Return the table of these rows, shared by all who ask."""
    return LimitTable(rows)
