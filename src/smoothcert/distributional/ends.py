"""What the ends of ascents say: the paper's bound with its label, and the worst case that was found. No torch.

See `bounds` for the two forms of the bound, `concavity` for what makes one a certificate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from smoothcert.distributional.concavity import Standing, gradient_error
from smoothcert.distributional.limits import check_rho, round_up
from smoothcert.distributional.moments import LossMoments
from smoothcert.errors import InputError


@dataclass(frozen=True, eq=False)
class Ends:
    """Where the ascents from m images ended at one gamma; arrays (m,) float64.

    Attributes:
        loss: l_hat(x_K), a mean over fresh noise.
        cost: ||x_K - x0||^2.
        slope: norm of the bracket's gradient at x_K, a mean over fresh noise (its own error included).
        moments, steep: of fresh keyed samples at x_K, and that norm by Stein's estimate from them; only where the bound
            outside is to be a certificate.
    """

    loss: np.ndarray
    cost: np.ndarray
    slope: np.ndarray
    moments: LossMoments | None = None
    steep: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: Sequence["Ends"]) -> Self:
        """The ends of all parts, in their order."""
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
        value: what the bound adds to gamma rho: an upper limit of E phi_gamma, rounded up, for a certificate; else the
            estimate itself.
        estimate: mean of l_hat(x_K) - gamma ||x_K - x0||^2.
        label: "certificate" or "estimate".
        reason: why it is only an estimate.
        rho: mean of ||x_K - x0||^2, the transport cost of what the ascent found.
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
    """The bound at one rho: `label` is that of the surrogate whose gamma made it least."""

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
        noise_cost: d sigma^2, what the noise adds to the cost inside; 0 where there is no noise.
    """

    form: str
    surrogates: tuple[Surrogate, ...]
    images: int
    alpha: float
    noise_cost: float = 0.0

    def at(self, rho: float) -> BoundAt:
        """The least bound over the gammas, with its label. Raises InputError for rho < 0."""
        return _least(check_rho(rho), self.surrogates)

    def certificate(self, rho: float) -> BoundAt:
        """The least bound that is a certificate. Raises InputError, with the reason, where there is none."""
        certified = [s for s in self.surrogates if s.label == "certificate"]
        if not certified:
            raise InputError(f"none of these bounds is a certificate: {max(self.surrogates, key=_gamma).reason}")
        return _least(check_rho(rho), certified)


@dataclass(frozen=True)
class Terms:
    """What a bound's gammas share.

    Attributes:
        ceiling: M; None where the loss has none.
        sigma: noise level outside; None inside.
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
    gammas: Sequence[float], ends: Sequence[Ends], standings: Sequence[Standing], terms: Terms
) -> SurrogateBound:
    """The bound of m images, independent draws of the law, from where the ascents ended at each gamma."""
    surrogates = tuple(_surrogate(gamma, one, standing, terms, len(gammas))
                       for gamma, one, standing in zip(gammas, ends, standings, strict=True))
    noise_cost = 0.0 if terms.sigma is None else terms.dimension * terms.sigma**2
    return SurrogateBound("inside" if terms.sigma is None else "outside", surrogates, len(ends[0].loss), terms.alpha,
                          noise_cost)


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Laws that an ascent found: each is within rho of the images' own law and has this expected loss.

    An estimate from below of the worst case at that rho: a bound at rho that lies under it is none.

    Attributes:
        gamma: the prices of distance, (G,); infinite where nothing was moved.
        rho: mean ||x* - x0||^2, (G,).
        loss: mean l_hat(x*), (G,), under fresh noise.
    """

    gamma: np.ndarray
    rho: np.ndarray
    loss: np.ndarray

    def at(self, rho: float) -> float:
        """The largest loss found within a transport cost; NaN below all that was tried. Raises InputError for rho < 0.

        Between two laws lies their mixture, whose cost and loss are the weighted means of theirs.
        """
        order = np.argsort(self.rho, kind="stable")
        loss = np.maximum.accumulate(self.loss[order])
        return float(np.interp(check_rho(rho), self.rho[order], loss, left=math.nan))


def _surrogate(gamma: float, ends: Ends, standing: Standing, terms: Terms, several: int) -> Surrogate:
    residual = ends.slope**2 / (4 * gamma)
    estimate = float(np.mean(ends.loss - gamma * ends.cost))
    value = estimate if standing.label == "estimate" else _certified(gamma, ends, standing, terms, several)
    return Surrogate(gamma, value, estimate, standing.label, standing.reason, float(ends.cost.mean()),
                     float(ends.loss.mean()), float(residual.mean()), float(np.mean(residual <= terms.tolerance)))


def _certified(gamma: float, ends: Ends, standing: Standing, terms: Terms, several: int) -> float:
    """An upper limit of E phi_gamma: what a strongly concave top adds, then M sqrt(ln(several / share) / (2 m))."""
    m, ceiling = len(ends.loss), terms.ceiling
    if ceiling is None:
        raise ValueError("a loss without a ceiling has no certificate")
    if terms.sigma is None:
        phi, share = ends.loss - gamma * ends.cost + ends.slope**2 / (2 * standing.curvature), terms.alpha
    else:
        phi, share = _top(gamma, ends, standing, terms, terms.alpha / (4 * m * several)), terms.alpha / 2
    mean = float(np.mean(np.clip(phi, 0.0, ceiling)))
    return min(round_up(mean + ceiling * math.sqrt(math.log(several / share) / (2 * m))), ceiling)


def _top(gamma: float, ends: Ends, standing: Standing, terms: Terms, alpha: float) -> np.ndarray:
    """Upper limits (m,) of phi, each at level 2 alpha: the value at x_K, and what a strongly concave top adds."""
    moments, steep, ceiling, sigma = ends.moments, ends.steep, terms.ceiling, terms.sigma
    if moments is None or steep is None or ceiling is None or sigma is None:
        raise ValueError("a certificate needs fresh samples")
    steep = steep + gradient_error(terms.dimension, moments.n, ceiling, sigma, alpha)
    return ceiling * moments.limits(alpha) - gamma * ends.cost + steep**2 / (2 * standing.curvature)


def _least(rho: float, surrogates: Sequence[Surrogate]) -> BoundAt:
    values = [s.gamma * rho + s.value for s in surrogates]
    best = int(np.argmin(values))
    chosen = surrogates[best]
    value = round_up(values[best]) if chosen.label == "certificate" else values[best]
    return BoundAt(rho, value, chosen.gamma, chosen.label)


def _gamma(surrogate: Surrogate) -> float:
    return surrogate.gamma
