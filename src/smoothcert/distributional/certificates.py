"""The closed certificate, from confidence limits of l_hat to the worst expected loss without inner optimisation.

Nothing here needs torch.

For 0 <= l <= M, x -> sigma Phi^-1(l_hat(x) / M) is 1-Lipschitz (Salman et al. 2019, Lemma 2, for l / M). Hence, for all
laws P within E ||x - x0||^2 <= rho of P0 and every gamma > 0,

    E_P l_hat  <=  gamma rho + E_P0 phi(x0)
    phi(x0) = sup_{t >= 0} [ M Phi(Phi^-1(l_hat(x0) / M) + t/sigma) - gamma t^2 ]

With u_i >= l_hat(x_i) for m independent images of P0, phi is bounded by the mean of phi(u_i) plus
M sqrt(ln(2/alpha) / (2 m)). As phi is an increasing function of l_hat(x0) alone, with values in [0, M], that last step
is the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart (1990), and holds for every gamma and rho at once: gamma
may be chosen after the images were seen, at no price.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.checks import check_positive, check_probability
from smoothcert.distributional.concavity import concavity_threshold
from smoothcert.distributional.limits import CLIP_IT, check_gammas, check_rho, round_up
from smoothcert.errors import InputError
from smoothcert.stats.binomial import check_trials, clopper_pearson
from smoothcert.stats.histories import check_counts
from smoothcert.stats.means import upper_mean
from smoothcert.stats.radius import z_upper

_HALVINGS = 24
_ROOT = math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class RobustLoss:
    """Bounds for every law within transport cost rho, with losses rounded up.

    Attributes:
        rho: bound on E ||x - x0||^2, in squared units of the image; `rho ** 0.5` is the eps of a pointwise attack.
        value: bound on the expected loss under any such law.
        sample: the same for laws around these very images, each with weight 1/m, in place of the law they came from.
        gamma: the price of distance that gave `value`; infinite at rho = 0.
        label: "certificate".
    """

    rho: float
    value: float
    sample: float
    gamma: float
    label: str = "certificate"


@dataclass(frozen=True, eq=False)
class ClosedCertificate:
    """Confidence limits of l_hat on m images, and the bounds that follow from them at every rho at once.

    All of its values hold together with probability at least 1 - alpha, for images that are independent draws of P0.

    Attributes:
        limits: u_i, (m,) float64 in [0, ceiling]; together they fail with probability at most alpha / 2.
        sigma: noise level.
        ceiling: M, the most the loss can be.
        alpha: failure probability of the whole.
    """

    limits: np.ndarray
    sigma: float
    ceiling: float
    alpha: float

    @property
    def images(self) -> int:
        return len(self.limits)

    @property
    def sampling_error(self) -> float:
        """The price of passing from these images to the law they came from: M sqrt(ln(2/alpha) / (2 m))."""
        return self.ceiling * math.sqrt(math.log(2 / self.alpha) / (2 * self.images))

    def at(self, rho: float) -> RobustLoss:
        """Return the bound at a transport cost, with the gamma that makes it least. Raises InputError for rho < 0."""
        rho = check_rho(rho)
        if rho == 0:
            return self._bound(rho, math.inf)
        most = math.log(self.ceiling / (2 * _ROOT * self.sigma * math.sqrt(rho)))  # at the optimum E t^2 = rho
        from scipy import optimize  # the tables of certify do without it, and it takes a fifth of a second

        found = optimize.minimize_scalar(lambda log: self._sample(rho, math.exp(log)), method="bounded",
                                         bounds=(most - 20, most), options={"xatol": 1e-4})
        return self._bound(rho, math.exp(float(found.x)))

    def value(self, rho: float, gamma: float) -> float:
        """Return the bound at a transport cost and a given price of distance, rounded up. Raises InputError."""
        return self._bound(check_rho(rho), check_gammas(gamma)[0]).value

    def _bound(self, rho: float, gamma: float) -> RobustLoss:
        """Return the bound at one gamma. With an infinite gamma nothing moves, and rho must be 0."""
        sample = self._sample(rho, gamma)
        return RobustLoss(rho, min(round_up(sample + self.sampling_error), self.ceiling),
                          min(round_up(sample), self.ceiling), gamma)

    def _sample(self, rho: float, gamma: float) -> float:
        values, weights = self._distinct
        phi = values if math.isinf(gamma) else surrogate(values, gamma, self.sigma, self.ceiling)
        return float(phi @ weights) + (rho * gamma if rho else 0.0)

    @cached_property
    def _distinct(self) -> tuple[np.ndarray, np.ndarray]:
        values, repeats = np.unique(self.limits, return_counts=True)
        return values, repeats / self.images


def certificate_from_counts(errors: npt.ArrayLike, n: npt.ArrayLike, sigma: float, alpha: float) -> ClosedCertificate:
    """Return the certificate of the noisy base classifier's 0-1 loss, from its errors on noisy copies of each image.

    Args:
        errors: (m,) how many of an image's n noisy copies were not classified as its label; see `errors_of`.
        n: noisy copies, one number or (m,), fixed before they were drawn. The counts at which a sequential run stopped
            were not fixed: limits from its last look would not hold.
        sigma: noise level of these copies.
        alpha: failure probability of the certificate.
    Raises:
        InputError: no images, counts that do not fit n, sigma or alpha out of range.

    >>> bound = certificate_from_counts(errors=[10] * 5000, n=1000, sigma=0.5, alpha=0.05).at(rho=0.25**2)
    >>> round(bound.value, 3), bound.label
    (0.107, 'certificate')
    """
    alpha = check_probability("alpha", alpha)
    errors, n = np.broadcast_arrays(*check_trials(np.atleast_1d(errors), n))
    limits = np.asarray(clopper_pearson(errors, n, alpha / (2 * max(len(errors), 1)), "upper"))
    return certificate_from_limits(limits, sigma, 1.0, alpha)


def certificate_from_limits(limits: npt.ArrayLike, sigma: float, ceiling: float, alpha: float) -> ClosedCertificate:
    """Return the certificate of upper limits of l_hat, one an image, that together fail with probability alpha / 2.

    With m images, give limits at level alpha / (2 m) each. Raises InputError for limits outside [0, ceiling], an
    infinite ceiling (the loss is unbounded: clip it), or other values out of range.
    """
    if not (isinstance(ceiling, int | float) and math.isfinite(ceiling)):
        raise InputError(f"the certificate needs a loss with a finite ceiling, got {ceiling!r}: {CLIP_IT}")
    values = np.array(limits, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise InputError(f"limits must have shape (m,) with at least one image, got shape {values.shape}")
    if not np.all((values >= 0) & (values <= ceiling)):
        raise InputError(f"limits of the expected loss must lie in [0, {ceiling}], got {values}")
    values.flags.writeable = False
    return ClosedCertificate(values, check_positive("sigma", sigma), check_positive("ceiling", ceiling),
                             check_probability("alpha", alpha))


def errors_of(counts: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (errors, n), (m,) each: how many of an image's votes (m, K) are not for its label, and how many there are.

    Raises InputError for labels that are not classes of the counts.
    """
    votes, labels = np.atleast_2d(check_counts("counts", counts)), np.atleast_1d(np.asarray(labels))
    if labels.shape != votes.shape[:1] or labels.dtype.kind not in "iu" \
            or not np.all((labels >= 0) & (labels < votes.shape[1])):
        raise InputError(f"labels must name one of {votes.shape[1]} classes for each of {len(votes)} image(s), "
                         f"got {labels}")
    n = votes.sum(axis=1)
    return n - votes[np.arange(len(votes)), labels], n


