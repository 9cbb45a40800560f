"""The exact law of a rounded normal, t = round(s Z + f) with Z ~ N(0, 1), from uniform bits and whole numbers alone.

    P(t) = Phi((t + 1/2 - f) / s) - Phi((t - 1/2 - f) / s),   s > 0 rational, |f| <= 1/2 rational

Nearly all of P is a mixture that one 64-bit word draws. W, a power of two, is the smallest that is at least s / 128 (or
finer: see `Layout`, `COARSE` is written out here); bin a holds W values from a W on. With c_a and d_a whole
numbers of 2^-36, a rectangle of mass c_a and a triangle of mass d_a, which falls away from 0, lie below P in every bin,
and for every f unless a law is made for f = 0 alone:

    F(a W + j) = c_a / W + d_a (2 (W - j) - 1) / W^2  (a >= 0; mirrored, (2 j + 1) / W^2, where a < 0)   <= P(a W + j)

A rectangle's j is uniform, a triangle's the smaller (a < 0: the larger) of two. Alias tables (Walker 1977) in whole
numbers choose among them, and among them and the rest, whose mass rho is about 1e-5: there t is found by inversion, the
t with G(t - 1) <= rho V < G(t) for G(t) = Phi((t + 1/2 - f) / s) - sum of F up to t and V uniform, of which as many
binary digits are read as it takes to be sure. So every t has exactly the probability P(t), given uniform bits.

F <= P: for y the distance from the bin's middle m, less f, |y| <= W / 2. By Taylor, P >= p(m) + p'(m) y - M W^2 / 8,
where p is P at f = 0, and M = sup |phi''| / s^3 about the bin. d_a matches p'(m) up to M / 4 and its own rounding; f
moves y by 1/2 at most, and F by no more than d_a / W^2.

Phi and phi are computed in whole numbers too, to any number of binary digits: fixed-point arithmetic on Python's
integers, which rounds down and nothing else, so that every digit is the same on every machine. With x^2 / 2 = y and
`work` binary digits behind the point,

    phi(x) = e^-y / sqrt(2 pi),    Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + x^7/(3 5 7) + ...)

e^-y is the 256th power of its series at y / 256, pi is Machin's. Rounding loses at most 2^(18 + x^2) units of the last
digit carried, and 32 + x^2 digits are carried beyond those that are asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, isqrt

import numpy as np

_DIGITS = 64
_GUARD = 32
_RECTANGLE, _TRIANGLE, REST = range(3)


@dataclass(frozen=True)
class Layout:
    """How fine the tables are, which says how much is left for the rest, and what the bits of a word are used for.

    Attributes:
        fineness: W is at least s / fineness.
        offset: bits of j, the word's lowest; then come as many of a second j.
        column: bits of the column of the tables. cut: those that are held against its cut, the highest.
    """

    fineness: int
    offset: int
    column: int
    cut: int

    @property
    def mass(self) -> int:
        """Masses are whole numbers of 2^-mass."""
        return self.column + self.cut


COARSE = Layout(128, 14, 12, 24)
"""That of `sound-v1`: tables of 50 kB, for a processor's second cache."""

