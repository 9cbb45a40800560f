"""Binomial tails and normal quantiles by long arithmetic, on a path of their own: Python's integers and decimals.

No SciPy and no float enters. 60 digits are carried: a tail is right to 50, as its terms are positive and their number
stays far below 10^9; Phi to 300 binary digits (`smoothcert.noise.lattice`).
"""

from decimal import Context, Decimal
from fractions import Fraction
from math import comb

from smoothcert.noise.lattice import normal_cdf, normal_density

_CONTEXT = Context(prec=60, Emin=-(10**12), Emax=10**12)
_BITS = 300


def at_least(k: int, n: int, p: Decimal) -> Decimal:
    """P(Bin(n, p) >= k), 0 < p < 1: the first term and its ratios to those that follow. For k above n p."""
    if k <= 0:
        return Decimal(1)
    c = _CONTEXT
    q = c.subtract(Decimal(1), p)
    term = total = Decimal(1)
    odds = c.divide(p, q)
    for j in range(k, n):
        term = c.multiply(term, c.multiply(odds, c.divide(Decimal(n - j), Decimal(j + 1))))
        total = c.add(total, term)
        if term < total.scaleb(-55):
            break
    first = c.multiply(c.power(p, k), c.power(q, n - k))
    return c.multiply(total, c.multiply(c.plus(Decimal(comb(n, k))), first))


def at_most(k: int, n: int, p: Decimal) -> Decimal:
    """P(Bin(n, p) <= k), 0 < p < 1. For k below n p."""
    return at_least(n - k, n, _CONTEXT.subtract(Decimal(1), p))


def half_tail(k: int, n: int) -> Fraction:
    """P(Bin(n, 1/2) >= k), in whole numbers."""
    return Fraction(sum(comb(n, j) for j in range(k, n + 1)), 1 << n)


def share_within(radius: float, sigma: float) -> Decimal:
    """Phi(radius / sigma): the probability that a class needs for this radius."""
    return _decimal(normal_cdf(Fraction(radius) / Fraction(sigma), _BITS))


def normal_quantile(p: Decimal, guess: float) -> Decimal:
    """Phi^-1(p) to 40 digits, by Newton's method from any guess near it."""
    z = Fraction(guess)
    for _ in range(8):
        miss = Fraction(p) - Fraction(normal_cdf(z, _BITS), 1 << _BITS)
        step = miss / Fraction(normal_density(z, _BITS), 1 << _BITS)
        z = Fraction(round((z + step) * 2**160), 2**160)
        if abs(step) < Fraction(1, 2**140):
            return _CONTEXT.divide(Decimal(z.numerator), Decimal(z.denominator))
    raise ArithmeticError(f"no quantile of {p} near {guess}")


def _decimal(scaled: int) -> Decimal:
    return _CONTEXT.divide(Decimal(scaled), Decimal(1 << _BITS))
