"""A data set's certified accuracy: every bound against its definition, and its coverage."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats

from smoothcert.errors import InputError
from smoothcert.stats import average_certified_radius, certified_accuracy, clopper_pearson
from smoothcert.stats.intervals import bernstein_bound, false_claims, population_bound, truly_robust

SMALL = [(m, alpha, rho) for m in (1, 2, 7, 25) for alpha in (0.001, 0.03, 0.2, 0.6) for rho in (0.01, 0.05, 0.3)]


def fraction_tail(k, n, p):
    """P(Bin(n, p) >= k) in rationals."""
    p = Fraction(p)
    return sum((comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(max(k, 0), n + 1)), Fraction(0))


def test_check_values_of_the_guide():
    """m = 500, C / m = .6, alpha = .001, rho = .05."""
    result = certified_accuracy(np.ones(500), np.arange(500) < 300, [0.5], alpha=0.001, rho=0.05)
    assert result.accuracy[0] == 0.6
    assert result.test_set[0] == 0.5980
    assert round(float(result.bernstein[0]), 4) == 0.5935
    assert round(float(result.population[0]), 4) == 0.5622
    assert (result.m, result.claimed[0]) == (500, 300)


@pytest.mark.parametrize(("m", "alpha", "rho"), SMALL)
def test_truly_robust_is_its_definition(m, alpha, rho):
    """T_L = min {T : P(Bin(m - T, alpha) >= C - T) > rho}, by a scan from T = 0 in rationals."""
    for claimed in range(m + 1):
        scanned = next(t for t in range(claimed + 1) if fraction_tail(claimed - t, m - t, alpha) > Fraction(rho))
        assert truly_robust(claimed, m, alpha, rho) == scanned


@pytest.mark.parametrize(("m", "alpha", "rho"), SMALL)
def test_false_claims_is_its_definition(m, alpha, rho):
    scanned = next(q for q in range(m + 1) if fraction_tail(q + 1, m, alpha) <= Fraction(rho))
    assert false_claims(m, alpha, rho) == scanned


def test_bernstein_and_population_are_their_formulas():
    for m, alpha, rho in SMALL:
        claimed = np.arange(m + 1)
        slack = np.sqrt(2 * alpha * (1 - alpha) * -np.log(rho) / m) - np.log(rho) / (3 * m)
        expected = np.maximum(claimed / m - alpha - slack, 0)
        assert bernstein_bound(claimed, m, alpha, rho) == pytest.approx(expected, abs=1e-12)
        limit = stats.beta.ppf(rho, np.maximum(claimed, 1), m - claimed + 1) * (claimed > 0)
        expected = np.maximum((limit - alpha) / (1 - alpha), 0)
        assert population_bound(claimed, m, alpha, rho) == pytest.approx(expected, abs=1e-12)
        assert np.all(population_bound(claimed, m, alpha, rho) <= expected + 1e-15)


@pytest.mark.parametrize(("m", "alpha", "rho"), SMALL)
def test_coverage_of_the_test_set_bounds(m, alpha, rho):
    """T images are truly robust and all claimed, the others are claimed falsely with probability alpha each, which is
    the worst case: P(bound > T) <= rho for every T, by enumeration of the false claims."""
    claimed = np.arange(m + 1)
    exact_bound, loose = truly_robust(claimed, m, alpha, rho), bernstein_bound(claimed, m, alpha, rho)
    everywhere = np.maximum(claimed - false_claims(m, alpha, rho), 0)
    assert np.all(np.diff(exact_bound) >= 0)  # so that unclaimed true images only lower it
    for robust in range(m + 1):
        false = np.arange(m - robust + 1)
        chance = stats.binom.pmf(false, m - robust, alpha)
        assert chance[exact_bound[robust + false] > robust].sum() <= rho * (1 + 1e-12)
        assert chance[loose[robust + false] * m > robust].sum() <= rho * (1 + 1e-12)
        assert chance[everywhere[robust + false] > robust].sum() <= rho * (1 + 1e-12)


def test_the_test_set_bound_cannot_be_raised():
    """One more would break it: at T = T_L(C) the chance to see C or more claims is above rho."""
    for m, alpha, rho in SMALL:
        for claimed in range(m + 1):
            bound = int(truly_robust(claimed, m, alpha, rho))
            assert fraction_tail(claimed - bound, m - bound, alpha) > Fraction(rho)


@pytest.mark.parametrize(("m", "alpha", "rho"), SMALL)
def test_coverage_of_the_population_bound(m, alpha, rho):
    """An image is right and robust with probability pi, and claimed with at most pi + (1 - pi) alpha."""
    claimed = np.arange(m + 1)
    bound = population_bound(claimed, m, alpha, rho)
    jumps = bound[bound > 0] * (1 - 1e-9)
    for robust in np.concatenate([np.linspace(0, 1, 101), jumps]):
        chance = stats.binom.pmf(claimed, m, robust + (1 - robust) * alpha)
        assert chance[bound > robust].sum() <= rho * (1 + 1e-9)
    if jumps.size:
        top = jumps[-1]
        chance = stats.binom.pmf(claimed, m, top + (1 - top) * alpha)
        assert chance[bound > top].sum() == pytest.approx(rho, rel=1e-5)  # met with equality beside a jump


def test_all_radii_holds_at_all_radii_at_once():
    """500 data sets of 150 images with true radii known, certificates that overshoot with probability alpha."""
    rng = np.random.default_rng(11)
    m, alpha, rho, runs, grid = 150, 0.02, 0.1, 500, np.linspace(0.01, 3, 60)
    broken = single = 0
    for _ in range(runs):
        truth = rng.exponential(0.7, m)
        fails = rng.random(m) < alpha
        radius = np.where(fails, truth + rng.exponential(2.0, m), truth * rng.uniform(0.95, 1, m))
        result = certified_accuracy(radius, np.ones(m, bool), grid, alpha, rho)
        truly = (truth[:, None] >= grid).mean(axis=0)
        broken += np.any(result.all_radii > truly)
        single += result.test_set[30] > truly[30]
    for failures in (broken, single):
        assert stats.binomtest(int(failures), runs, rho, alternative="greater").pvalue > 1e-3


def test_all_radii_is_met_in_the_worst_case():
    """No image is robust, every failure overshoots by far: the bound is broken exactly when more than q fail."""
    rng = np.random.default_rng(12)
    m, alpha, rho, runs = 100, 0.05, 0.1, 4000
    failures = rng.binomial(m, alpha, runs)
    claims = [np.arange(m) < f for f in range(failures.max() + 1)]
    is_broken = np.array([np.any(certified_accuracy(9.0 * c, c, [0.5, 1], alpha, rho).all_radii > 0) for c in claims])
    broken = is_broken[failures]
    q = false_claims(m, alpha, rho)
    assert np.mean(broken) == np.mean(failures > q)
    assert stats.binom.sf(q, m, alpha) <= rho < stats.binom.sf(q - 1, m, alpha)


def test_bounds_are_ordered_and_start_from_the_counts():
    rng = np.random.default_rng(3)
    radius, correct = rng.exponential(0.5, 700), rng.random(700) < 0.8
    radii = np.array([0.0, 0.1, 0.5, 0.5, 1.0, 9.0, float(np.sort(radius[correct])[400])])
    result = certified_accuracy(radius, correct, radii)
    assert result.claimed.tolist() == [int(np.sum(correct & (radius >= r))) for r in radii]
    assert np.array_equal(result.accuracy, result.claimed / 700)
    for bound in (result.test_set, result.bernstein, result.population, result.all_radii):
        assert bound.shape == radii.shape
        assert np.all((bound >= 0) & (bound <= result.accuracy))
    assert np.all(result.all_radii <= result.test_set)
    assert np.all(result.bernstein <= result.test_set)
    assert np.all(result.population <= result.test_set)
    assert result.population[5] == 0  # clipped: nothing is claimed there
    assert certified_accuracy(radius, correct, 0.5).accuracy.shape == (1,)
    assert np.array_equal(certified_accuracy(radius, correct.astype(int), radii).claimed, result.claimed)


def test_a_radius_equal_to_the_one_asked_for_counts():
    result = certified_accuracy([0.5, 0.5, np.nextafter(0.5, 0)], [True] * 3, [0.5])
    assert result.claimed[0] == 2


def test_population_bound_uses_the_lower_limit_at_rho():
    result = certified_accuracy(np.ones(40), np.ones(40, bool), [1.0], alpha=0.01, rho=0.2)
    assert result.population[0] == pytest.approx((clopper_pearson(40, 40, 0.2) - 0.01) / 0.99, rel=1e-12)


def test_average_certified_radius():
    assert average_certified_radius([1.0, 3.0, 0.5, 0.0], [True, False, True, False]) == 0.375
    rng = np.random.default_rng(0)
    radius, correct = rng.exponential(0.5, 50), rng.random(50) < 0.7
    area = np.mean([np.mean(correct & (radius >= r)) for r in np.linspace(0, radius.max(), 40_001)]) * radius.max()
    assert average_certified_radius(radius, correct) == pytest.approx(area, rel=1e-3)  # the area under the curve
    assert average_certified_radius([2.0], [False]) == 0.0


@pytest.mark.parametrize(("changes", "message"), [
    ({"radius": []}, "shape"),
    ({"radius": [], "correct": []}, "there are no images"),
    ({"radius": [1.0, 2.0]}, "must both have shape"),
    ({"radius": [[1.0, 2.0, 3.0]]}, "must both have shape"),
    ({"radius": [-1.0, 0.0, 0.0]}, "negative or NaN"),
    ({"radius": [np.nan, 0.0, 0.0]}, "negative or NaN"),
    ({"correct": [0.5, 1.0, 0.0]}, "correct must hold true or false"),
    ({"correct": [2, 1, 0]}, "correct must hold true or false"),
    ({"radii": []}, "radii must be finite"),
    ({"radii": [-0.5]}, "radii must be finite"),
    ({"radii": [np.nan]}, "radii must be finite"),
    ({"radii": [np.inf]}, "radii must be finite"),
    ({"radii": [[0.5]]}, "radii must be finite"),
    ({"alpha": 0.0}, "alpha must lie strictly"),
    ({"alpha": 1.0}, "alpha must lie strictly"),
    ({"rho": 0.0}, "rho must lie strictly"),
    ({"rho": np.nan}, "rho must lie strictly"),
    ({"rho": "x"}, "rho must be a number"),
])
def test_bad_input_is_refused(changes, message):
    arguments = {"radius": [1.0, 0.5, 0.0], "correct": [True, True, False], "radii": [0.5]} | changes
    with pytest.raises(InputError, match=message):
        certified_accuracy(**arguments)
    if set(changes) <= {"radius", "correct"}:
        with pytest.raises(InputError, match=message):
            average_certified_radius(arguments["radius"], arguments["correct"])