FINE = Layout(1024, 11, 15, 27)
"""That of `sound-philox-v1`: tables of 400 kB, for a GPU, where the rest is what costs."""


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

    Args:
        shifted: whether f may be anything; else it is 0.
    Attributes:
        scale: s, at most 2^21.
        width: W.
        bins: {a: (c_a, d_a)}.
        rest: rho 2^mass.
        cuts, codes: Walker's tables, int32: a column's cut, and its outcomes above and below it.
    """

    def __init__(self, scale: Fraction, layout: Layout = COARSE, shifted: bool = True) -> None:
        self.scale, self.layout, self.width, self._shifted = scale, layout, 1, shifted
        while layout.fineness * self.width < scale:
            self.width *= 2
        most = 2**layout.column
        self.bins = dict(self._below(range(most))) | dict(self._below(range(-1, -most, -1)))
        self.rest = 2**layout.mass - sum(map(sum, self.bins.values()))
        sums = [0]  # the mass of all bins before each, from the first to beyond the last
        for a in sorted(self.bins):
            sums.append(sums[-1] + sum(self.bins[a]))
        self._cumulative, self._first = sums, min(self.bins, default=0)
        self.cuts, self.codes = self._tables()

    def draw(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values t of uniform words, uint64 (n,): int32 (n,), and which are of the rest, yet to be found."""
        offset, column = self.layout.offset, self.layout.column
        columns = (words >> 2 * offset).astype(np.int32) & 2**column - 1
        own = (words >> 2 * offset + column).astype(np.int32) < self.cuts.take(columns)
        columns *= 2
        columns += own
        codes = self.codes.take(columns)
        values = words.astype(np.int32)
        values &= self.width - 1
        special = np.flatnonzero(codes & 3)
        kinds, second = codes[special] & 3, (words[special] >> offset).astype(np.int32) & self.width - 1
        codes >>= 2
        first, bases = values[special], codes[special]
        values += codes
        values[special] = bases + np.where(bases < 0, np.maximum(first, second), np.minimum(first, second))
        return values, special[kinds == REST]

    def invert(self, digits: Callable[[int], int], shift: Fraction = Fraction(0)) -> int:
        """Return the t of the rest that V falls on; digits(b) is 2^b V, rounded down."""
        bits = _DIGITS
        while (found := self._search(digits(bits), bits, shift)) is None:
            bits *= 2
        return found

    def below(self, t: int) -> int:
        """Return the mass of F up to t, in units of 2^-mass / W^2."""
        w, first, (a, j) = self.width, self._first, divmod(t, self.width)
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
        """Tell if G(t) > rho V for V in [v, v + 1) 2^-bits, by 2^(bits + mass) W^2; None where that is unsure."""
        unit, squared = self.rest * self.width**2, self.width**2
        error = squared << self.layout.mass
        g = normal_cdf((t + Fraction(1, 2) - shift) / self.scale, bits) * error - (self.below(t) << bits)
        if (v + 1) * unit <= g - error:
            return True
        return False if v * unit >= g + error else None

    def _below(self, numbers: range) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield the masses of bins, away from 0 until none fits below P; P has 64 digits, of which some 50 count."""
        s, w, one, mass = self.scale, self.width, 1 << _DIGITS, self.layout.mass
        for a in numbers:
            k = max(a, -1 - a)
            middle = Fraction(2 * a * w + w - 1, 2)
            p = normal_cdf((middle + Fraction(1, 2)) / s, _DIGITS) - normal_cdf((middle - Fraction(1, 2)) / s, _DIGITS)
            x, near, far = abs(middle) / s, max(k * w - 1, 0) / s, (k * w + w + 1) / s
            bend = Fraction(normal_density(near, _DIGITS) + 1, one) * max(Fraction(1), far * far) / s**3
            d = int(Fraction(normal_density(x, _DIGITS) << mass, one) * x * w * w / (2 * s * s))
            lost = ceil(bend * (w * (w * w + w + 1) << mass) / 8) + 4 + (-(-d // w) if self._shifted else 0)
            c = (p * w << mass) // one - d - lost
            if c <= 0:
                return
            yield a, (c, d)

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Return Walker's tables: a column's own outcome below its cut, the other one from there on.

        Outcomes are 4 a W + kind, in rising order of a, rectangle before triangle, the rest last; a column that is not
        full is filled from the last of those that are more than full.
        """
        full, columns = 2**self.layout.cut, 2**self.layout.column
        outcomes = [(4 * a * self.width + kind, mass) for a in sorted(self.bins)
                    for kind, mass in zip((_RECTANGLE, _TRIANGLE), self.bins[a], strict=True)]
        outcomes.append((REST, self.rest))
        outcomes += [(REST, 0)] * (columns - len(outcomes))
        own, left = [code for code, _ in outcomes], [mass for _, mass in outcomes]
        other, cuts = own.copy(), [full] * len(own)
        small = [i for i, mass in enumerate(left) if mass < full]
        large = [i for i, mass in enumerate(left) if mass > full]
        while small:
            i, j = small.pop(), large[-1]
            cuts[i], other[i] = left[i], own[j]
            left[j] -= full - left[i]
            if left[j] <= full:
                large.pop()
                if left[j] < full:
                    small.append(j)
        return np.array(cuts, np.int32), np.stack([other, own], axis=1).astype(np.int32).ravel()


@lru_cache(maxsize=8)
def lattice_normal(scale: Fraction, layout: Layout = COARSE, shifted: bool = True) -> LatticeNormal:
    """Return the law for a scale, made once: that takes a few tenths of a second, or seconds in the layout `FINE`."""
    return LatticeNormal(scale, layout, shifted)
