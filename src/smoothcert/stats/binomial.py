"""Exact binomial limits, with complements that never cancel, for n up to 1e10.

Clopper & Pearson 1934. The limits are quantiles of Beta laws. No SciPy function gives them to full precision
everywhere: `bdtri` turns NaN near n = 3e9, `binomtest().proportion_ci` loses 5 to 58 % at k = 1, `betaincinv` up to
1 % of 1 - p with a thousand failures in 1e10 trials (SciPy 1.17). Here the last is the start, and Newton's method with
Loader's point probabilities polishes it (C. Loader 2000, "Fast and accurate computation of binomial probabilities").
With few successes or failures among many trials `betainc` itself errs by up to 1e-8, so there the tail is summed as a
series of positive terms.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.errors import InputError

SAFETY = 2.0**-44
"""Relative step to the safe side: five times the largest error of a limit found against long arithmetic, 1.1e-14."""

_FEW = 2000  # up to so many successes, or failures, the tail is summed as a series


def clopper_pearson(
    k: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike,
    side: Literal["lower", "upper"] = "lower", *, complement: bool = False,
) -> np.ndarray | np.float64:
    """Return the one-sided Clopper-Pearson confidence limit of a binomial proportion at level `alpha`.

    Lower: P(limit > p) <= alpha; upper: P(limit < p) <= alpha, for every p. Rounded to the safe side by a
    relative 2^-44 (lower limits down, upper limits up), so within 1e-12 of the exact value and never beyond it.

    Args:
        k, n: successes and trials, integers with 0 <= k <= n and 1 <= n <= 1e10; arrays broadcast.
        alpha: failure probability, strictly between 0 and 1.
        side: "lower" or "upper".
        complement: return 1 - limit, computed without cancellation (use it where the limit is near 1).
    Raises:
        InputError: outside these ranges.

    >>> float(clopper_pearson(100, 100, 0.001))   # k = n: alpha^(1/n)
    0.933254300796...
    >>> float(clopper_pearson(0, 100, 0.001))
    0.0
    """
    if side not in ("lower", "upper"):
        raise InputError(f'side must be "lower" or "upper", got {side!r}')
    k, n = check_trials(k, n)
    alpha = np.asarray(alpha, dtype=np.float64)
    if not np.all((alpha > 0) & (alpha < 1)):
        raise InputError(f"alpha must lie strictly between 0 and 1, got {alpha}")
    limit, rest = lower_limit(k, n, alpha) if side == "lower" else upper_limit(k, n, alpha)
    value = rest if complement else limit
    rounds_down = (side == "lower") != complement
    return np.minimum(value * (1 - SAFETY if rounds_down else 1 + SAFETY), 1.0)[()]


def lower_limit(k: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, 1 - p) for the lower limit p, each to full relative precision, not yet rounded to a side.

    Computed once per distinct (k, n, alpha): real runs repeat few of them. No checks; see `clopper_pearson`.
    """
    every = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (k, n, alpha)))
    flat = [a.ravel() for a in every]
    if all(a.size and a.min() == a.max() for a in flat[1:]):  # one n and one level: single numbers sort far faster
        ks, where = np.unique(flat[0], return_inverse=True)
        ns, alphas = (np.full(len(ks), a[0]) for a in flat[1:])
    else:
        (ks, ns, alphas), where = np.unique(np.stack(flat), axis=1, return_inverse=True)
    inside = (ks > 0) & (ks < ns)
    kk, nn = np.where(inside, ks, 1.0), np.where(inside, ns, 2.0)
    p_in, q_in = tail_quantile(kk, nn, alphas)
    p, q = np.where(inside, p_in, 0.0), np.where(inside, q_in, 1.0)
    full = ks == ns
    log_p = np.log(alphas) / ns
    p, q = np.where(full, np.exp(log_p), p), np.where(full, -np.expm1(log_p), q)
    where = where.reshape(every[0].shape)
    return p[where], q[where]


