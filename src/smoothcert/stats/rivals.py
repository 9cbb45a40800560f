"""Upper limits on several rivals at once, or on some classes alone.

Two facts keep the number of limits small, whatever the number K of classes is. The classes that matter (the k most
probable ones but c_A, or the most probable of some set) are fixed, though nobody knows them; and the limit of a count
grows with the count. So k limits at .1 alpha / k each hold for the k most probable rivals together. Where they do, the
i-th largest probability of a rival is at most the i-th largest of these limits, which is at most the i-th largest limit
of any rivals: the limit of the i-th largest count.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from smoothcert.stats.binomial import lower_limit, upper_limit
from smoothcert.stats.radius import ProbabilityBounds, cap_rival


class Rivals(Protocol):
    """The classes other than the chosen one whose probabilities are to be bounded."""

    @property
    def count(self) -> int:
        """The number of limits that hold together."""
        ...

    def pick(self, chosen: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return their votes (T, count), the largest first, from counts (T, K) and the chosen classes (T,)."""
        ...


@dataclass(frozen=True)
class LargestRivals:
    """The `count` rivals with the most votes."""

    count: int

    def pick(self, chosen: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """See `Rivals.pick`."""
        rest = counts.copy()
        rest[np.arange(len(chosen)), chosen] = -1
        last = rest.shape[1] - self.count
        return np.sort(np.partition(rest, last, axis=1)[:, last:], axis=1)[:, ::-1]


@dataclass(frozen=True)
class SomeRivals:
    """The one with the most votes of the classes that are named for the chosen class; 0 votes where none are."""

    of: dict[int, tuple[int, ...]]
    count: int = 1

    def pick(self, chosen: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """See `Rivals.pick`."""
        votes = np.zeros((len(chosen), 1), dtype=np.int64)
        for number in np.unique(chosen).tolist():
            if targets := self.of.get(number):
                rows = chosen == number
                votes[rows, 0] = counts[np.ix_(rows, targets)].max(axis=1)
        return votes


def bound_rivals(n_a: np.ndarray, rivals: np.ndarray, n: np.ndarray, alpha: float, method: str) -> ProbabilityBounds:
    """Return p_a and q_a (M,), p_b and q_b (M, k), which hold together except with probability alpha.

    "two-sided": p_a = CP_lo(N_A, n, .9 alpha), and p_b = CP_up(N, n, .1 alpha / k) of each rival, or 1 - p_a if that is
    less. "cohen": p_a = CP_lo(N_A, n, alpha), and 1 - p_a for each rival.

    Args:
        n_a, n: (M,). rivals: (M, k) votes of rivals, as `Rivals.pick` returns them.
    """
    if method == "cohen":
        return spread(*lower_limit(n_a, n, alpha), rivals.shape[1])
    p, q = lower_limit(n_a, n, 0.9 * alpha)
    return cap_rival(p, q, *upper_limit(rivals, n[:, None], 0.1 * alpha / rivals.shape[1]))


def spread(p: np.ndarray, q: np.ndarray, count: int) -> ProbabilityBounds:
    """Return one-sided bounds p_a >= p, (M,), with the same p_b = 1 - p_a for `count` rivals."""
    return ProbabilityBounds(p, q, np.repeat(q[:, None], count, axis=1), np.repeat(p[:, None], count, axis=1))
