"""Radii against long-digit evaluations of their formulas: close to them and never above them."""

import importlib.util
from pathlib import Path

import mpmath
import numpy as np
import pytest
from scipy import special

from smoothcert.errors import InputError
from smoothcert.stats import (
    ProbabilityBounds,
    certify_counts,
    clopper_pearson,
    cohen_radius,
    gaussian_radius,
    lecuyer_radius,
    li_radius,
    linf_radius,
    max_radius,
)
from smoothcert.stats.radius import z_lower, z_upper

_SPEC = importlib.util.spec_from_file_location(
    "enumeration", Path(__file__).parents[2] / "evidence" / "enumeration.py")
exact = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(exact)

PAIRS = [(0.9, 0.1), (0.6, 0.4), (0.501, 0.499), (0.99, 0.01), (0.999, 1e-4), (0.7, 0.05), (0.4, 0.1), (0.35, 0.3),
         (0.999999, 1e-6), (0.5, 1e-9), (0.8, 0.0), (1e-3, 1e-5)]


def bounds(p_a, p_b):
    p_a, p_b = np.asarray(p_a), np.asarray(p_b)
    return ProbabilityBounds(p_a, 1 - p_a, p_b, 1 - p_b)


def test_the_quantile_of_the_reference_inverts_the_normal_law():
    with mpmath.workdps(60):
        for p in ("1e-30", "0.001", "0.3", "0.5", "0.97"):
            assert abs(mpmath.ncdf(exact.exact_quantile(mpmath.mpf(p))) - mpmath.mpf(p)) < mpmath.mpf(10) ** -50


def test_published_check_values():
    assert round(float(lecuyer_radius(0.9, 0.1)), 3) == 0.390
    assert round(float(li_radius(0.9, 0.1)), 3) == 1.032
    assert round(float(cohen_radius(0.9, 0.1)), 3) == 1.282
    assert round(float(max_radius(10**5, 0.001)), 3) == 3.811
    assert round(float(max_radius(10**6, 0.001)), 3) == 4.347
    assert round(float(max_radius(10**10, 0.1)), 3) == 6.232


def test_cohen_is_within_1e_12_and_never_above_the_formula():
    rng = np.random.default_rng(1)
    near_one, near_half = 1 - 10 ** rng.uniform(-15, -1, 100), 0.5 + 10 ** rng.uniform(-12, -1, 100)
    p_a = np.concatenate([rng.uniform(0, 1, 200), near_one, near_half])
    p_b = np.concatenate([p_a[:200] * rng.uniform(0, 1, 200), 1 - p_a[200:]])
    sigma = 0.37
    radius = cohen_radius(p_a, p_b, sigma)
    with mpmath.workdps(60):
        for a, b, value in zip(p_a, p_b, radius, strict=True):
            z_a, z_b = exact.exact_quantile(a), exact.exact_quantile(b)
            truth = mpmath.mpf(sigma) / 2 * (z_a - z_b)
            assert value <= truth, (a, b)
            assert truth - value <= 1e-12 * (1 + abs(z_a) + abs(z_b)), (a, b)


def test_quantile_bounds_enclose_the_truth_at_both_signs():
    """Directly at the bounds, where a negative z would vanish behind a radius of 0; complements far below 1e-16."""
    p = np.concatenate([10.0 ** -np.arange(1, 300, 7.0), np.linspace(0.01, 0.49, 40), [0.5, 0.5 - 2.0**-50]])
    q = 1 - p
    lower, upper = z_lower(p, q), z_upper(p, q)
    for value, low, high in zip(p, lower, upper, strict=True):
        with mpmath.workprec(1200):
            truth = exact.exact_quantile(value) if value > 1e-50 else None
        if truth is not None:
            assert low <= truth <= high, value
            assert high - low <= 1e-12, value
        assert low < high
    assert np.array_equal(z_lower(q, p), -upper)
    assert z_lower(0.0, 1.0) == -np.inf
    assert z_upper(1.0, 0.0) == np.inf


def test_certified_radius_is_never_above_the_exact_one():
    """From counts to radius, end to end: the exact limit, the exact quantile, many (k, n, alpha)."""
    checked = negative = 0
    for n in (1, 2, 5, 17, 100, 1000, 10**5, 10**6):
        shares = (0.3, 0.45, 0.51, 0.6, 0.8, 0.95, 0.999)
        for k in sorted({*(round(share * n) for share in shares), n - 1, n} - {0}):
            for alpha in (0.1, 1e-3, 9e-4, 1e-6):
                p, q = (float(clopper_pearson(k, n, alpha, complement=c)) for c in (False, True))
                with mpmath.workprec(320):
                    near = mpmath.mpf(p) if p < 0.5 else 1 - mpmath.mpf(q)
                    truth = exact.exact_quantile(exact.exact_lower_limit(k, n, alpha, near))
                value = float(certify_counts([0, 1], [n - k, k], 1.0, alpha, "cohen").radius)
                assert value <= max(truth, 0), (k, n, alpha)
                assert value >= truth - 1e-12 * (1 + abs(truth)), (k, n, alpha)
                assert z_lower(p, q) <= truth, (k, n, alpha)
                assert z_lower(p, q) >= truth - 1e-11 * (1 + abs(truth)), (k, n, alpha)
                checked, negative = checked + 1, negative + (truth < 0)
    assert checked > 150
    assert negative > 30


