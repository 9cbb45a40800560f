"""Binomial tails and their quantiles to full relative precision, where SciPy's lose digits.

With few successes or failures among many trials `scipy.special.betainc` errs by up to 1e-8 and its inverse by up to
1e-2 of 1 - p (SciPy 1.17, n near 1e10). There the tail is summed as a series of positive terms; elsewhere `betainc` is
right. Quantiles are polished by Newton's method with Loader's point probabilities (C. Loader 2000, "Fast and accurate
computation of binomial probabilities").
"""

import numpy as np
import numpy.typing as npt
from scipy import special

_FEW = 2000
"""Up to so many successes, or failures, the tail is summed here."""


def tail(k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike) -> np.ndarray:
    """P(Bin(n, p) >= k), any integer k; arrays broadcast."""
    ks, ns, ps = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (k, n, p)))
    inside = (ks >= 1) & (ks <= ns)
    kk, nn = np.where(inside, ks, 1.0), np.where(inside, ns, 1.0)
    return np.where(inside, special.betainc(kk, nn - kk + 1, ps), np.where(ks < 1, 1.0, 0.0))


def tail_quantile(k: np.ndarray, n: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(p, 1 - p) with P(Bin(n, p) >= k) = alpha, 0 < k < n, each to 2e-14 relative; float64 arrays of one shape.

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
    """P(Bin(n, p) >= k) / P(Bin(n, p) = k): a sum of positive terms."""
    term = total = np.ones_like(p)
    odds, ahead = p / q, np.arange(32.0)[:, None]
    while np.any(term > 1e-18 * total):
        terms = term * np.cumprod(np.maximum(n - k - ahead, 0.0) / (k + ahead + 1) * odds, axis=0)
        term, total, ahead = terms[-1], total + np.cumsum(terms, axis=0)[-1], ahead + 32
    return total


def _mass(k: np.ndarray, n: np.ndarray, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """P(Bin(n, p) = k), 0 < k < n, to a few ulp (Loader 2000): no large logarithms are subtracted."""
    excess = np.where(p <= q, k - n * p, n * q - (n - k))
    log = _stirling_error(n) - _stirling_error(k) - _stirling_error(n - k)
    log = log - _deviance(k, n * p, excess) - _deviance(n - k, n * q, -excess)
    return np.exp(log) * np.sqrt(n / (2 * np.pi * k * (n - k)))


def _stirling_error(n: np.ndarray) -> np.ndarray:
    """log(n! / (sqrt(2 pi n) (n/e)^n)), n >= 1."""
    m, k = np.maximum(n, 16.0), np.minimum(n, 16.0)
    r = 1 / (m * m)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 * r) * r) * r) * r) / m
    return np.where(n >= 16, series, special.gammaln(k + 1) - 0.5 * np.log(2 * np.pi * k) - k * np.log(k) + k)


def _deviance(x: np.ndarray, m: np.ndarray, d: np.ndarray) -> np.ndarray:
    """x log(x / m) - d with d = x - m, by the series of artanh where x is near m."""
    v = d / (x + m)
    near = np.abs(v) < 0.1
    square, term, total = np.where(near, v * v, 0.0), np.where(near, 2 * x * v, 0.0), d * v
    for j in range(1, 12):
        term = term * square
        total = total + term / (2 * j + 1)
    return np.where(near, total, x * np.log(x / m) - d)