def upper_limit(k: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, 1 - p) for the upper limit p: `lower_limit` mirrored, with failures in the place of successes."""
    q, p = lower_limit(np.asarray(n) - np.asarray(k), n, alpha)
    return p, q


def check_trials(k: npt.ArrayLike, n: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return k and n as int64 arrays, or raise InputError unless 0 <= k <= n, n >= 1, both whole numbers."""
    k, n = np.asarray(k), np.asarray(n)
    for name, array in (("k", k), ("n", n)):
        if array.dtype.kind not in "iu" and not (array.dtype.kind == "f" and np.all(array == np.floor(array))):
            raise InputError(f"{name} must hold whole numbers, got {array}")
    if not np.all((n >= 1) & (n <= 10**10)):
        raise InputError(f"n must lie between 1 and 1e10, got {n}")
    if not np.all((k >= 0) & (k <= n)):
        raise InputError(f"k must lie between 0 and n, got k = {k}, n = {n}")
    return k.astype(np.int64), n.astype(np.int64)


def tail(k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike) -> np.ndarray:
    """Return P(Bin(n, p) >= k), for any integer k; arrays broadcast."""
    ks, ns, ps = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (k, n, p)))
    inside = (ks >= 1) & (ks <= ns)
    kk, nn = np.where(inside, ks, 1.0), np.where(inside, ns, 1.0)
    return np.where(inside, special.betainc(kk, nn - kk + 1, ps), np.where(ks < 1, 1.0, 0.0))


def tail_quantile(k: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (p, 1 - p) with P(Bin(n, p) >= k) = alpha, 0 < k < n, each to 2e-14 relative; float64 arrays of one shape.

    Newton's method on log P = log alpha, in the smaller of p and 1 - p.
    """
    p, q = special.betaincinv(k, n - k + 1, alpha), special.betainccinv(n - k + 1, k, alpha)
    in_p, few = p <= q, np.minimum(k, n - k) <= _FEW
    done = np.zeros(p.shape, bool)
    for _ in range(8):
        mass = _mass(k, n, p, q)
        at_least = np.where(in_p, special.betainc(k, n - k + 1, p), special.betaincc(n - k + 1, k, q))
        at_least[few] = mass[few] * _tail_over_mass(k[few], n[few], p[few], q[few])
        step = np.where(done, 0.0, at_least * np.log(at_least / alpha) * p / (mass * k))
        p = np.where(done, p, np.where(in_p, p - step, 1 - (q + step)))
        q = np.where(done, q, np.where(in_p, 1 - p, q + step))
        done |= np.abs(step) <= 1e-11 * np.minimum(p, q)  # the next one would be about its square
        if np.all(done):
            break
    return p, q


def _tail_over_mass(k: np.ndarray, n: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return P(Bin(n, p) >= k) / P(Bin(n, p) = k), a sum of positive terms."""
    term = total = np.ones_like(p)
    odds, ahead = p / q, np.arange(32.0)[:, None]
    while np.any(term > 1e-18 * total):
        terms = term * np.cumprod(np.maximum(n - k - ahead, 0.0) / (k + ahead + 1) * odds, axis=0)
        term, total, ahead = terms[-1], total + np.cumsum(terms, axis=0)[-1], ahead + 32
    return total


def point_mass(k: int, n: int, p: float, q: float) -> float:
    """Return P(Bin(n, p) = k) to a few ulp, with q = 1 - p to full precision."""
    if k in (0, n):
        return (p if k else q) ** n
    return float(_mass(*(np.array([float(value)]) for value in (k, n, p, q)))[0])


def _mass(k: np.ndarray, n: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return P(Bin(n, p) = k), 0 < k < n, to a few ulp (Loader 2000): no large logarithms are subtracted."""
    excess = np.where(p <= q, k - n * p, n * q - (n - k))
    log = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    log = log - _deviance(k, n * p, excess) - _deviance(n - k, n * q, -excess)
    return np.exp(log) * np.sqrt(n / (2 * np.pi * k * (n - k)))


def _stirling_error(n: np.ndarray) -> np.ndarray:
    """Return log(n! / (sqrt(2 pi n) (n/e)^n)) for n >= 1."""
    m, k = np.maximum(n, 16.0), np.minimum(n, 16.0)
    r = 1 / (m * m)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 * r) * r) * r) * r) / m
    return np.where(n >= 16, series, special.gammaln(k + 1) - 0.5 * np.log(2 * np.pi * k) - k * np.log(k) + k)


def _deviance(x: np.ndarray, m: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return x log(x / m) - d with d = x - m, by the series of artanh where x is near m."""
    v = d / (x + m)
    near = np.abs(v) < 0.1
    square, term, total = np.where(near, v * v, 0.0), np.where(near, 2 * x * v, 0.0), d * v
    for j in range(1, 12):
        term = term * square
        total = total + term / (2 * j + 1)
    return np.where(near, total, x * np.log(x / m) - d)