def lecuyer_formula(b, p_a, p_b):
    return b / mpmath.sqrt(2 * mpmath.log(1.25 * (1 + mpmath.exp(b)) / (p_a - mpmath.exp(2 * b) * p_b)))


def li_formula(a, p_a, p_b):
    power = 1 - a
    mean = (0 if p_b == 0 and power < 0 else ((p_a**power + (p_b**power if p_b else 0)) / 2) ** (1 / power))
    return mpmath.sqrt(-2 / a * mpmath.log(1 - p_a - p_b + 2 * mean))


def exact_supremum(formula, points):
    """The largest value over `points`, refined by golden section between the neighbours of the best."""
    values = [formula(point) for point in points]
    best = max(range(len(points)), key=lambda i: values[i])
    low, high = points[max(best - 1, 0)], points[min(best + 1, len(points) - 1)]
    golden, top = (mpmath.sqrt(5) - 1) / 2, values[best]
    for _ in range(70):
        left, right = high - golden * (high - low), low + golden * (high - low)
        v_left, v_right = formula(left), formula(right)
        top = max(top, v_left, v_right)
        low, high = (left, high) if v_left < v_right else (low, right)
    return top


@pytest.mark.parametrize(("p_a", "p_b"), PAIRS)
def test_lecuyer_is_the_supremum_of_its_formula(p_a, p_b):
    with mpmath.workdps(50):
        a, b = mpmath.mpf(p_a), mpmath.mpf(p_b)
        top = mpmath.mpf(1) if p_b == 0 else min(mpmath.mpf(1), mpmath.log(a / b) / 2)
        points = [top * (i + mpmath.mpf("1e-9")) / 201 for i in range(201)] + [top * (1 - mpmath.mpf("1e-30"))]
        truth = exact_supremum(lambda at: lecuyer_formula(at, a, b), points)
        assert lecuyer_radius(p_a, p_b) <= truth
        assert lecuyer_radius(p_a, p_b) >= truth - 1e-6 * min(1, truth)


@pytest.mark.parametrize(("p_a", "p_b"), PAIRS)
def test_li_is_the_supremum_of_its_formula(p_a, p_b):
    with mpmath.workdps(50):
        a, b = mpmath.mpf(p_a), mpmath.mpf(p_b)
        points = [mpmath.mpf(10) ** (mpmath.mpf(i) / 40 + mpmath.mpf("1e-5")) for i in range(-200, 201)]
        truth = exact_supremum(lambda at: li_formula(at, a, b), points)
        assert li_radius(p_a, p_b) <= truth
        assert li_radius(p_a, p_b) >= truth - 1e-6


def test_cohen_beats_li_beats_lecuyer():
    p_a, p_b = np.array(PAIRS[:-2]).T
    cohen, li, lecuyer = (f(p_a, p_b, 0.5) for f in (cohen_radius, li_radius, lecuyer_radius))
    assert np.all(cohen > li)
    assert np.all(li > lecuyer)
    assert np.all(lecuyer > 0)


@pytest.mark.parametrize("radius", [cohen_radius, li_radius, lecuyer_radius])
def test_radii_grow_with_p_a_and_sigma_and_shrink_with_p_b(radius):
    grid = np.linspace(0.02, 0.98, 25)
    p_a, p_b = np.meshgrid(grid, grid, indexing="ij")
    valid = p_a + p_b <= 1
    table = np.where(valid, radius(p_a, np.where(valid, p_b, 0.0)), np.nan)
    with np.errstate(invalid="ignore"):
        assert not np.any(np.diff(table, axis=0) < -1e-9)
        assert not np.any(np.diff(table, axis=1) > 1e-9)
    assert np.all(table[valid & (p_a <= p_b)] == 0)
    assert np.all(table[valid & (p_a > p_b + 0.01)] > 0)
    assert radius(0.8, 0.1, 3.0) == pytest.approx(3 * radius(0.8, 0.1), rel=1e-9)
    assert radius(0.8) == radius(0.8, 1 - 0.8)


@pytest.mark.parametrize("radius", [cohen_radius, li_radius, lecuyer_radius])
def test_radii_of_the_corners_are_quiet(radius):
    """Nothing can be said at (0, 0) or (1, 1); a sure class is certified as far as numbers go. No warnings."""
    with np.errstate(invalid="raise", divide="raise"):
        assert np.array_equal(radius([0.0, 1.0, 0.0, 0.5], [0.0, 1.0, 1.0, 0.5]), np.zeros(4))
        assert radius(1.0, 0.0) > 0.5


