"""The statistics on this machine, against long arithmetic: limits, radii, certificates and answers, none by chance.

The long arithmetic is a path of its own, by Python's integers and decimals: no SciPy and no float enters. It carries 60
digits: a tail is right to 50, as its terms are positive and their number stays far below 10^9; Phi to 300 binary digits
(`smoothcert.noise.lattice`).
"""

from dataclasses import dataclass, field
from decimal import Context, Decimal
from fractions import Fraction
from functools import cache
from math import comb

import numpy as np

from smoothcert.noise.lattice import normal_cdf, normal_density
from smoothcert.selftest.finding import Finding, Planned
from smoothcert.stats import (
    AtRadii,
    ProbabilityBounds,
    Sequential,
    certify_counts,
    clopper_pearson,
    predict_counts,
)
from smoothcert.stats.histories import Look
from smoothcert.stats.procedures import METHODS
from smoothcert.stats.radius import gaussian_radius

_CONTEXT = Context(prec=60, Emin=-(10**12), Emax=10**12)
_BITS = 300


def at_least(k: int, n: int, p: Decimal) -> Decimal:
    """Return P(Bin(n, p) >= k), 0 < p < 1, from the first term and its ratios to the next ones; for k above n p."""
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
    """Return P(Bin(n, p) <= k), 0 < p < 1; for k below n p."""
    return at_least(n - k, n, _CONTEXT.subtract(Decimal(1), p))


def half_tail(k: int, n: int) -> Fraction:
    """Return P(Bin(n, 1/2) >= k) as a fraction."""
    return Fraction(sum(comb(n, j) for j in range(k, n + 1)), 1 << n)


def share_within(radius: float, sigma: float) -> Decimal:
    """Return Phi(radius / sigma), the probability that a class needs for this radius."""
    return _CONTEXT.divide(Decimal(normal_cdf(Fraction(radius) / Fraction(sigma), _BITS)), Decimal(1 << _BITS))


def normal_quantile(p: Decimal, guess: float) -> Decimal:
    """Return Phi^-1(p) to 40 digits, by Newton's method from any guess near it."""
    z = Fraction(guess)
    for _ in range(8):
        miss = Fraction(p) - Fraction(normal_cdf(z, _BITS), 1 << _BITS)
        step = miss / Fraction(normal_density(z, _BITS), 1 << _BITS)
        z = Fraction(round((z + step) * 2**160), 2**160)
        if abs(step) < Fraction(1, 2**140):
            return _CONTEXT.divide(Decimal(z.numerator), Decimal(z.denominator))
    raise ArithmeticError(f"no quantile of {p} near {guess}")


_SIGMA = 0.25
_ALPHAS = (0.001, 0.05)
_COUNTS = ((1, 1), (5, 10), (10, 10), (51, 100), (80, 100), (99, 100), (700, 1000), (999, 1000), (1000, 1000),
           (5200, 10_000), (99_000, 100_000), (99_999, 100_000), (100_000, 100_000), (9_999_000, 10**7),
           (10**10 - 300, 10**10))
_TIGHT = 1e-10
"""Share of a limit or radius beyond which its claim must be false: nothing is given away."""
_CLAIMS = {"two-sided": (Fraction(9, 10), Fraction(9, 10)), "cohen": (Fraction(1), Fraction(1)),
           "t-certify": (Fraction(2), Fraction(1))}
"""Where two classes share all votes: the part of alpha that a method may fail with, and that which it must use up."""


def plan_checks() -> list[Planned]:
    """Return the checks of this group."""
    tests = {"Clopper-Pearson limits meet their definition": limits, "radii of probability bounds": radii,
             "certificates from counts": certificates, "two-sided bounds of three classes": rivals,
             "sequential radii": sequential, "p-values of predictions": predictions}
    return [Planned.certain("statistics", name, run) for name, run in tests.items()]


