"""Median smoothing: certified intervals of a percentile of a real-valued function, from order statistics.

Chiang et al. 2020, "Detection as Regression: Certified Object Detection with Median Smoothing". Y(x) = f(x + e),
e ~ N(0, sigma^2 I), is a real random value with distribution function F_x(t) = P(Y(x) <= t). A p-th percentile of it
is any h with P(Y < h) <= p <= P(Y <= h): a single number where F_x is continuous and rises, else all numbers from the
lower one, inf {t: F_x(t) >= p}, to the upper one, inf {t: F_x(t) > p}. What follows holds for every one of them, with
ties, steps and infinite values alike.

**Theorem.** Let p_- = Phi(Phi^-1(p) - r / sigma) and p_+ = Phi(Phi^-1(p) + r / sigma). For ||d|| <= r every p-th
percentile h of Y(x + d) lies between the lower p_- and the upper p_+ percentile of Y(x).

Proof. For 0 <= g <= 1 the map x -> sigma Phi^-1(E g(x + e)) is 1-Lipschitz. Lower end: take t below the lower p_-
percentile, so that F_x(t) < p_-. With g = 1[f <= t], F_{x+d}(t) <= Phi(Phi^-1(F_x(t)) + r / sigma) < p, while
F_{x+d}(h) >= p: so t < h, for all such t. Upper end: take t with P(Y(x) < t) > p_+. With g = 1[f < t],
P(Y(x + d) < t) > p, while P(Y(x + d) < h) <= p: so h < t; and inf {t: P(Y(x) < t) > p_+} is the upper percentile.

**Order statistics** Y_(1) <= ... <= Y_(n) of n samples bound these two at level a each. Lower end: q = the lower p_-
percentile has F_x(q) >= p_-, and Y_(k) > q says that at most k - 1 samples are <= q, so

    P(Y_(k) > q) <= P(Bin(n, p_-) <= k - 1), and k is the largest rank for which that is at most a.

Upper end: q = the upper p_+ percentile has P(Y < q) <= p_+, and Y_(k) < q says that at least k samples are < q, so

    P(Y_(k) < q) <= P(Bin(n, p_+) >= k), and k is the smallest rank for which that is at most a.

With a = alpha / (2 M) all M outputs of a function keep both ends at once with probability 1 - alpha, at one radius. The
ranks hang on n, p, r / sigma and a alone, so they are fixed before anything is drawn. The first condition is the second
one of n - k + 1 and 1 - p_-, so that one search finds both.

Where samples have laws of their own, f_i(x + e_i) with f_i that are nearly equal, read F_x as the mean of theirs. The
theorem holds for it, and so do both bounds: no sum of independent indicators has heavier tails than the binomial one of
the same mean, up to one below that mean and from one above it on (W. Hoeffding 1956, "On the distribution of the number
of successes in independent trials"), and no rank lies nearer if a < 1/4, p_- <= 1 - 1/n and p_+ >= 1/n.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy import special

from smoothcert.checks import check_count, check_positive, check_probability, check_weight
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY, clopper_pearson

MOST_SAMPLES = 10**10
"""The largest n that exact binomial limits are computed for."""

STEP = 1 / 32
"""The steps of a sketch's ranks, in units of Phi^-1(rank / n): what it lacks in between costs r at most so many sigma,
about."""


@lru_cache(maxsize=4096)
def interval_ranks(n: int, percentile: float, shift: float, alpha: float) -> tuple[int, int] | None:
    """Return the ranks (1 ... n) whose order statistics bound a percentile within a radius; None where n has none.

    Each end fails with probability at most alpha / 2: see the theorem above.

    Args:
        shift: r / sigma >= 0.

    >>> interval_ranks(1000, 0.5, 0.5, 0.001)
    (261, 740)
    >>> interval_ranks(10, 0.5, 0.0, 0.001) is None
    True
    """
    z = float(special.ndtri(percentile))
    below, above = (_least_rank(n, sign * z, shift, alpha / 2) for sign in (-1, 1))
    return None if max(below, above) > n else (n + 1 - below, above)


def _least_rank(n: int, z: float, shift: float, level: float) -> int:
    """Return the least k with P(Bin(n, Phi(z + shift)) >= k) <= level; n + 1 where no rank has it.

    That is P <= the lower Clopper-Pearson limit of k successes, which is rounded down, and P here up; both are compared
    in the smaller of P and 1 - P.
    """
    up = z + shift + (abs(z) + shift) * 2.0**-46
    p, q = float(special.ndtr(up)) * (1 + SAFETY), float(special.ndtr(-up)) * (1 - SAFETY)

    def suffices(k: int) -> bool:
        if up > 0:
            return bool(q >= clopper_pearson(k, n, level, complement=True))
        return bool(p <= clopper_pearson(k, n, level))

    return 1 + bisect_left(range(1, n + 1), True, key=suffices)


def least_samples(percentile: float, shift: float, alpha: float) -> int | None:
    """Return the least n that has ranks for a percentile at r / sigma = shift; None where 1e10 are too few.

    Phi(|Phi^-1(p)| + shift)^n is to be at most alpha / 2.

    >>> least_samples(0.5, 0.0, 0.001)
    11
    """
    rest = float(special.ndtr(-abs(float(special.ndtri(percentile))) - shift))
    n = math.ceil(math.log(alpha / 2) / math.log1p(-rest)) if rest > 0 else MOST_SAMPLES + 1
    while n <= MOST_SAMPLES and interval_ranks(n, percentile, shift, alpha) is None:
        n += 1
    return n if n <= MOST_SAMPLES else None


@dataclass(frozen=True)
class PercentilePlan:
    """n samples of a real-valued function, and the ranks that certify its percentile at some radii.

    Each interval holds for all outputs together with probability 1 - alpha, at one radius; for all radii together give
    alpha divided by their number. Choose all of it before anything is drawn.

    Args:
        sigma, radii: of the noise, and within which the percentile is bounded, in units of the inputs; 0 bounds the
            percentile at the input itself.
        n: samples an input.
        alpha: failure probability.
        percentile: p in (0, 1).
        outputs: M, the outputs of the function.
    Raises:
        InputError: values outside these, or radii that n cannot give; the least n that can is named.

    >>> plan = PercentilePlan(sigma=0.5, radii=(0.25,), n=1000)
    >>> plan.ranks.tolist()
    [[261, 740]]
    """

    sigma: float
    radii: tuple[float, ...]
    n: int = 10_000
    alpha: float = 0.001
    percentile: float = 0.5
    outputs: int = 1

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        check_probability("alpha", self.alpha)
        check_probability("percentile", self.percentile)
        check_count("outputs", self.outputs)
        if check_count("n", self.n) > MOST_SAMPLES:
            raise InputError(f"n must be at most {MOST_SAMPLES:,}, got {self.n:,}")
        radii = tuple(check_weight("radii", radius) for radius in self.radii)
        if not radii or len(set(radii)) < len(radii):
            raise InputError(f"radii must be at least one number, each given once, got {self.radii}")
        object.__setattr__(self, "radii", radii)
        if beyond := [radius for radius, ranks in zip(radii, self._found, strict=True) if ranks is None]:
            needed = [least_samples(self.percentile, radius / self.sigma, self._share) for radius in beyond]
            of = f" ({self.outputs} outputs)" if self.outputs > 1 else ""
            raise InputError("\n".join(
                f"n {self.n:,} is too small for radius {radius:g}: the interval of percentile {self.percentile:g} at "
                f"sigma {self.sigma:g} and alpha {self.alpha:g}{of} needs "
                + (f"n {n:,} or more" if n else f"more than {MOST_SAMPLES:,} samples: give a smaller radius")
                for radius, n in zip(beyond, needed, strict=True)))

    @property
    def _share(self) -> float:
        """The part of alpha that one output has."""
        return self.alpha / self.outputs

    @cached_property
    def _found(self) -> list[tuple[int, int] | None]:
        return [interval_ranks(self.n, self.percentile, radius / self.sigma, self._share) for radius in self.radii]

    @property
    def ranks(self) -> np.ndarray:
        """(R, 2) int64: the ranks, from 1 to n, of the two ends at each radius."""
        return np.array(self._found, dtype=np.int64)

    @property
    def middle(self) -> int:
        """The rank of the estimate, ceil(n p)."""
        return max(1, math.ceil(self.n * self.percentile))

    def identity(self) -> dict[str, Any]:
        """Return n and alpha as the procedure of a store's identity has them."""
        return {"method": "percentile", "alpha": self.alpha, "n": self.n}

    def sketch(self) -> np.ndarray:
        """Return the ranks (S,) int64 whose order statistics are worth keeping, ascending.

        They are the ranks of the radii and of the estimate, the first and the last, and in between some 250 that are
        evenly spaced in Phi^-1(rank / n): so intervals at other radii and levels can be read as far as n reaches, each
        with the next kept rank that lies further out.
        """
        reach = -float(special.ndtri(1 / (2 * self.n)))
        ladder = np.rint(self.n * special.ndtr(np.arange(-reach, reach, STEP))).astype(np.int64)
        return np.unique([1, self.n, self.middle, *self.ranks.ravel(), *np.clip(ladder, 1, self.n)])

    def read(self, kept: np.ndarray, sketch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the estimates (...,), and the lower and upper ends (..., R), from sketches.

        Args:
            kept: (S,) the ranks that the sketches hold, the first and the last of all n among them.
            sketch: (..., S) the order statistics of these ranks.
        """
        last = len(kept) - 1
        below = np.clip(np.searchsorted(kept, self.ranks[:, 0], side="right") - 1, 0, last)
        above = np.clip(np.searchsorted(kept, self.ranks[:, 1], side="left"), 0, last)
        middle = min(int(np.searchsorted(kept, self.middle)), last)
        return sketch[..., middle], sketch[..., below], sketch[..., above]

    def is_exact(self, kept: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return (R,) bool: whether sketches of these ranks hold those of a radius, or are read a little wider."""
        return np.asarray(np.isin(self.ranks, kept).all(axis=1))

    def judge(self, values: np.ndarray) -> "Intervals":
        """Return the intervals of an input from all n outputs (n, M)."""
        kept = np.unique([self.middle, *self.ranks.ravel()])
        estimate, lower, upper = self.read(kept, order_statistics(values, kept).T)
        return Intervals(estimate, self.radii, lower.T, upper.T, self.percentile, self.n, self.alpha)


@dataclass(frozen=True, eq=False, repr=False)
class Intervals(Displayed):
    """The certified intervals of an input, or its percentile with the interval at radius 0.

    With probability 1 - alpha the percentile of each of the M outputs under noise stays in its interval at radius r,
    wherever within r the input is moved: for all outputs together, at one radius.

    Attributes:
        radii: (R,) those chosen beforehand. estimate: (M,) the percentiles of the sample.
        lower, upper: (R, M) float32.
    """

    estimate: np.ndarray
    radii: tuple[float, ...]
    lower: np.ndarray
    upper: np.ndarray
    percentile: float
    n: int
    alpha: float

    def at(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends (M,) at one of the radii. Raises InputError for another."""
        if radius not in self.radii:
            raise InputError(f"radius {radius:g} is none of those that were chosen beforehand: "
                             f"{', '.join(f'{one:g}' for one in self.radii)}")
        place = self.radii.index(radius)
        return self.lower[place], self.upper[place]

    def display_facts(self) -> dict[str, Any]:
        ends = {f"r {radius:g}": ", ".join(f"[{low:.6g}, {high:.6g}]" for low, high in zip(low, high, strict=True))
                for radius, low, high in zip(self.radii, self.lower, self.upper, strict=True)}
        return {"estimate": ", ".join(f"{one:.6g}" for one in self.estimate), **ends, "percentile": self.percentile,
                "n": self.n, "alpha": self.alpha}


def order_statistics(values: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the order statistics (S, M) of samples (n, M) at ranks (S,) from 1 to n, as they are.

    By a partition at integer ranks: quantiles of floats name the next rank now and then.
    """
    return np.partition(values, ranks - 1, axis=0)[ranks - 1]