@pytest.mark.parametrize("radius", [cohen_radius, li_radius, lecuyer_radius])
@pytest.mark.parametrize(("p_a", "p_b", "sigma", "message"), [
    (1.1, 0.1, 1.0, "probabilities"), (0.5, -0.1, 1.0, "probabilities"), (np.nan, 0.1, 1.0, "probabilities"),
    (0.9, np.nan, 1.0, "probabilities"), (0.9, 0.1, 0.0, "sigma"), (0.9, 0.1, -1.0, "sigma"),
    (0.9, 0.1, np.nan, "sigma"), (0.9, 0.1, np.inf, "sigma"), (0.9, 0.1, "1", "sigma"), (0.9, 0.1, True, "sigma"),
])
def test_bad_probabilities_and_sigma_are_refused(radius, p_a, p_b, sigma, message):
    with pytest.raises(InputError, match=message):
        radius(p_a, p_b, sigma)


@pytest.mark.parametrize("tau", [0.0, 0.01, 0.1, 0.3, 0.49])
def test_a_margin_shrinks_the_radius_by_sigma_quantile(tau):
    sigma = 0.7
    p_a = np.array([0.995, 0.999, 0.9999])
    with_margin = gaussian_radius(bounds(p_a, 1 - p_a), sigma, tau)
    shrunk = gaussian_radius(bounds(p_a, 1 - p_a), sigma) - sigma * special.ndtri(0.5 + tau)
    assert with_margin == pytest.approx(shrunk, abs=1e-12)
    assert np.all(with_margin > 0)
    for value, p in zip(with_margin, p_a, strict=True):
        with mpmath.workdps(50):
            inside = exact.exact_quantile(p) - exact.exact_quantile(mpmath.mpf(tau) + mpmath.mpf("0.5"))
            assert value <= mpmath.mpf(sigma) * inside
            reached = mpmath.ncdf(exact.exact_quantile(p) - mpmath.mpf(float(value)) / mpmath.mpf(sigma))
            assert reached >= mpmath.mpf(tau) + mpmath.mpf("0.5")  # what the margin promises, at the edge of the ball


def test_a_margin_above_the_bound_leaves_nothing():
    assert gaussian_radius(bounds(0.7, 0.3), 1.0, 0.2) == 0
    assert gaussian_radius(bounds(0.7, 0.3), 1.0, 0.3) == 0
    assert gaussian_radius(bounds(0.7, 0.3), 1.0, 0.19) > 0


@pytest.mark.parametrize("tau", [-0.01, 0.5, 0.7, np.nan, np.inf, True, "x"])
def test_bad_margins_are_refused(tau):
    with pytest.raises(InputError, match="margin"):
        gaussian_radius(bounds(0.9, 0.1), 1.0, tau)


def test_linf_is_the_inscribed_ball_and_never_above_it():
    assert float(linf_radius(0.435, 3072)) == pytest.approx(2 / 255, rel=2e-3)
    assert linf_radius(0.0, 5) == 0
    rng = np.random.default_rng(3)
    for radius, dimension in zip(rng.uniform(0.01, 8, 3000), rng.integers(1, 5000, 3000), strict=True):
        value = float(linf_radius(radius, int(dimension)))
        with mpmath.workdps(50):
            truth = mpmath.mpf(float(radius)) / mpmath.sqrt(int(dimension))
            assert value <= truth, (radius, dimension)
            assert value >= truth * (1 - mpmath.mpf("1e-15"))


@pytest.mark.parametrize("dimension", [0, -1, 2.5, True])
def test_linf_needs_a_whole_dimension(dimension):
    with pytest.raises(InputError, match="dimension"):
        linf_radius(1.0, dimension)


@pytest.mark.parametrize("alpha", [0.1, 0.001, 1e-6])
def test_max_radius_is_what_full_agreement_certifies(alpha):
    for n in (20, 100, 10**5, 10**10):
        top = float(max_radius(n, alpha, 0.5))
        assert top == float(certify_counts([1, 0], [n, 0], 0.5, alpha, "cohen").radius)
        with mpmath.workdps(60):
            truth = exact.exact_quantile(mpmath.mpf(alpha) ** (mpmath.mpf(1) / n)) / 2
            assert top <= max(truth, 0)
            assert top >= truth - 1e-11
    assert np.all(np.diff(max_radius(10 ** np.arange(2, 11), alpha)) > 0)


@pytest.mark.parametrize(("n", "alpha", "sigma"), [(0, 0.1, 1.0), (-3, 0.1, 1.0), (np.nan, 0.1, 1.0), (10, 0.0, 1.0),
                                                   (10, 1.0, 1.0), (10, 0.1, 0.0)])
def test_max_radius_refuses_bad_input(n, alpha, sigma):
    with pytest.raises(InputError), np.errstate(divide="raise"):
        max_radius(n, alpha, sigma)
