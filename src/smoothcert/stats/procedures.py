"""From class counts to predictions and certificates: PREDICT, CERTIFY, two-sided, T-CERTIFY.

Symbols: N_A of n samples fell on c_A, the class picked beforehand from other samples; N_c on class c;
alpha the failure probability; a procedure is a function (N_A, rivals' counts, n, alpha) -> ProbabilityBounds.
To add one, write that function and give it a name in `METHODS`; every caller then has it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.checks import check_known, check_probability
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY, lower_limit, tail, upper_limit
from smoothcert.stats.histories import ClassCounts, check_counts
from smoothcert.stats.radius import ProbabilityBounds, cap_rival, gaussian_radius, z_lower, z_upper
from smoothcert.stats.rivals import Rivals, bound_rivals

ABSTAIN = -1
"""Abstention in integer arrays and files; in objects it is None."""


@dataclass(frozen=True, repr=False)
class Prediction(Displayed):
    """The smoothed classifier's answer for one image, or None where it abstains."""

    prediction: int | None
    p_value: float
    counts: ClassCounts
    alpha: float

    def display_facts(self) -> dict[str, Any]:
        return {"prediction": self.prediction, "p_value": self.p_value, "n": self.counts.n, "alpha": self.alpha}


@dataclass(frozen=True, repr=False)
class Certificate(Displayed):
    """No perturbation of l2 norm below `radius` changes `prediction`, except with probability `alpha`.

    `prediction` is None and `radius` 0.0 where the procedure abstains. `radius` is in the units of `sigma`, rounded
    down. `looks` are the cumulative counts at each look of a sequential procedure, or the one of a fixed one; empty
    where the pilot or the selection already settled it. `off_grid` says that the image was no point of the noise's
    grid (see `smoothcert.noise.grid`).
    """

    prediction: int | None
    radius: float
    selection: ClassCounts
    looks: tuple[ClassCounts, ...]
    sigma: float
    alpha: float
    method: str
    margin: float | None = None
    off_grid: bool = False

    @property
    def estimation(self) -> ClassCounts:
        """All counts that bound the radius: those of the last look."""
        return self.looks[-1] if self.looks else ClassCounts(np.zeros(self.selection.num_classes, dtype=np.int64))

    def display_facts(self) -> dict[str, Any]:
        margin = {} if self.margin is None else {"margin": self.margin}
        return {"prediction": self.prediction, "radius": math.floor(self.radius * 1e6) / 1e6, "sigma": self.sigma,
                "alpha": self.alpha, "method": self.method, "n": self.estimation.n, **margin}


@dataclass(frozen=True)
class PredictedCounts:
    """`prediction` int64 (-1 = abstain) and `p_value` float64, one per image."""

    prediction: np.ndarray
    p_value: np.ndarray


@dataclass(frozen=True)
class CertifiedCounts:
    """`prediction` int64 (-1 = abstain) and `radius` float64 (0 where abstained), one per image."""

    prediction: np.ndarray
    radius: np.ndarray


def predict_counts(counts: npt.ArrayLike, alpha: float = 0.001) -> PredictedCounts:
    """Return the answers of PREDICT (Cohen et al. 2019, section 3.2.1; Hung & Fithian 2019): top class, or abstention.

    Two-sided exact binomial test that the top two counts are equally likely; a class other than the smoothed
    classifier's is returned with probability at most `alpha`.

    Args:
        counts: integers, (K,) or (M, K), each image with at least one sample.
        alpha: failure probability.
    Returns:
        Arrays of shape () or (M,); p-values are rounded up.

    >>> predict_counts([5, 95, 0], alpha=0.001).prediction
    np.int64(1)
    """
    alpha = check_probability("alpha", alpha)
    counts = check_counts("counts", counts, least_total=1)
    second, first = np.moveaxis(np.partition(counts, -2, axis=-1)[..., -2:], -1, 0)
    guard = SAFETY + 2.0**-49 * np.sqrt(first + second)  # the error of `tail` grows like this
    p_value = np.minimum(2 * tail(first, first + second, 0.5) * (1 + guard), 1.0)
    prediction = np.where(p_value <= alpha, counts.argmax(axis=-1), ABSTAIN)
    return PredictedCounts(prediction[()], p_value[()])


