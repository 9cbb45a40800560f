"""Exact binomial limits, with complements that never cancel, for n up to 1e10.

Clopper & Pearson 1934. The limits are quantiles of Beta laws. No SciPy function gives them to full precision
everywhere: `bdtri` turns NaN near n = 3e9, `binomtest().proportion_ci` loses 5 to 58 % at k = 1, `betaincinv` up to
1 % of 1 - p with a thousand failures in 1e10 trials. `tails` starts from the last and polishes it.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InputError
from smoothcert.stats.tails import tail_quantile

SAFETY = 2.0**-44
"""Relative step to the safe side: five times the largest error of a limit found against long arithmetic, 1.1e-14."""


def clopper_pearson(
    k: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike,
    side: Literal["lower", "upper"] = "lower", *, complement: bool = False,
) -> np.ndarray | np.float64:
    """One-sided Clopper-Pearson confidence limit of a binomial proportion at level `alpha`.

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
    """(p, 1 - p) for the lower limit p, each to full relative precision, not yet rounded to a side.

    Computed once per distinct (k, n, alpha): real runs repeat few of them. No checks; see `clopper_pearson`.
    """
    every = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (k, n, alpha)))
    (ks, ns, alphas), where = np.unique(np.stack([a.ravel() for a in every]), axis=1, return_inverse=True)
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
    """(p, 1 - p) for the upper limit p: failures are successes of the complement, so this is `lower_limit` mirrored."""
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
