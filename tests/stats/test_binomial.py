"""Clopper-Pearson limits and binomial tails against their definitions, in long-digit and in exact arithmetic."""

import importlib.util
from fractions import Fraction
from math import comb
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.errors import InputError
from smoothcert.stats import clopper_pearson
from smoothcert.stats.binomial import tail

_SPEC = importlib.util.spec_from_file_location(
    "enumeration", Path(__file__).parents[2] / "evidence" / "enumeration.py")
exact = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(exact)


def successes(n):
    return sorted({k for k in (0, 1, 2, 7, n // 3, n // 2, n - 1, n) if 0 <= k <= n})


CASES = [(k, n, alpha) for n in (1, 2, 3, 10, 100, 1000, 10**5, 10**7) for k in successes(n)
         for alpha in (0.5, 0.1, 1e-3, 1e-6, 1e-10)]
CASES += [(k, 10**10, alpha) for k in (0, 1, 3, 10**10 - 1, 10**10) for alpha in (0.1, 1e-3, 1e-10)]
CASES += [(5 * 10**9, 10**10, 1e-3), (10**9, 10**10, 1e-10)]
CASES += [  # where the inverse incomplete beta function of scipy 1.17 loses between 1e-12 and 1e-2
    (763_293, 4_033_378, 0.1), (79_045_422, 79_046_421, 1e-6), (7_591_679_233, 7_591_680_232, 1e-6),
    (5_953_402, 5_954_401, 0.015), (1_732_594_042, 1_732_594_044, 0.1), (61_237, 602_260, 5.76e-6),
    (30, 2_070_788_166, 0.577), (9999, 10**5, 1e-3),
]


def fraction_tail(k, n, p):
    """P(Bin(n, p) >= k) in rationals: the definition, and nothing else."""
    p = Fraction(p)
    return sum((comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(max(k, 0), n + 1)), Fraction(0))


def start(p, q):
    """p as an mpf, from whichever of p and 1 - p is the smaller and so the more precise."""
    with mpmath.workprec(320):
        return mpmath.mpf(float(p)) if p < 0.5 else 1 - mpmath.mpf(float(q))


def exact_limit(k, n, alpha, side):
    """(limit, 1 - limit) as mpf. Upper: P(Bin(n, p) <= k) = alpha, that is n - k failures of probability 1 - p."""
    if side == "lower":
        near = start(clopper_pearson(k, n, alpha), clopper_pearson(k, n, alpha, complement=True))
        low = exact.exact_lower_limit(k, n, alpha, near)
    else:
        near = start(clopper_pearson(k, n, alpha, "upper", complement=True), clopper_pearson(k, n, alpha, "upper"))
        low = exact.exact_lower_limit(n - k, n, alpha, near)
    with mpmath.workdps(60):
        return (low, 1 - low) if side == "lower" else (1 - low, low)


def test_the_reference_is_the_definition():
    """The long-digit sum against rationals, and against mpmath's own incomplete beta function."""
    with mpmath.workdps(50):
        for k, n, p in ((1, 1, 0.3), (3, 10, 0.1), (9, 10, 0.99), (17, 40, 0.25), (40, 40, 0.9), (2, 60, 0.7)):
            truth = fraction_tail(k, n, p)
            value, slope = exact.exact_tail(k, n, p)
            assert abs(value - mpmath.mpf(truth.numerator) / truth.denominator) < value * mpmath.mpf(10) ** -45
            beta = mpmath.betainc(k, n - k + 1, 0, p, regularized=True)
            assert abs(value - beta) < value * mpmath.mpf(10) ** -40
            numeric = mpmath.diff(lambda x, k=k, n=n: mpmath.betainc(k, n - k + 1, 0, x, regularized=True), p)
            assert abs(slope / numeric - 1) < 1e-12


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_limits_are_within_1e_12_and_never_beyond_the_truth(side):
    wrong = []
    for k, n, alpha in CASES:
        truths = exact_limit(k, n, alpha, side)
        for complement, truth in zip((False, True), truths, strict=True):
            value = float(clopper_pearson(k, n, alpha, side, complement=complement))
            with mpmath.workdps(60):
                excess = (mpmath.mpf(value) - truth) / truth if truth else mpmath.mpf(value)
            inward = -excess if (side == "lower") != complement else excess
            if not 0 <= inward <= 1e-12:
                wrong.append((k, n, alpha, complement, float(inward)))
    assert not wrong


def test_limits_satisfy_the_definition_in_rationals():
    """P(Bin(n, lower) >= k) <= alpha, and above alpha a relative 1e-12 further in: no root finder is involved."""
    alpha, nudge = 0.03, Fraction(1, 10**12)
    for n in (1, 5, 12, 30):
        for k in range(1, n + 1):
            lower = Fraction(float(clopper_pearson(k, n, alpha)))
            assert fraction_tail(k, n, lower) <= Fraction(alpha) < fraction_tail(k, n, lower * (1 + nudge))
            room = Fraction(float(clopper_pearson(n - k, n, alpha, "upper", complement=True)))
            at_most = fraction_tail(k, n, room)  # P(Bin(n, 1 - room) <= n - k)
            assert at_most <= Fraction(alpha) < fraction_tail(k, n, room * (1 + nudge))


@pytest.mark.parametrize("n", [1, 10, 100_000, 10**10])
@pytest.mark.parametrize("alpha", [0.1, 0.001, 1e-10])
def test_closed_forms_at_the_ends(n, alpha):
    assert clopper_pearson(0, n, alpha) == 0.0
    assert clopper_pearson(0, n, alpha, complement=True) == 1.0
    assert clopper_pearson(n, n, alpha, "upper") == 1.0
    assert clopper_pearson(n, n, alpha, "upper", complement=True) == 0.0
    with mpmath.workdps(50):
        full = mpmath.mpf(alpha) ** (mpmath.mpf(1) / n)
        for value, truth in ((clopper_pearson(n, n, alpha), full),
                             (clopper_pearson(n, n, alpha, complement=True), 1 - full),
                             (clopper_pearson(0, n, alpha, "upper"), 1 - full),
                             (clopper_pearson(0, n, alpha, "upper", complement=True), full)):
            assert abs(mpmath.mpf(float(value)) / truth - 1) < 1e-12


@settings(deadline=None, derandomize=True, max_examples=200)
@given(n=st.integers(1, 10**6), share=st.floats(0, 1), alpha=st.floats(1e-10, 0.9))
def test_upper_mirrors_lower_and_both_enclose_the_estimate(n, share, alpha):
    k = round(share * n)
    lower, upper = clopper_pearson(k, n, alpha), clopper_pearson(k, n, alpha, "upper")
    mirrored = clopper_pearson(n - k, n, alpha, complement=True)
    assert upper == mirrored
    assert lower + clopper_pearson(k, n, alpha, complement=True) == pytest.approx(1, abs=1e-12)
    if alpha < 0.1:
        assert lower <= k / n <= upper
        assert k == 0 or lower < k / n
        assert k == n or upper > k / n


def test_limits_grow_with_k_and_with_the_level():
    k = np.arange(101)
    for side, sign in (("lower", 1), ("upper", -1)):
        limits = np.stack([clopper_pearson(k, 100, alpha, side) for alpha in (1e-6, 1e-3, 0.1)])
        assert np.all(np.diff(limits, axis=1) > 0)
        inner = (k > 0) & (k < 100)
        assert np.all(sign * np.diff(limits[:, inner], axis=0) > 0)


def test_arrays_broadcast_and_equal_scalars():
    k, n, alpha = np.array([[0], [3], [10]]), np.array([10, 20]), 0.01
    for side in ("lower", "upper"):
        for complement in (False, True):
            table = clopper_pearson(k, n, alpha, side, complement=complement)
            assert table.shape == (3, 2)
            single = [[clopper_pearson(int(a), int(b), alpha, side, complement=complement) for b in n] for a in k[:, 0]]
            assert np.array_equal(table, single)
    assert clopper_pearson(np.zeros(0, int), 10, 0.1).shape == (0,)
    assert np.array_equal(clopper_pearson(5, 10, [0.1, 0.01]), [clopper_pearson(5, 10, a) for a in (0.1, 0.01)])


def test_tail_against_rationals():
    for n in (1, 4, 25):
        for p in (0.001, 0.3, 0.5, 0.97):
            k = np.arange(-1, n + 3)
            truth = [float(fraction_tail(int(j), n, p)) for j in k]
            assert tail(k, n, p) == pytest.approx(truth, rel=1e-13, abs=0)


def test_tail_against_long_digits_at_large_n():
    for k, n, p in ((100, 10**5, 5e-4), (50_500, 10**5, 0.5), (10**7 // 3, 10**7, 0.333),
                    (10**10 - 3, 10**10, 1 - 1e-9)):
        truth = float(exact.exact_tail(k, n, p)[0])
        assert float(tail(k, n, p)) == pytest.approx(truth, rel=1e-9)


def test_tail_of_no_trials():
    assert tail([0, 1], 0, 0.3).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("k", "n", "alpha", "message"), [
    (-1, 10, 0.1, "k must lie between 0 and n"),
    (11, 10, 0.1, "k must lie between 0 and n"),
    ([3, 12], [10, 11], 0.1, "k must lie between 0 and n"),
    (0, 0, 0.1, "n must lie between 1 and 1e10"),
    (1, 10**10 + 1, 0.1, "n must lie between 1 and 1e10"),
    (1.5, 10, 0.1, "k must hold whole numbers"),
    (1, 10.5, 0.1, "n must hold whole numbers"),
    (np.nan, 10, 0.1, "k must hold whole numbers"),
    (1, np.inf, 0.1, "n must lie between"),
    ("1", 10, 0.1, "k must hold whole numbers"),
    (1, 10, 0.0, "alpha must lie strictly between 0 and 1"),
    (1, 10, 1.0, "alpha must lie strictly between 0 and 1"),
    (1, 10, -0.1, "alpha must lie strictly between 0 and 1"),
    (1, 10, np.nan, "alpha must lie strictly between 0 and 1"),
    (1, 10, [0.1, 2.0], "alpha must lie strictly between 0 and 1"),
])
def test_bad_input_is_refused(k, n, alpha, message):
    with pytest.raises(InputError, match=message):
        clopper_pearson(k, n, alpha)


def test_an_unknown_side_is_refused():
    with pytest.raises(InputError, match="side must be"):
        clopper_pearson(1, 10, 0.1, "both")
