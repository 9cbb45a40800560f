"""Figures as they are printed: the same in every table, page and picture, and always rounded to the safe side."""

import math
from decimal import Decimal


def down(value: float, digits: int) -> str:
    """Return `value` with `digits` decimals, rounded down; the tiny step undoes the error of the division before it."""
    scale = 10**digits
    return f"{math.floor(value * scale + 1e-9) / scale:.{digits}f}"


def up(value: float, digits: int = 4) -> str:
    """Return `value` with `digits` decimals, rounded up; the tiny step undoes the error of the product before it.

    >>> up(0.10001), up(0.25)
    ('0.1001', '0.2500')
    """
    scale = 10**digits
    return f"{math.ceil(value * scale - 1e-9) / scale:.{digits}f}"


def confidence(rho: float) -> str:
    """Return 1 - rho with all its digits, so that the greatest confidence short of certainty is not printed as 1.

    >>> confidence(0.05), confidence(1e-12)
    ('0.95', '0.999999999999')
    """
    return f"{1 - Decimal(repr(float(rho))):f}"


def percent(share: float) -> str:
    """Return a share in percent with one decimal, rounded down.

    >>> percent(1 / 60)
    '1.6'
    """
    return down(100 * share, 1)


def radius_words(radius: float, norm: str) -> str:
    """Return a radius as people write it; one in l_inf as k/255.

    >>> radius_words(0.5, "l2"), radius_words(2 / 255, "linf")
    ('0.5', '2/255')
    """
    levels = radius * 255
    if norm == "linf" and radius and abs(levels - round(levels)) < 1e-6:
        return f"{round(levels)}/255"
    return f"{radius:g}"


def sigma_words(sigma: float) -> str:
    """Return a sigma as it is printed; "?" where a log does not state it."""
    return "?" if math.isnan(sigma) else f"{sigma:g}"


def reach_words(ceiling: float, n: int | None, alpha: float | None, sigma: float) -> str:
    """Return what n samples could have proved at the most.

    >>> reach_words(0.5, 100, 0.001, 0.25)
    'no radius above 0.500 can be proved with n = 100, alpha 0.001 and sigma 0.25; a dash stands beyond it'
    """
    return (f"no radius above {down(ceiling, 3)} can be proved with n = {n:,}, alpha {alpha_words(alpha)} and sigma "
            f"{sigma_words(sigma)}; a dash stands beyond it")


def alpha_words(alpha: float | None) -> str:
    """Return an alpha as it is printed; "?" where a log does not state it."""
    return "?" if alpha is None else f"{alpha:g}"