def certify_counts(
    selection: npt.ArrayLike, estimation: npt.ArrayLike, sigma: float,
    alpha: float = 0.001, method: str = "two-sided", margin: float | None = None,
) -> CertifiedCounts:
    """Return the certified class and l2 radius of each image, from its counts.

    Args:
        selection: counts that choose the class (the lowest index among equals), (K,) or (M, K).
        estimation: counts of FRESH samples, of the same shape, at least one sample an image.
        sigma: noise level; radii are in its units.
        alpha: failure probability of each certificate ("t-certify": see `t_certify_bounds`).
        method: "two-sided" (default), "cohen" or "t-certify".
        margin: tau in [0, 1/2): report instead the radius within which the class keeps probability 1/2 + tau (from
            the method's own p_a, so never more than its plain radius).
    Returns:
        Arrays of shape () or (M,); a class is returned exactly where the radius is positive.
    Raises:
        InputError: shapes, types or values outside these.

    >>> certify_counts([1, 99], [1000, 99000], sigma=0.5, method="cohen").radius.round(3)
    np.float64(1.145)
    """
    return certify_with(lambda bounds: gaussian_radius(bounds, sigma, margin), selection, estimation, alpha, method)


def certify_with(
    radius_of: Callable[[ProbabilityBounds], np.ndarray], selection: npt.ArrayLike, estimation: npt.ArrayLike,
    alpha: float = 0.001, method: str = "two-sided",
) -> CertifiedCounts:
    """Return `certify_counts` for a noise of any kind: `radius_of` turns bounds (M,) into certified radii (M,)."""
    alpha = check_probability("alpha", alpha)
    check_known("method", method, METHODS)
    selection = check_counts("selection", selection, least_total=1)
    estimation = check_counts("estimation", estimation, least_total=1)
    if selection.shape != estimation.shape:
        raise InputError(f"selection has shape {selection.shape} and estimation {estimation.shape}: give equal shapes")
    shape = selection.shape[:-1]
    estimation = estimation.reshape(-1, estimation.shape[-1])
    chosen = np.atleast_1d(selection.argmax(axis=-1))
    radius = radius_of(bounds_of(chosen, estimation, alpha, method))
    prediction = np.where(radius > 0, chosen, ABSTAIN)
    return CertifiedCounts(prediction.reshape(shape)[()], radius.reshape(shape)[()])


def bounds_of(
    chosen: np.ndarray, counts: np.ndarray, alpha: float, method: str, rivals: Rivals | None = None
) -> ProbabilityBounds:
    """Return the bounds (M,) of the chosen classes (M,) from counts (M, K) of fresh samples; no checks.

    With `rivals`, p_b bounds each of these, (M, k); see `bound_rivals`.
    """
    if rivals is not None:
        n_a = counts[np.arange(len(chosen)), chosen]
        return bound_rivals(n_a, rivals.pick(chosen, counts), counts.sum(axis=1), alpha, method)
    is_rival = np.arange(counts.shape[1]) != chosen[:, None]
    others = counts[is_rival].reshape(len(chosen), counts.shape[1] - 1)
    return METHODS[method](counts[np.arange(len(chosen)), chosen], others, counts.sum(axis=1), alpha)


def cohen_bounds(n_a: np.ndarray, rivals: np.ndarray, n: np.ndarray, alpha: float) -> ProbabilityBounds:
    """CERTIFY (Cohen et al. 2019, section 3.2.2): p_a = CP_lo(N_A, n, alpha), p_b = 1 - p_a; fails w. p. <= alpha."""
    p, q = lower_limit(n_a, n, alpha)
    return ProbabilityBounds(p, q, q, p)


def two_sided_bounds(n_a: np.ndarray, rivals: np.ndarray, n: np.ndarray, alpha: float) -> ProbabilityBounds:
    """Bound p_a by CP_lo(N_A, n, .9 alpha) and p_b by min(CP_up(max rival, n, .1 alpha), 1 - p_a).

    The bounds fail with probability <= alpha.

    No Bonferroni correction over the rivals is needed: the true runner-up is one fixed class, and its count is at
    most the largest rival's. The two events share alpha.
    """
    p, q = lower_limit(n_a, n, agreement_level("two-sided", alpha))
    p_b, q_b = upper_limit(rivals.max(axis=1), n, 0.1 * alpha)
    return cap_rival(p, q, p_b, q_b)


def t_certify_bounds(n_a: np.ndarray, rivals: np.ndarray, n: np.ndarray, alpha: float) -> ProbabilityBounds:
    """Split alpha between the two bounds in the best of ten ways: T-CERTIFY as published (Feng et al. 2020).

    For a' in {.1, ..., 1} alpha: p_a = CP_lo(N_A, n, a'), p_b the root of
    sum over c != A of P(Bin(n, p) <= N_c) = alpha - a' (at a' = alpha: 1 - p_a); the split of largest radius is taken.
    Choosing a' after seeing the counts is outside the published theorem: what is provable is failure with
    probability <= 2 alpha, because the bounds are nested in their level. Run at alpha / 2 it is sound at alpha.
    """
    best = cohen_bounds(n_a, rivals, n, alpha)
    best_gap = _gap(best)
    for tenth in range(1, 10):
        p, q = lower_limit(n_a, n, tenth / 10 * alpha)
        p_b, q_b = _joint_upper_limit(rivals, n, (10 - tenth) / 10 * alpha)
        bounds = ProbabilityBounds(p, q, p_b, q_b)
        gap = np.where(p > 0.5, _gap(bounds), -np.inf)
        better = gap > best_gap
        best_gap = np.where(better, gap, best_gap)
        best = ProbabilityBounds(*(np.where(better, getattr(bounds, f), getattr(best, f)) for f in _FIELDS))
    return best


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, float], ProbabilityBounds]] = {
    "two-sided": two_sided_bounds,
    "cohen": cohen_bounds,
    "t-certify": t_certify_bounds,
}
"""Certification procedures by name."""

