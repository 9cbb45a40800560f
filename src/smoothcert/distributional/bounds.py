"""The bound of Yang et al. 2021 from where ascents ended, with its label, and the worst case that they found.

See `search` for the two forms of the bound, and `concavity` for the conditions under which one is a certificate.
Nothing here needs torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from smoothcert.distributional.certificates import LossMoments
from smoothcert.distributional.concavity import Standing, gradient_error
from smoothcert.distributional.limits import check_rho, round_up
from smoothcert.errors import InputError


@dataclass(frozen=True, eq=False)
class Ends:
    """The ends of the ascents from m images at one gamma; arrays (m,) float64.

    Attributes:
        loss: l_hat(x_K), a mean over fresh noise.
        cost: ||x_K - x0||^2.
        slope: norm of the bracket's gradient at x_K, a mean over fresh noise (including its own error).
        moments, steep: of fresh keyed samples at x_K, and the same norm by Stein's estimate from them; only if the
            outside bound is to be a certificate.
    """

    loss: np.ndarray
    cost: np.ndarray
    slope: np.ndarray
    moments: LossMoments | None = None
    steep: np.ndarray | None = None

    @classmethod
    def join(cls, parts: Sequence["Ends"]) -> Self:
        """Return the ends of all parts, in their order."""
        loss, cost, slope = (np.concatenate([getattr(part, name) for part in parts])
                             for name in ("loss", "cost", "slope"))
        moments = [part.moments for part in parts if part.moments is not None]
        steep = [part.steep for part in parts if part.steep is not None]
        if not moments:
            return cls(loss, cost, slope)
        mean, variance = (np.concatenate([getattr(part, name) for part in moments]) for name in ("mean", "variance"))
        return cls(loss, cost, slope, LossMoments(moments[0].n, mean, variance), np.concatenate(steep))


@dataclass(frozen=True)
class Surrogate:
    """phi_gamma over a data set.

    Attributes:
        gamma: price of a unit of squared distance.
        value: the bound less gamma rho: an upper limit of E phi_gamma, rounded up, for a certificate; else the
            estimate itself.
        estimate: mean of l_hat(x_K) - gamma ||x_K - x0||^2.
        label: "certificate" or "estimate".
        reason: the reason why it is only an estimate.
        rho: mean of ||x_K - x0||^2, the transport cost of the law that the ascent found.
        loss: mean of l_hat(x_K), the expected loss there.
        residual: mean of ||gradient||^2 / (4 gamma) at x_K, measured with fresh noise.
        solved: share of the images whose residual is within the tolerance.
    """

    gamma: float
    value: float
    estimate: float
    label: str
    reason: str
    rho: float
    loss: float
    residual: float
    solved: float


@dataclass(frozen=True)
class BoundAt:
    """The bound at one rho, with the gamma that made it least and the label of that gamma's surrogate."""

    rho: float
    value: float
    gamma: float
    label: str


@dataclass(frozen=True)
class SurrogateBound:
    """gamma rho + value(gamma) for a list of gammas. With probability 1 - alpha all its certificates hold at once.

    Attributes:
        form: "inside" or "outside".
        surrogates: one a gamma, in the order given.
        images: m.
        alpha: failure probability of its certificates.
        noise_cost: d sigma^2, the part of the inside form's cost that is the noise's; 0 without noise.
    """

    form: str
    surrogates: tuple[Surrogate, ...]
    images: int
    alpha: float
    noise_cost: float = 0.0

    def at(self, rho: float) -> BoundAt:
        """Return the least bound over the gammas, with its label. Raises InputError for rho < 0."""
        return _least(check_rho(rho), self.surrogates)

    def certificate(self, rho: float) -> BoundAt:
        """Return the least bound that is a certificate. Raises InputError, with the reason, if there is none."""
        certified = [s for s in self.surrogates if s.label == "certificate"]
        if not certified:
            dearest = max(self.surrogates, key=lambda surrogate: surrogate.gamma)
            raise InputError(f"none of these bounds is a certificate: {dearest.reason}")
        return _least(check_rho(rho), certified)


@dataclass(frozen=True)
class BoundTerms:
    """The terms that all gammas of a bound share.

    Attributes:
        ceiling: M; None if the loss has none.
        sigma: noise level of the outside form; None for the inside form.
        dimension: d.
        alpha: failure probability of all its certificates together.
        tolerance: residual up to which an image counts as solved.
    """

    ceiling: float | None
    sigma: float | None
    dimension: int
    alpha: float
    tolerance: float