@dataclass(frozen=True, eq=False)
class LossMoments:
    """Moments of the n losses of each image's noisy copies, in units of the ceiling.

    Attributes:
        n: noisy copies an image.
        mean, variance: (B,) float64, the variance unbiased (0 at n = 1).
        gradient: (B, d) Stein's estimate of grad l_hat, (1/n) sum_j (l_j - 1/2) z_j / sigma^2, if asked for.
    """

    n: int
    mean: np.ndarray
    variance: np.ndarray
    gradient: np.ndarray | None = None

    def limits(self, alpha: float, binary: bool = False) -> np.ndarray:
        """Return upper limits (B,) of l_hat / ceiling, each at level alpha; exact (Clopper-Pearson) if binary."""
        if binary:
            return np.asarray(clopper_pearson(np.rint(self.mean * self.n), self.n, alpha, "upper"))
        return upper_mean(self.mean, self.variance, self.n, alpha)


def certificate_from_moments(
    moments: LossMoments, sigma: float, ceiling: float, alpha: float, binary: bool = False
) -> ClosedCertificate:
    """Return the closed certificate from the moments of m images' losses, each image's limit at level alpha / (2 m).

    Raises InputError for no images, and for sigma, ceiling or alpha out of range.
    """
    limits = moments.limits(alpha / (2 * max(len(moments.mean), 1)), binary)
    return certificate_from_limits(np.minimum(np.nextafter(limits * ceiling, np.inf), ceiling), sigma, ceiling, alpha)