_FIELDS = ("p_a", "q_a", "p_b", "q_b")


def proved_level(method: str, alpha: float) -> float:
    """Return the probability that a certificate of a method at `alpha` is proved to fail with at most.

    That is alpha, but 2 alpha for "t-certify" (see `t_certify_bounds`). What is said of many certificates, such as the
    certified accuracy of a data set, rests on it.

    >>> proved_level("two-sided", 0.001), proved_level("t-certify", 0.001)
    (0.001, 0.002)
    """
    return min(2 * alpha, 1 - 2.0**-53) if method == "t-certify" else alpha


def agreement_level(method: str, alpha: float) -> float:
    """Return the level of the lower bound of p_a that a method's radius rests on where all samples agree.

    >>> agreement_level("cohen", 0.001), agreement_level("two-sided", 0.001)
    (0.001, 0.0009000000000000001)
    """
    return 0.9 * alpha if method == "two-sided" else alpha


def _gap(bounds: ProbabilityBounds) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(z_lower(bounds.p_a, bounds.q_a) - z_upper(bounds.p_b, bounds.q_b), nan=-np.inf)


def _joint_upper_limit(rivals: np.ndarray, n: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, 1 - p), (M,), p the root of sum over c of P(Bin(n, p) <= N_c) = delta, from the safe side.

    The largest rival alone gives a bracket: its own upper limits at delta and at delta / (K - 1). The logarithm of
    the sum is nearly straight in between, so a bracketed secant (Illinois) ends in a few steps.
    """
    n = np.broadcast_to(n, rivals.shape[:1])
    largest = rivals.max(axis=1)
    # Each distinct count in each row, with its multiplicity: most rivals of many classes have few votes.
    pairs = np.stack([np.repeat(np.arange(len(rivals)), rivals.shape[1]), rivals.ravel()])
    (rows, terms), times = np.unique(pairs, axis=1, return_counts=True)
    p, q = (limit.copy() for limit in upper_limit(largest, n, delta / rivals.shape[1]))
    active = np.flatnonzero((largest < n) & (rivals.shape[1] > 1))
    if not active.size:
        return p, q
    keep = np.isin(rows, active)
    rows, terms, times, sizes = np.searchsorted(active, rows[keep]), terms[keep], times[keep], n[active]

    def log_excess(p: np.ndarray) -> np.ndarray:
        at_most = special.betaincc(terms + 1.0, sizes[rows] - terms, p[rows])
        return np.log(np.bincount(rows, weights=times * at_most, minlength=len(sizes))) - np.log(delta)

    low, high = upper_limit(largest[active], n[active], delta)[0] * (1 - 1e-12), p[active] * (1 + 1e-12)
    root = solve_decreasing(log_excess, low, np.minimum(high, 1.0))
    guard = 1e-11 + 1e-16 * n[active]  # beyond the secant's tolerance and the error of `betaincc` with few votes
    p[active] = np.minimum(root * (1 + guard), p[active])
    q[active] = np.maximum(1 - p[active], q[active])
    return p, q


def solve_decreasing(function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Solve f = 0 for a decreasing f, elementwise, to 1e-12 in its value, by the secant with a kept bracket."""
    f_low, f_high = function(low), function(high)
    root, kept = high, np.zeros(len(low))  # which end the last step kept: -1 low, +1 high
    done = np.zeros(len(low), bool)  # a settled root stays, so that no element sees its neighbours
    for _ in range(100):
        with np.errstate(invalid="ignore", divide="ignore"):
            secant = high - f_high * (high - low) / (f_high - f_low)
        inside = np.where(np.isfinite(secant), np.clip(secant, low, high), (low + high) / 2)
        root = np.where(done, root, inside)
        f_root = function(root)
        done |= (np.abs(f_root) <= 1e-12) | (high - low <= 1e-13 * high)
        if np.all(done):
            break
        above = f_root > 0
        f_low = np.where(above, f_root, np.where(kept < 0, f_low / 2, f_low))
        f_high = np.where(above, np.where(kept > 0, f_high / 2, f_high), f_root)
        low, high = np.where(above, root, low), np.where(above, high, root)
        kept = np.where(above, 1, -1)
    return root
