"""Designs of earlier versions, which stores that were begun with them go on with. No new run takes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.checks import check_count
from smoothcert.stats.at_radii import RadiiDesign
from smoothcert.stats.certify_plans import Curve
from smoothcert.stats.histories import History, check_stages
from smoothcert.stats.predict_plans import Sequential
from smoothcert.stats.radius import ProbabilityBounds
from smoothcert.stats.rivals import Rivals
from smoothcert.stats.sequential import (
    RunningBounds,
    Seen,
    doubling_looks,
    growing_looks,
    largest,
    limit_table,
    spending_shares,
)
from smoothcert.stats.sizing import INTERVAL, estimate_bounds, hoped_radius, interval_of

_RADII_LAST_SHARE, _PREDICT_LAST_SHARE = 0.8, 0.7
"""Share of alpha that the last look kept."""
_FUTILITY = 0.01
"""Probability beta of giving up on a radius that more samples would have certified, over all looks together."""


@dataclass(frozen=True, repr=False)
class EarlierRadii(RadiiDesign):
    """Version 1 of `AtRadii`: looks that double, a union bound over them, and limits the other way for giving up.

    Looks at 100, 200, 400, ... and n_max samples: the last has .8 alpha, the others share the rest equally. A radius is
    given up once even limits the other way, at beta = .01 over all looks, fall short of it. n0 samples, 100 for None,
    choose the class.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "n0", 100 if self.n0 is None else check_count("n0", self.n0))

    def identity(self) -> dict[str, Any]:
        return {"design": "radii", "method": self.method, "alpha": self.alpha, "n0": self.n0, "n_max": self.n_max,
                "radii": list(self.radii), "looks": "100*2^k", "spending": "0.2/0.8",
                "futility": _FUTILITY, "margin": self.margin}

    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        check_stages(histories, "select", "estimate")
        seen, chosen = self.collect(histories, rivals)
        return chosen, self.bounds.prove(seen)

    def weigh(self, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        claimed = self.reaches(self.radius_of(self.bounds.prove(seen)))
        return claimed, self.reaches(self.radius_of(self.hope(seen))) & self.reachable & ~claimed

    @cached_property
    def looks(self) -> tuple[int, ...]:  # type: ignore[override]
        return doubling_looks(self.n_max)

    @cached_property
    def bounds(self) -> RunningBounds:  # type: ignore[override]
        shares = spending_shares(len(self.looks), _RADII_LAST_SHARE)
        return RunningBounds(self.looks, tuple(share * self.alpha for share in shares), self.method)

    def hope(self, seen: Seen) -> ProbabilityBounds:
        """Return the best that the probabilities can still be believed to be: limits the other way.

        The least over the looks of CP_up(N_A) and, where two-sided, the largest of CP_lo(largest rival).
        """
        two_sided = self.method == "two-sided"
        beta = _FUTILITY / len(self.looks) * (0.5 if two_sided else 1.0)
        table = limit_table(tuple((n, beta) for n in self.looks))
        q_a, p_a = largest(seen, *table.lower(seen.look, np.array(self.looks)[seen.look] - seen.n_a))
        if not two_sided:
            return ProbabilityBounds(p_a, q_a, q_a, p_a)
        return ProbabilityBounds(p_a, q_a, *largest(seen, *table.lower(seen.look, seen.rival)))


@dataclass(frozen=True, repr=False)
class EarlierCurve(Curve):
    """Version 1 of `Curve`: n suffices whatever the pilot's intervals leave possible (`curve_sizes`)."""

    to: None = field(default=None, init=False, repr=False)

    def identity(self) -> dict[str, Any]:
        return {"design": "curve", "method": self.method, "alpha": self.alpha, "n0": self.n0, "n_max": self.n_max,
                "loss": self.loss, "interval": INTERVAL, "margin": self.margin}

    def sizes(self, n_a: np.ndarray, rival: np.ndarray) -> np.ndarray:
        return curve_sizes(n_a, rival, self.n0, self.n_max, self.loss, self.alpha, self.method, self.radius_of)


@dataclass(frozen=True, repr=False)
class EarlierSequential(Sequential):
    """Version 1 of `Sequential`: looks that grow by half, .3 alpha in equal shares before the last, no giving up."""

    def identity(self) -> dict[str, Any]:
        return {"design": "sequential", "method": "predict", "alpha": self.alpha, "n_max": self.n_max,
                "looks": "16*1.5^k", "spending": f"{1 - _PREDICT_LAST_SHARE:.1g}/{_PREDICT_LAST_SHARE:g}"}

    @cached_property
    def looks(self) -> tuple[int, ...]:
        return growing_looks(self.n_max)

    @cached_property
    def shares(self) -> np.ndarray:
        return np.array(spending_shares(len(self.looks), _PREDICT_LAST_SHARE))

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
        return radius_of(estimate_bounds(k_a, np.minimum(np.ceil(n * p_b * (1 - 1e-15)), n - k_a), n, alpha, method))

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