def surrogate(limits: npt.ArrayLike, gamma: float, sigma: float, ceiling: float = 1.0) -> np.ndarray:
    """Return phi, the sup over t >= 0 of ceiling Phi(Phi^-1(u / ceiling) + t/sigma) - gamma t^2, rounded up.

    Where gamma > .5 concavity_threshold(ceiling, sigma) the bracket is concave. Otherwise it can have two tops, one on
    the concave stretch before Phi steepens, and one after it; both are found by bisection, and the tangent at the left
    end of the last bracket bounds the top from above.

    >>> surrogate([0.0, 0.1, 1.0], gamma=1.0, sigma=1.0).round(4)
    array([0.    , 0.1087, 1.    ])
    """
    u = np.asarray(limits, dtype=np.float64) / ceiling
    u = np.minimum(np.where(u > 0, np.nextafter(u, 2.0), u), 1.0)
    z = np.clip(z_upper(u, 1 - u), -40.0, 40.0)  # beyond, Phi is 0 or 1
    kappa = gamma * sigma**2 / ceiling * (1 - 2.0**-48)
    most = min(1 / (2 * _ROOT * kappa), kappa**-0.5)
    bends = _bends(kappa)
    if bends is None:
        top = _top(z, np.zeros_like(z), np.full_like(z, most), kappa)
    else:
        first, second = bends
        start = np.maximum(second - z, 0.0)
        top = _top(z, start, np.maximum(most, start), kappa)
        early = _top(z, np.zeros_like(z), np.maximum(first - z, 0.0), kappa)
        top = np.maximum(top, early)
    top = np.minimum(top * (1 + 2.0**-44) + 2.0**-60, 1.0)
    return ceiling * np.where(u > 0, top, 0.0)


def _top(z: np.ndarray, low: np.ndarray, high: np.ndarray, kappa: float) -> np.ndarray:
    """Bound g(t) = Phi(z + t) - kappa t^2 from above over a stretch on which g is concave; beyond `high` g falls."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rising = _slope(z, middle, kappa) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    ahead = np.maximum(_slope(z, low, kappa), 0.0) * (high - low)
    return special.ndtr(z + low) - kappa * low**2 + ahead


def _slope(z: np.ndarray, t: np.ndarray, kappa: float) -> np.ndarray:
    return np.exp(-((z + t) ** 2) / 2) / _ROOT - 2 * kappa * t


def _bends(kappa: float) -> tuple[float, float] | None:
    """Return the s < 0 at which (Phi(s) - kappa (s - z)^2)'' = -s phi(s) - 2 kappa changes sign, None if there is none.

    s^2 exp(-s^2) = 8 pi kappa^2, solved by both real branches of Lambert's W.
    """
    if kappa >= concavity_threshold(1.0, 1.0) / 2:
        return None
    square = -min(8 * math.pi * kappa**2, math.exp(-1))
    return (-math.sqrt(-special.lambertw(square, -1).real) if square else -math.inf,
            -math.sqrt(max(-special.lambertw(square, 0).real, 0.0)))
