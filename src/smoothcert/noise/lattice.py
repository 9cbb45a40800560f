"""The exact law of a rounded normal, t = round(s Z + f) with Z ~ N(0, 1), from uniform bits and whole numbers alone.

    P(t) = Phi((t + 1/2 - f) / s) - Phi((t - 1/2 - f) / s),   s > 0 rational, |f| <= 1/2 rational

Nearly all of P is a mixture that one 64-bit word draws. W, a power of two, is the smallest that is at least s / 128;
bin a holds W values from a W on. With c_a and d_a whole numbers of 2^-36, a rectangle of mass c_a and a triangle of
mass d_a, which falls away from 0, lie below P in every bin and for every f:

    F(a W + j) = c_a / W + d_a (2 (W - j) - 1) / W^2  (a >= 0; mirrored, (2 j + 1) / W^2, where a < 0)   <= P(a W + j)

A rectangle's j is uniform, a triangle's the smaller (a < 0: the larger) of two. Alias tables (Walker 1977) in whole
numbers choose among them, and among them and the rest, whose mass rho is about 1e-5: there t is found by inversion, the
t with G(t - 1) <= rho V < G(t) for G(t) = Phi((t + 1/2 - f) / s) - sum of F up to t and V uniform, of which as many
binary digits are read as it takes to be sure. So every t has exactly the probability P(t), given uniform bits.

F <= P: for y the distance from the bin's middle m, less f, |y| <= W / 2. By Taylor, P >= p(m) + p'(m) y - M W^2 / 8,
where p is P at f = 0, and M = sup |phi''| / s^3 about the bin. d_a matches p'(m) up to M / 4 and its own rounding.

Phi and phi are computed in whole numbers too, to any number of binary digits: fixed-point arithmetic on Python's
integers, which rounds down and nothing else, so that every digit is the same on every machine. With x^2 / 2 = y and
`work` binary digits behind the point,

    phi(x) = e^-y / sqrt(2 pi),    Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + x^7/(3 5 7) + ...)

e^-y is the 256th power of its series at y / 256, pi is Machin's. Rounding loses at most 2^(18 + x^2) units of the last
digit carried, and 32 + x^2 digits are carried beyond those that are asked for.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from math import ceil, isqrt

import numpy as np

MASS = 36
"""Masses are whole numbers of 2^-36."""

_OFFSET, _COLUMN = 14, 12  # bits of a word: j, a second j, the column of the tables, the rest against its cut
_CUT = MASS - _COLUMN
_DIGITS = 64
_GUARD = 32
_RECTANGLE, _TRIANGLE, _REST = range(3)


@lru_cache(maxsize=2**14)
def normal_cdf(x: Fraction, bits: int) -> int:
    """Return 2^bits Phi(x), with an error below 1."""
    if x < 0:
        return (1 << bits) - normal_cdf(-x, bits)
    if x * x > 2 * bits:  # 1 - Phi(x) < e^(-x^2 / 2) / 2
        return 1 << bits
    work = _digits_to_carry(x, bits)
    point = (x.numerator << work) // x.denominator
    square, term, total, odd = point * point >> work, point, point, 1
    while term:
        odd += 2
        term = (term * square >> work) // odd
        total += term
    return ((1 << work - 1) + (_density(point, work) * total >> work)) >> work - bits


def normal_density(x: Fraction, bits: int) -> int:
    """Return 2^bits phi(x), with an error below 1."""
    if x * x > 2 * bits:
        return 0
    work = _digits_to_carry(x, bits)
    return _density((x.numerator << work) // x.denominator, work) >> work - bits


def _digits_to_carry(x: Fraction, bits: int) -> int:
    """Return the digits to carry, in steps of 32, so that few values of pi are needed."""
    return -(-(bits + _GUARD + int(x * x)) // 32) * 32


def _density(point: int, work: int) -> int:
    """Return 2^work phi(point / 2^work)."""
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
    """Return 2^work sqrt(2 pi), rounded down; kept, since few values are asked for."""
    pi = 16 * _arctangent(5, work + 32) - 4 * _arctangent(239, work + 32)
    return isqrt((2 * pi << work) >> 32)


def _arctangent(inverse: int, work: int) -> int:
    """Return 2^work arctan(1 / inverse)."""
    power = total = (1 << work) // inverse
    k = 1
    while power:
        k += 2
        power //= inverse * inverse
        total += -(power // k) if k % 4 == 3 else power // k
    return total


class LatticeNormal:
    """The law of round(s Z + f).

    Attributes:
        scale: s, at most 2^14 128.
        width: W.
        bins: {a: (c_a, d_a)}.
        rest: rho 2^36.
    """

    def __init__(self, scale: Fraction) -> None:
        self.scale, self.width = scale, 1
        while 128 * self.width < scale:
            self.width *= 2
        self.bins = dict(self._below(range(2**_COLUMN))) | dict(self._below(range(-1, -(2**_COLUMN), -1)))
        self.rest = 2**MASS - sum(map(sum, self.bins.values()))
        sums = [0]  # the mass of all bins before each, from the first to beyond the last
        for a in sorted(self.bins):
            sums.append(sums[-1] + sum(self.bins[a]))
        self._cumulative = sums
        self._cuts, self._codes = self._tables()

    def draw(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values t of uniform words, uint64 (n,): int32 (n,), and which are of the rest, yet to be found."""
        columns = (words >> 2 * _OFFSET).astype(np.int32) & 2**_COLUMN - 1
        own = (words >> 2 * _OFFSET + _COLUMN).astype(np.int32) < self._cuts.take(columns)
        columns *= 2
        columns += own
        codes = self._codes.take(columns)
        values = words.astype(np.int32)
        values &= self.width - 1
        special = np.flatnonzero(codes & 3)
        kinds, second = codes[special] & 3, (words[special] >> _OFFSET).astype(np.int32) & self.width - 1
        codes >>= 2
        first, bases = values[special], codes[special]
        values += codes
        values[special] = bases + np.where(bases < 0, np.maximum(first, second), np.minimum(first, second))
        return values, special[kinds == _REST]

    def invert(self, digits: Callable[[int], int], shift: Fraction = Fraction(0)) -> int:
        """Return the t of the rest that V falls on; digits(b) is 2^b V, rounded down."""
        bits = _DIGITS
        while (found := self._search(digits(bits), bits, shift)) is None:
            bits *= 2
        return found

    def below(self, t: int) -> int:
        """Return the mass of F up to t, in units of 2^-36 / W^2."""
        w, (a, j) = self.width, divmod(t, self.width)
        first = min(self.bins, default=0)
        if a < first:
            return 0
        if a not in self.bins:
            return self._cumulative[-1] * w**2
        c, d = self.bins[a]
        part = (j + 1) ** 2 if a < 0 else w**2 - (w - 1 - j) ** 2
        return self._cumulative[a - first] * w**2 + c * (j + 1) * w + d * part

    def _search(self, v: int, bits: int, shift: Fraction) -> int | None:
        """Return the t of V in [v, v + 1) 2^-bits, or None where these digits do not tell."""
        high = 1
        while high < self.scale * bits / 4 + 1:
            high *= 2
        low = -high
        while high - low > 1:
            middle = (low + high) // 2
            above = self._is_above(middle, v, bits, shift)
            if above is None:
                return None
            low, high = (low, middle) if above else (middle, high)
        return high

    def _is_above(self, t: int, v: int, bits: int, shift: Fraction) -> bool | None:
        """Tell if G(t) > rho V for V in [v, v + 1) 2^-bits, by 2^(bits + 36) W^2; None where that is unsure."""
        unit, squared = self.rest * self.width**2, self.width**2
        error = squared << MASS
        g = normal_cdf((t + Fraction(1, 2) - shift) / self.scale, bits) * error - (self.below(t) << bits)
        if (v + 1) * unit <= g - error:
            return True
        return False if v * unit >= g + error else None

    def _below(self, numbers: range) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield the masses of bins, away from 0 until none fits below P; P has 64 digits, of which some 50 count."""
        s, w, one = self.scale, self.width, 1 << _DIGITS
        for a in numbers:
            k = max(a, -1 - a)
            middle = Fraction(2 * a * w + w - 1, 2)
            p = normal_cdf((middle + Fraction(1, 2)) / s, _DIGITS) - normal_cdf((middle - Fraction(1, 2)) / s, _DIGITS)
            x, near, far = abs(middle) / s, max(k * w - 1, 0) / s, (k * w + w + 1) / s
            bend = Fraction(normal_density(near, _DIGITS) + 1, one) * max(Fraction(1), far * far) / s**3
            d = int(Fraction(normal_density(x, _DIGITS) << MASS, one) * x * w * w / (2 * s * s))
            lost = ceil(bend * (w * (w * w + w + 1) << MASS) / 8) + -(-d // w) + 4
            c = (p * w << MASS) // one - d - lost
            if c <= 0:
                return
            yield a, (c, d)

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Return Walker's tables: a column's own outcome below its cut, the other one from there on.

        Outcomes are 4 a W + kind, in rising order of a, rectangle before triangle, the rest last; a column that is not
        full is filled from the last of those that are more than full.
        """
        outcomes = [(4 * a * self.width + kind, mass) for a in sorted(self.bins)
                    for kind, mass in zip((_RECTANGLE, _TRIANGLE), self.bins[a], strict=True)]
        outcomes.append((_REST, self.rest))
        outcomes += [(_REST, 0)] * (2**_COLUMN - len(outcomes))
        own, left = [code for code, _ in outcomes], [mass for _, mass in outcomes]
        other, cuts = own.copy(), [2**_CUT] * len(own)
        small = [i for i, mass in enumerate(left) if mass < 2**_CUT]
        large = [i for i, mass in enumerate(left) if mass > 2**_CUT]
        while small:
            i, j = small.pop(), large[-1]
            cuts[i], other[i] = left[i], own[j]
            left[j] -= 2**_CUT - left[i]
            if left[j] <= 2**_CUT:
                large.pop()
                if left[j] < 2**_CUT:
                    small.append(j)
        return np.array(cuts, np.int32), np.stack([other, own], axis=1).astype(np.int32).ravel()


@lru_cache(maxsize=8)
def lattice_normal(scale: Fraction) -> LatticeNormal:
    """Return the law for a scale, made once: that takes a few tenths of a second."""
    return LatticeNormal(scale)
