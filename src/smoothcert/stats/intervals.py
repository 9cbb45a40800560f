"""From the certificates of m images to a whole data set: certified accuracy, its intervals, and ACR.

Each per-image certificate fails with probability at most alpha, independently (noise streams are separate per
image), so of C claims some few may be false. C counts images that are right and certified at radius >= r.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothcert.checks import check_probability, check_weight
from smoothcert.errors import InputError
from smoothcert.stats import binomial
from smoothcert.stats.means import lower_mean

_FIRST = 0.9
"""Share of rho that the interval of which run wins a disputed image gets; the rest bounds how many are disputed."""


@dataclass(frozen=True)
class AccuracyBounds:
    """Certified accuracy at each radius, and lower bounds that hold with probability 1 - rho at one radius
    chosen beforehand (`all_radii`: at all radii at once). All but `claimed` and `m` are fractions, shape (R,).

    Attributes:
        radii: the radii asked for.
        claimed: C(r), the number of images claimed right and robust at r.
        m: the number of images.
        accuracy: C(r) / m, the figure the literature prints.
        test_set: exact bound on the truly robust share of this very test set.
        bernstein: the looser bound of Cohen et al. 2019, appendix D, for the same share.
        population: bound on the probability that a new image is right and robust at r.
        all_radii: bound on the share of this test set, at every radius at once.
    """

    radii: np.ndarray
    claimed: np.ndarray
    m: int
    accuracy: np.ndarray
    test_set: np.ndarray
    bernstein: np.ndarray
    population: np.ndarray
    all_radii: np.ndarray


def certified_accuracy(
    radius: npt.ArrayLike, correct: npt.ArrayLike, radii: npt.ArrayLike, alpha: float = 0.001, rho: float = 0.05
) -> AccuracyBounds:
    """Return the certified accuracy of a data set at `radii`, with its lower bounds.

    Args:
        radius: certified radius of each image, (M,), 0 where abstained.
        correct: whether each image's certified class is its label, (M,) bool; False where abstained.
        radii: radii to report, (R,), in the units of `radius`.
        alpha: failure probability of each certificate.
        rho: failure probability of each bound.
    Raises:
        InputError: empty or mismatched arrays, negative or NaN radii, alpha or rho outside (0, 1).

    >>> a = certified_accuracy([1.2, 0.4, 0.0, 2.0], [True, True, False, False], [0.0, 1.0])
    >>> a.accuracy.tolist()
    [0.5, 0.25]
    """
    radius, correct = _check_results(radius, correct)
    grid = check_radii(radii)
    return accuracy_of_counts(grid, claims(radius, correct, grid), len(radius), alpha, rho)


def check_radii(radii: npt.ArrayLike) -> np.ndarray:
    """Return `radii` as (R,) floats, or raise InputError unless they are finite numbers of at least 0."""
    grid = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    if grid.ndim != 1 or grid.size == 0 or not np.all(np.isfinite(grid) & (grid >= 0)):
        raise InputError(f"radii must be finite numbers of at least 0, got {radii!r}")
    return grid


def claims(radius: np.ndarray, correct: np.ndarray, radii: npt.ArrayLike) -> np.ndarray:
    """Return C(r) at each of `radii` (R,): the number of images (M,) that are right and certified at radius >= r."""
    sorted_radii = np.sort(radius[correct])
    return len(sorted_radii) - np.searchsorted(sorted_radii, radii, side="left")


def accuracy_of_counts(radii: np.ndarray, claimed: np.ndarray, m: int, alpha: float, rho: float) -> AccuracyBounds:
    """Return `certified_accuracy` from the counts C(r) of m images; `claimed` (..., R) may hold several runs at once.

    Every bound grows with `claimed`.
    """
    alpha, rho = check_probability("alpha", alpha), check_probability("rho", rho)
    return AccuracyBounds(
        radii=radii, claimed=claimed, m=m, accuracy=claimed / m,
        test_set=truly_robust(claimed, m, alpha, rho) / m,
        bernstein=bernstein_bound(claimed, m, alpha, rho),
        population=population_bound(claimed, m, alpha, rho),
        all_radii=np.maximum(claimed - false_claims(m, alpha, rho), 0) / m,
    )


def truly_robust(claimed: npt.ArrayLike, m: int, alpha: float, rho: float) -> np.ndarray:
    """Return T_L = min {T : P(Bin(m - T, alpha) >= C - T) > rho}: at least so many of the C claims are true.

    The probability grows with T (one image fewer that may fail, one false claim fewer needed), so T is bisected.
    """
    claimed = np.asarray(claimed, dtype=np.int64)
    low, high = np.full_like(claimed, -1), claimed.copy()  # at T = C the probability is 1 > rho
    while np.any(high - low > 1):
        middle = (low + high) // 2
        enough = binomial.tail(claimed - middle, m - middle, alpha) * (1 + binomial.SAFETY) > rho
        step = high - low > 1
        low, high = np.where(step & ~enough, middle, low), np.where(step & enough, middle, high)
    return high


def bernstein_bound(claimed: npt.ArrayLike, m: int, alpha: float, rho: float) -> np.ndarray:
    """Return C/m - alpha - sqrt(2 alpha (1 - alpha) ln(1/rho) / m) - ln(1/rho) / (3m): Cohen et al. 2019, app. D."""
    log = np.log(1 / rho)
    bound = np.asarray(claimed) / m - alpha - np.sqrt(2 * alpha * (1 - alpha) * log / m) - log / (3 * m)
    return np.maximum(bound * (1 - binomial.SAFETY), 0.0)


def population_bound(claimed: npt.ArrayLike, m: npt.ArrayLike, alpha: float, rho: float) -> np.ndarray:
    """Return (CP_lo(C, m, rho) - alpha) / (1 - alpha), clipped at 0: with probability 1 - rho, at most the share pi of
    new images that are right and robust at r. There is no upper limit.

    Proof. Let the m images be independent draws of one law, chosen before any of their votes were seen, each with noise
    of its own. An image is claimed with probability t <= 1 if it is right and robust, and with a <= alpha if it is not.
    C is therefore Bin(m, theta) with theta = pi t + (1 - pi) a <= pi + (1 - pi) alpha, that is, pi >= (theta - alpha) /
    (1 - alpha), and CP_lo(C, m, rho) <= theta with probability 1 - rho. Nothing is asked of t or of how an image's
    certificate is found, but that m, r, alpha and the whole design are fixed beforehand; they may depend on other
    images, such as a pilot's. At t = 1 and a = alpha the bound fails as often as CP_lo does.
    """
    lower = np.asarray(binomial.clopper_pearson(claimed, m, rho))
    return np.maximum((lower - alpha) / (1 - alpha) * (1 - binomial.SAFETY), 0.0)


def false_claims(m: int, alpha: float, rho: float) -> int:
    """Return q = min {q : P(Bin(m, alpha) > q) <= rho}: no more false claims than this, at any radius."""
    low, high = -1, m
    while high - low > 1:
        middle = (low + high) // 2
        if binomial.tail(middle + 1, m, alpha) * (1 + binomial.SAFETY) <= rho:
            high = middle
        else:
            low = middle
    return high


def average_certified_radius(radius: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """Return the ACR (Zhai et al. 2020): the mean radius over all images, with 0 for wrong or abstained ones.

    >>> average_certified_radius([1.0, 3.0, 0.5, 0.0], [True, False, True, False])
    0.375
    """
    radius, correct = _check_results(radius, correct)
    return float(np.mean(np.where(correct, radius, 0.0)))


def acr_limit(
    radius: npt.ArrayLike, correct: npt.ArrayLike, alpha: float = 0.001, rho: float = 0.05, widest: float | None = None
) -> float:
    """Return a lower limit of the mean true radius, 0 for images that are wrong, with confidence 1 - rho.

    Args:
        radius, correct, alpha, rho: as for `certified_accuracy`.
        widest: for new images: a radius that none can exceed, fixed beforehand, such as `max_radius(n, alpha, sigma)`.
            None: for these images.

    A certified radius exceeds the true one with probability alpha at most. *New images*: so its mean is at most the
    true one plus alpha times `widest`, and `lower_mean` bounds it. *These images*: no more than q certificates are
    false (`false_claims`), and the q largest radii are the most that these can add.

    >>> radius, correct = np.linspace(0, 2, 1000), np.ones(1000, bool)
    >>> round(acr_limit(radius, correct), 3), round(acr_limit(radius, correct, widest=3.8), 3)
    (0.994, 0.903)
    """
    radius, correct = _check_results(radius, correct)
    alpha, rho = check_probability("alpha", alpha), check_probability("rho", rho)
    credit = np.where(correct, radius, 0.0)
    if widest is None:
        kept = np.sort(credit)[:len(credit) - false_claims(len(credit), alpha, rho)]
        return float(kept.sum() / len(credit) * (1 - binomial.SAFETY))
    if check_weight("widest", widest) == 0:
        return 0.0
    shares = np.minimum(credit / widest, 1.0)
    return max(float((lower_mean(shares, rho) - alpha) * widest) * (1 - binomial.SAFETY), 0.0)


def _check_results(radius: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    radius, correct = np.asarray(radius, dtype=np.float64), np.asarray(correct)
    if radius.ndim != 1 or radius.shape != correct.shape:
        raise InputError(f"radius and correct must both have shape (M,), got {radius.shape} and {correct.shape}")
    if radius.size == 0:
        raise InputError("there are no images: radius and correct are empty")
    if correct.dtype != np.bool_ and not np.all(np.isin(correct, (0, 1))):
        raise InputError("correct must hold true or false for each image")
    if not np.all(radius >= 0):
        raise InputError("radius must not be negative or NaN: use 0 where the certificate abstains")
    return radius, correct.astype(bool)


def paired_interval(only_first: int, only_second: int, m: int, rho: float) -> tuple[float, float]:
    """Return an interval of p_1 - p_2 that holds with probability at least 1 - rho.

    Of m images, independent and alike, `only_first` are right in the first run alone (probability p_10 each) and
    `only_second` in the second alone (p_01); p_1 - p_2 = p_10 - p_01 = d (2 q - 1), d = p_10 + p_01 the probability of
    a disputed image, q = p_10 / d that the first run has it. Given the number D of disputed images `only_first` is
    Bin(D, q), so the Clopper-Pearson interval of q at level .9 rho (which agrees in sign with McNemar's exact test:
    McNemar 1947; Fay & Lumbard 2021) and that of d at .1 rho hold together with probability 1 - rho, for every m.
    """
    disputed = only_first + only_second
    q_low, q_high = _two_sided(only_first, disputed, _FIRST * rho) if disputed else (0.0, 1.0)
    d_low, d_high = _two_sided(disputed, m, (1 - _FIRST) * rho)
    low, high = 2 * q_low - 1, 2 * q_high - 1
    low, high = low * (d_low if low > 0 else d_high), high * (d_high if high > 0 else d_low)
    return max(low - abs(low) * binomial.SAFETY, -1.0), min(high + abs(high) * binomial.SAFETY, 1.0)


def _two_sided(k: int, n: int, rho: float) -> tuple[float, float]:
    return float(binomial.clopper_pearson(k, n, rho / 2)), float(binomial.clopper_pearson(k, n, rho / 2, "upper"))
