"""The normal law in whole numbers: its density and distribution function to any number of binary digits.

Fixed-point arithmetic on Python's integers, which rounds down and nothing else, so that every digit is the same on
every machine. With x^2 / 2 = y and `work` binary digits behind the point,

    phi(x) = e^-y / sqrt(2 pi),    Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + x^7/(3 5 7) + ...)

e^-y is the 256th power of its series at y / 256, pi is Machin's. Rounding loses at most 2^(18 + x^2) units of the last
digit carried, and 32 + x^2 digits are carried beyond those that are asked for.
"""

from fractions import Fraction
from functools import lru_cache
from math import isqrt

_GUARD = 32


@lru_cache(maxsize=2**14)
def normal_cdf(x: Fraction, bits: int) -> int:
    """2^bits Phi(x), with an error below 1."""
    if x < 0:
        return (1 << bits) - normal_cdf(-x, bits)
    if x * x > 2 * bits:  # 1 - Phi(x) < e^(-x^2 / 2) / 2
        return 1 << bits
    work = _carried(x, bits)
    point = (x.numerator << work) // x.denominator
    square, term, total, odd = point * point >> work, point, point, 1
    while term:
        odd += 2
        term = (term * square >> work) // odd
        total += term
    return ((1 << work - 1) + (_density(point, work) * total >> work)) >> work - bits


def normal_density(x: Fraction, bits: int) -> int:
    """2^bits phi(x), with an error below 1."""
    if x * x > 2 * bits:
        return 0
    work = _carried(x, bits)
    return _density((x.numerator << work) // x.denominator, work) >> work - bits


def _carried(x: Fraction, bits: int) -> int:
    """Digits to carry, in steps of 32, so that few values of pi are needed."""
    return -(-(bits + _GUARD + int(x * x)) // 32) * 32


def _density(point: int, work: int) -> int:
    """2^work phi(point / 2^work)."""
    small = (point * point >> work) >> 9
    term = total = 1 << work
    k = 0
    while term:
        k += 1
        term = (term * small >> work) // k
        total += -term if k % 2 else term
    for _ in range(8):
        total = total * total >> work
    return (total << work) // _root_of_two_pi(work)


@lru_cache
def _root_of_two_pi(work: int) -> int:
    """2^work sqrt(2 pi), rounded down."""
    pi = 16 * _arctangent(5, work + 32) - 4 * _arctangent(239, work + 32)
    return isqrt((2 * pi << work) >> 32)


def _arctangent(inverse: int, work: int) -> int:
    """2^work arctan(1 / inverse)."""
    power = total = (1 << work) // inverse
    k = 1
    while power:
        k += 2
        power //= inverse * inverse
        total += -(power // k) if k % 4 == 3 else power // k
    return total