def bound_from(
    gammas: Sequence[float], ends: Sequence[Ends], standings: Sequence[Standing], terms: BoundTerms
) -> SurrogateBound:
    """Return the bound from the ends of the ascents at each gamma, for m images drawn independently from the law."""
    surrogates = []
    for gamma, found, standing in zip(gammas, ends, standings, strict=True):
        residual = found.slope**2 / (4 * gamma)
        estimate = float(np.mean(found.loss - gamma * found.cost))
        value = estimate if standing.label == "estimate" else _upper_limit(gamma, found, standing, terms, len(gammas))
        surrogates.append(Surrogate(
            gamma, value, estimate, standing.label, standing.reason, float(found.cost.mean()),
            float(found.loss.mean()), float(residual.mean()), float(np.mean(residual <= terms.tolerance))))
    noise_cost = 0.0 if terms.sigma is None else terms.dimension * terms.sigma**2
    return SurrogateBound("inside" if terms.sigma is None else "outside", tuple(surrogates), len(ends[0].loss),
                          terms.alpha, noise_cost)


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Laws that an ascent found: each is within rho of the images' own law and has this expected loss.

    They estimate the worst case at that rho from below: a number below them is not a bound.

    Attributes:
        gamma: the prices of distance, (G,); infinite where nothing was moved.
        rho: mean ||x* - x0||^2, (G,).
        loss: mean l_hat(x*), (G,), under fresh noise.
    """

    gamma: np.ndarray
    rho: np.ndarray
    loss: np.ndarray

    def at(self, rho: float) -> float:
        """Return the largest loss found within a transport cost, or NaN below all that was tried.

        Between two laws lies their mixture, whose cost and loss are the weighted means of theirs. Raises InputError for
        rho < 0.
        """
        order = np.argsort(self.rho, kind="stable")
        loss = np.maximum.accumulate(self.loss[order])
        return float(np.interp(check_rho(rho), self.rho[order], loss, left=math.nan))


def _upper_limit(gamma: float, ends: Ends, standing: Standing, terms: BoundTerms, several: int) -> float:
    """Return an upper limit of E phi_gamma, one of `several` that together fail with probability at most alpha.

    phi is at most its value at x_K and ||gradient||^2 / (2 curvature), as its top is strongly concave. Its mean over
    the images is within M sqrt(ln(several / share) / (2 m)) of its expectation.
    """
    m, ceiling, sigma = len(ends.loss), terms.ceiling, terms.sigma
    if ceiling is None:
        raise ValueError("a loss without a ceiling has no certificate")
    if sigma is None:
        share, loss, slope = terms.alpha, ends.loss, ends.slope
    elif ends.moments is None or ends.steep is None:
        raise ValueError("a certificate needs fresh samples")
    else:
        share, alpha = terms.alpha / 2, terms.alpha / (4 * m * several)
        loss = ceiling * ends.moments.limits(alpha)
        slope = ends.steep + gradient_error(terms.dimension, ends.moments.n, ceiling, sigma, alpha)
    phi = loss - gamma * ends.cost + slope**2 / (2 * standing.curvature)
    mean = float(np.mean(np.clip(phi, 0.0, ceiling)))
    return min(round_up(mean + ceiling * math.sqrt(math.log(several / share) / (2 * m))), ceiling)


def _least(rho: float, surrogates: Sequence[Surrogate]) -> BoundAt:
    values = [s.gamma * rho + s.value for s in surrogates]
    best = int(np.argmin(values))
    chosen = surrogates[best]
    value = round_up(values[best]) if chosen.label == "certificate" else values[best]
    return BoundAt(rho, value, chosen.gamma, chosen.label)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Both bounds of one network at the same cost, ||x + z - x0||^2, as in Theorem 3 of Yang et al. 2021.

    By Jensen's inequality the smoothed one is at most the other at every gamma:
    sup_x E_z {...} <= E_z sup_x {...}, and E ||x + z - x0||^2 = ||x - x0||^2 + d sigma^2.

    Attributes:
        gamma: (G,).
        smoothed: mean of sup_x E_z { l(x + z) - gamma ||x + z - x0||^2 }: outside less gamma d sigma^2.
        base: mean of E_z sup_x { the same }: inside.
        noise_cost: d sigma^2.
        label: "estimate".
    """

    gamma: np.ndarray
    smoothed: np.ndarray
    base: np.ndarray
    noise_cost: float
    label: str = "estimate"

    def at(self, rho: float) -> tuple[float, float]:
        """Return both bounds, each with its best gamma, if the adversary's own moves cost at most rho."""
        cost = self.gamma * (check_rho(rho) + self.noise_cost)
        return float(np.min(cost + self.smoothed)), float(np.min(cost + self.base))


def side_by_side(outside: SurrogateBound, inside: SurrogateBound) -> SideBySide:
    """Return Theorem 3 for two bounds of one model over the same images and gammas. Raises InputError for others."""
    gammas = [tuple(s.gamma for s in bound.surrogates) for bound in (outside, inside)]
    if (outside.form, inside.form) != ("outside", "inside") or gammas[0] != gammas[1] \
            or outside.images != inside.images:
        raise InputError("side_by_side takes an outside and an inside bound, in this order, of the same images at the "
                         f"same gammas; got {outside.form} and {inside.form}, {outside.images} and {inside.images} "
                         f"image(s), gammas {gammas[0]} and {gammas[1]}")
    gamma = np.array(gammas[0])
    smoothed, base = (np.array([s.estimate for s in bound.surrogates]) for bound in (outside, inside))
    return SideBySide(gamma, smoothed - gamma * outside.noise_cost, base, outside.noise_cost)
