"""Exact references that share no formula with smoothcert: long-digit arithmetic, and coverage by enumeration.

Used by the tests (small grids) and by `coverage.py` (a finer one).

Enumeration: with K = 3 classes of probabilities p = (p_0, p_1, p_2), the n estimation counts are multinomial. A method
is run on every outcome, for a fixed selected class; its failure probability is the exact sum of the probabilities of
the outcomes whose certified radius exceeds the true one.
"""

import mpmath
import numpy as np
from scipy import special

from smoothcert.stats import certify_counts, predict_counts

_BITS = 320


def exact_tail(k, n, p):
    """P(Bin(n, p) >= k) and its derivative in p, as mpf of some 90 digits: the sum itself, in fixed-point integers."""
    k, n = int(k), int(n)
    with mpmath.workprec(_BITS):
        p = mpmath.mpf(p)
        if k <= 0 or k > n or p in (0, 1):
            return mpmath.mpf(k <= 0 or (k <= n and p == 1)), mpmath.mpf(0)
        if k <= n * p:  # the lower tail is the shorter sum
            below, slope = exact_tail(n - k + 1, n, 1 - p)
            return 1 - below, slope
        log_choose = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        first = mpmath.exp(log_choose + k * mpmath.log(p) + (n - k) * mpmath.log(1 - p))
        odds = int(mpmath.ldexp(p / (1 - p), _BITS))
        term = total = 1 << _BITS
        for j in range(k, n):
            term = (term * odds >> _BITS) * (n - j) // (j + 1)
            total += term
            if not term >> (_BITS // 3):
                break
        return first * mpmath.ldexp(total, -_BITS), first * k / p


def exact_lower_limit(k, n, alpha, near):
    """The p with P(Bin(n, p) >= k) = alpha, by Newton's method on the logarithm; a step squares the error."""
    with mpmath.workprec(_BITS):
        if k == 0:
            return mpmath.mpf(0)
        if k == n:
            return mpmath.root(mpmath.mpf(alpha), n)
        p = mpmath.mpf(near)
        for _ in range(8):
            value, slope = exact_tail(k, n, p)
            step = value * mpmath.log(value / mpmath.mpf(alpha)) / slope
            p -= step
            if abs(step) <= mpmath.mpf(10) ** -20 * min(p, 1 - p):
                return p
        raise ValueError(f"{near} is no good start for k = {k}, n = {n}, alpha = {alpha}")


def exact_quantile(p):
    """Phi^-1(p) for an mpf or float p, to some 90 digits."""
    with mpmath.workprec(_BITS):
        p = mpmath.mpf(p)
        if p > 0.5:
            return -exact_quantile(1 - p)
        z = mpmath.mpf(float(special.ndtri(float(p))))
        for _ in range(4):  # 14 digits to begin with, doubled by each step
            z -= (mpmath.erfc(-z / mpmath.sqrt(2)) / 2 - p) / mpmath.npdf(z)
        return z


def outcomes(n):
    """All (N_0, N_1, N_2) that add up to n, int64 (O, 3), and the logarithms of their multinomial coefficients."""
    first, second = (part.ravel() for part in np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij"))
    keep = first + second <= n
    counts = np.stack([first, second, n - first - second], axis=1)[keep]
    return counts, special.gammaln(n + 1) - special.gammaln(counts + 1.0).sum(axis=1)


def true_radius(p, selected):
    """(Phi^-1 p_c - max over the others of Phi^-1 p) / 2 for sigma = 1, and 0 where that is negative; p (P, 3)."""
    others = np.delete(p, selected, axis=1).max(axis=1)
    return np.maximum(special.ndtri(p[:, selected]) - special.ndtri(others), 0) / 2


def probabilities(p, counts, log_coefficients):
    """(P, O): the probability of every outcome under every p."""
    log_p = np.log(np.maximum(p, 1e-300))
    return np.exp(log_p @ counts.T.astype(np.float64) + log_coefficients)


def failure_probability(p, n, alpha, method, selected=0, chunk=400):
    """P(certified radius > true radius) for every row of p, (P,), exact but for float64 sums."""
    counts, log_coefficients = outcomes(n)
    selection = np.zeros_like(counts)
    selection[:, selected] = 1
    radius = certify_counts(selection, counts, 1.0, alpha, method).radius
    order = np.argsort(-radius)  # the failing outcomes are the first so many
    counts, log_coefficients, radius = counts[order], log_coefficients[order], radius[order]
    parts = []
    truth = true_radius(p, selected)
    by_truth = np.argsort(truth)
    for rows in np.array_split(by_truth, max(1, len(p) // chunk)):
        last = np.searchsorted(-radius, -truth[rows].min(initial=np.inf), side="left")
        fails = radius[:last] > truth[rows][:, None]
        parts.append((probabilities(p[rows], counts[:last], log_coefficients[:last]) * fails).sum(axis=1))
    failure = np.empty(len(p))
    failure[by_truth] = np.concatenate(parts)
    return failure


def return_probability(p, n, alpha):
    """(P, 3): the probability that PREDICT returns each class."""
    counts, log_coefficients = outcomes(n)
    returned = predict_counts(counts, alpha).prediction
    return probabilities(p, counts, log_coefficients) @ (returned[:, None] == np.arange(3)).astype(np.float64)


def simplex(steps):
    """Regular points of the simplex, corners and edges included, (P, 3)."""
    first, second = (part.ravel() for part in np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij"))
    keep = first + second <= steps
    return np.stack([first, second, steps - first - second], axis=1)[keep] / steps


def near_jumps(n, alpha, method, radii, shapes):
    """Points where failure peaks. It jumps where the true radius passes a radius that some outcome is given, so the
    true radius is set a hair (1e-9) below such values; (P, 3), the selected class first.

    `radii` such values are taken (evenly thinned, the ends kept), each at `shapes` points of its level curve, from
    p_2 = 0 to p_2 = p_1.
    """
    counts, _ = outcomes(n)
    selection = np.zeros_like(counts)
    selection[:, 0] = 1
    radius = np.unique(certify_counts(selection, counts, 1.0, alpha, method).radius)
    radius = radius[radius > 0]
    if not radius.size:
        return np.zeros((0, 3))
    radius = radius[np.unique(np.linspace(0, len(radius) - 1, radii).round().astype(int))]
    low, high = np.full(len(radius), -40.0), -radius  # z_1 = Phi^-1 p_1 at p_2 = 0 is -R
    for _ in range(80):  # bisection: p_0 + 2 p_1 = 1
        middle = (low + high) / 2
        above = special.ndtr(middle + 2 * radius) + 2 * special.ndtr(middle) > 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    z_b = np.linspace(-radius, high, shapes)
    p_a, p_b = (special.ndtr(z).ravel() for z in (z_b + 2 * radius, z_b))
    p_a = p_a * (1 - 1e-9)
    p_b = np.where(np.arange(p_b.size) < len(radius), 1 - p_a, p_b)  # the first shape has p_2 = 0 in full
    return np.column_stack([p_a, p_b, np.maximum(1 - p_a - p_b, 0)])
