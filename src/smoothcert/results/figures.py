"""Figures as they are printed: never rounded up, and the same in every table, page and picture."""

import math


def down(value: float, digits: int) -> str:
    """`value` with `digits` decimals, rounded down; the tiny step undoes the error of the division before it."""
    scale = 10**digits
    return f"{math.floor(value * scale + 1e-9) / scale:.{digits}f}"


def percent(share: float) -> str:
    """A share in percent with one decimal, rounded down.

    >>> percent(1 / 60)
    '1.6'
    """
    return down(100 * share, 1)


def sigma_words(sigma: float) -> str:
    """A sigma; "?" where a log does not say it."""
    return "?" if math.isnan(sigma) else f"{sigma:g}"


def alpha_words(alpha: float | None) -> str:
    """An alpha; "?" where a log does not say it."""
    return "?" if alpha is None else f"{alpha:g}"