@dataclass
class Claims:
    """Claims tried, and those found false, in words."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, right: bool, words: str) -> None:
        self.tried += 1
        if not right:
            self.wrong.append(words)

    def to_finding(self, allowed: str) -> Finding:
        first = f"; the first: {self.wrong[0]}" if self.wrong else ""
        return Finding(not self.wrong, f"{len(self.wrong)} of {self.tried} wrong{first}", allowed)


def limits() -> Finding:
    """Check lower limits p, P(Bin(n, p) >= k) <= alpha but above alpha just beyond; upper ones; and complements."""
    claims = Claims()
    for alpha in _ALPHAS:
        for k, n in _COUNTS:
            level, words = Decimal(alpha), f"k = {k}, n = {n}, alpha = {alpha}"
            low, low_rest = (float(clopper_pearson(k, n, alpha, complement=c)) for c in (False, True))
            claims.expect(_bounds_tail(k, n, low, low_rest, level), f"lower limit, {words}")
            high_rest, high = (float(clopper_pearson(n - k, n, alpha, "upper", complement=c)) for c in (True, False))
            claims.expect(_bounds_tail(k, n, high_rest, high, level), f"upper limit, {words}")
    return claims.to_finding("within 1e-10 of the exact ones, never beyond them")


def _bounds_tail(k: int, n: int, p: float, q: float, level: Decimal) -> bool:
    """Return True where p and 1 - q are lower limits for k of n at a level, and nearly the largest."""
    inside = p > 0 and 0 < q < 1 and all(at_least(k, n, at) <= level for at in (Decimal(p), 1 - Decimal(q)))
    beyond = (Decimal(p) * (1 + Decimal(_TIGHT)), 1 - Decimal(q) * (1 - Decimal(_TIGHT)))
    return inside and all(at >= 1 or at_least(k, n, at) > level for at in beyond)


def radii() -> Finding:
    """Check R = sigma/2 (Phi^-1 p_a - Phi^-1 p_b), for probabilities as floats, from 1e-9 to 1 - 1e-12."""
    claims = Claims()
    for p_a in (0.5000001, 0.6, 0.9, 0.999, 1 - 2.0**-30, 1 - 2.0**-40):
        for p_b in (2.0**-40, 2.0**-30, 0.001, 0.3, 0.45):
            if p_a + p_b <= 1:
                limits = ProbabilityBounds(*(np.array([p]) for p in (p_a, 1 - p_a, p_b, 1 - p_b)))
                claims.expect(_is_just_below(float(gaussian_radius(limits, _SIGMA)[0]),
                                           _exact_radius(Decimal(p_a), Decimal(p_b))), f"p_a = {p_a}, p_b = {p_b}")
    return claims.to_finding("within 1e-10 of the exact ones, never above them")


def _exact_radius(p_a: Decimal, p_b: Decimal) -> Decimal:
    return Decimal(_SIGMA) / 2 * (_quantile(p_a) - _quantile(p_b))


def _quantile(p: Decimal) -> Decimal:
    """Return Phi^-1(p), from the smaller of p and 1 - p, where the guess of Winitzki (2008) is near enough."""
    if p > Decimal("0.5"):
        return -_quantile(1 - p)
    log = np.log(float(4 * p * (1 - p)))
    a = 2 / (np.pi * 0.147) + log / 2
    return normal_quantile(p, -float(np.sqrt(2 * (np.sqrt(a * a - log / 0.147) - a))))


def _is_just_below(value: float, limit: Decimal) -> bool:
    return Decimal(value) <= limit <= Decimal(value) * (1 + Decimal(_TIGHT))


def certificates() -> Finding:
    """Check radii where two classes share n votes: R claims p_A > Phi(R / sigma), false with P(Bin(n, Phi) >= k)."""
    claims = Claims()
    for method in _CLAIMS:
        for alpha in _ALPHAS:
            for k, n in _COUNTS:
                if n <= 100_000:
                    radius = float(certify_counts([0, 1], [n - k, k], _SIGMA, alpha, method).radius)
                    claims.expect(claim_holds(k, n, radius, method, alpha, _SIGMA),
                                f"{method}, {k} of {n} votes, alpha = {alpha}: radius {radius!r}")
    return claims.to_finding("each fails with at most its share of alpha, nearly all of which it uses")


@cache
def claim_holds(k: int, n: int, radius: float, method: str, alpha: float, sigma: float) -> bool:
    """Return True where a radius from k of n votes, all others for one rival, is right and as large as it can be.

    It fails with at most the share of alpha that the method may fail with, and a radius larger by 1e-10 would fail
    with more than the method must use. A radius of 0 claims nothing, but it must be the largest too.
    """
    most, least = (_share(part, alpha) for part in _CLAIMS[method])
    safe = radius == 0 or at_least(k, n, share_within(radius, sigma)) <= most
    beyond = share_within(radius * (1 + _TIGHT) + 1e-15, sigma)
    return safe and (2 * k <= n or at_least(k, n, beyond) > least)


def _share(part: Fraction, alpha: float) -> Decimal:
    """Return part * alpha, and 1e-12 of it more, since the library computes the parts as floats."""
    share = Fraction(alpha) * part * (1 + Fraction(1, 10**12))
    return Decimal(share.numerator) / Decimal(share.denominator)


def rivals() -> Finding:
    """Check p_a at .9 alpha, p_b at .1 alpha from the largest rival, and the radius from both."""
    claims = Claims()
    for alpha in _ALPHAS:
        for n_a, second, third in ((60, 30, 10), (900, 60, 40), (999, 1, 0), (5500, 3000, 1500),
                                   (99_900, 60, 40)):
            n = n_a + second + third
            bounds = METHODS["two-sided"](np.array([n_a]), np.array([[third, second]]), np.array([n]), alpha)
            p_a, p_b = (float(value[0]) for value in (bounds.p_a, bounds.p_b))
            radius = float(certify_counts([1, 0, 0], [n_a, third, second], _SIGMA, alpha).radius)
            whole = _uses(n_a, n, Decimal(p_a), _share(Fraction(9, 10), alpha))
            rest = abs(p_a + p_b - 1) < 1e-15 or _uses(n - second, n, 1 - Decimal(p_b), _share(Fraction(1, 10), alpha))
            limit = _exact_radius(Decimal(p_a), Decimal(p_b))
            claims.expect(whole and rest and (radius == 0 >= limit or _is_just_below(radius, limit)),
                        f"{n_a}, {second} and {third} votes, alpha = {alpha}: radius {radius!r}")
    return claims.to_finding("each bound fails with at most its share of alpha; the radius is theirs")


def _uses(k: int, n: int, p: Decimal, level: Decimal) -> bool:
    """Return True where p, still to be rounded to its side, is where P(Bin(n, p) >= k) reaches the level."""
    near = Decimal(_TIGHT) * (1 - p)
    return at_least(k, n, p - near) < level < at_least(k, n, p + near)


def sequential() -> Finding:
    """Check certification at fixed radii. Two-sided, the looks' shares add up to alpha, and one of them proves the
    radius. One-sided, the counts that certify a radius come with probability alpha at most where it is false.
    """
    claims = Claims()
    for alpha in _ALPHAS:
        plan = AtRadii(100, 1000, (0.05, 0.9), alpha, "two-sided", None, lambda b: gaussian_radius(b, _SIGMA))
        looks, shares = plan.looks, plan.bounds.alphas
        claims.expect(sum(map(Fraction, shares)) <= Fraction(alpha) * (1 + Fraction(1, 10**12)), f"shares {shares}")
        for votes in ([int(rate * n) for n in looks[:taken]] for rate in (0.8, 0.99)
                      for taken in range(1, len(looks) + 1)):  # at the first look, the first two, ...
            history = [Look("select", np.array([1, 99])), *(Look("estimate", np.array([n - k, k]))
                                                            for k, n in zip(votes, looks, strict=False))]
            radius = float(plan.judge([history]).values["radius"][0])
            claimed = share_within(radius, _SIGMA)
            proved = [at_least(k, n, claimed) <= Decimal(0.9 * share) * (1 + Decimal("1e-12"))
                      for k, n, share in zip(votes, looks, shares, strict=False)]
            claims.expect(radius > 0 and any(proved), f"votes {votes}, alpha = {alpha}: radius {radius!r}")
        exact = AtRadii(100, 300, (0.1,), alpha, "cohen", None, lambda b: gaussian_radius(b, _SIGMA))
        failure = _crossing(exact, share_within(0.1, _SIGMA))
        claims.expect(failure <= Decimal(alpha), f"alpha = {alpha}: radius 0.1 is claimed with probability {failure}")
    return claims.to_finding("shares within alpha, each radius proved by a look; exact cut-offs within alpha")


def _crossing(plan: AtRadii, p: Decimal) -> Decimal:
    """Return the probability that some look at Bin(n, p) certifies the plan's radius, vote by vote."""
    c, alive, crossed = _CONTEXT, {0: Decimal(1)}, Decimal(0)
    q = c.subtract(Decimal(1), p)
    for n in range(1, plan.n_max + 1):
        following: dict[int, Decimal] = {}
        for votes, mass in alive.items():
            for more, chance in ((0, q), (1, p)):
                following[votes + more] = c.fma(mass, chance, following.get(votes + more, Decimal(0)))
        if n in plan.looks:
            start = Look("select", np.array([1, 0]))
            histories = [[start, Look("estimate", np.array([votes, n - votes]))] for votes in following]
            claims = dict(zip(following, plan.decide(histories)[0][:, 0].tolist(), strict=True))
            crossed = c.add(crossed, sum((m for votes, m in following.items() if claims[votes]), Decimal(0)))
            following = {votes: m for votes, m in following.items() if not claims[votes]}
        alive = following
    return crossed


def predictions() -> Finding:
    """Check that PREDICT's p-value is twice P(Bin(n, 1/2) >= top), rounded up, and that the answer follows it; and that
    the looks of the sequential one spend no more than alpha.
    """
    claims = Claims()
    for first, second in ((1, 0), (8, 0), (6, 3), (60, 40), (75, 25), (560, 440), (1070, 930), (1500, 500)):
        p = min(2 * half_tail(first, first + second), Fraction(1))
        found = predict_counts([second, first, 0], alpha=0.001)
        value = Fraction(float(found.p_value))
        claims.expect(p <= value <= p * (1 + Fraction(1, 10**9)) and (found.prediction == 1) == (value <= 0.001),
                    f"{first} against {second} votes: {float(value)!r}")
    for n_max in (16, 100, 10_000, 1_000_000):
        spent = sum(map(Fraction, Sequential(n_max).shares.tolist()))
        claims.expect(spent <= 1, f"shares of looks up to {n_max} add up to {float(spent)!r}")
    return claims.to_finding("within 1e-9 of the exact ones, never below them")
