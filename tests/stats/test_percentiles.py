"""Ranks, intervals and sketches of median smoothing, against sums in exact fractions and known laws."""

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from smoothcert.errors import InputError
from smoothcert.stats.percentiles import PercentilePlan, interval_ranks, least_samples, order_statistics


def pmf(n: int, p: float) -> list[Fraction]:
    """Bin(n, p) by the recursion over trials, in fractions."""
    mass = [Fraction(1)]
    for _ in range(n):
        mass = [(mass[k] if k < len(mass) else 0) * (1 - Fraction(p)) + (mass[k - 1] if k else 0) * Fraction(p)
                for k in range(len(mass) + 1)]
    return mass


@pytest.mark.parametrize(("n", "percentile", "shift", "alpha"), [
    (11, 0.5, 0.0, 0.001), (20, 0.5, 0.25, 0.05), (37, 0.9, 0.1, 0.01), (60, 0.2, 0.5, 0.2), (12, 0.5, 0.0, 0.4),
    (33, 0.05, 0.0, 0.5)])
def test_ranks_are_the_sharpest_that_the_binomial_law_allows(n, percentile, shift, alpha):
    found = interval_ranks(n, percentile, shift, alpha)
    z, level = ndtri(percentile), Fraction(alpha) / 2
    below, above = pmf(n, float(ndtr(z - shift))), pmf(n, float(ndtr(z + shift)))
    lower = [k for k in range(1, n + 1) if sum(below[:k]) <= level]
    upper = [k for k in range(1, n + 1) if sum(above[k:]) <= level]
    assert found == ((max(lower), min(upper)) if lower and upper else None)


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_the_least_n_is_the_first_that_has_ranks(shift):
    n = least_samples(0.5, shift, 0.01)
    assert interval_ranks(n, 0.5, shift, 0.01) is not None
    assert n == 1 or interval_ranks(n - 1, 0.5, shift, 0.01) is None
    assert least_samples(0.5, 9.0, 0.01) is None


@pytest.mark.parametrize(("percentile", "alpha", "n"), [(0.5, 0.2, 14), (0.7, 0.3, 16), (0.5, 0.5, 9)])
@pytest.mark.parametrize("radius", [0.0, 0.15, 0.35])
def test_intervals_of_steps_fail_at_most_alpha(percentile, alpha, n, radius):
    """f counts the thresholds that x + e has passed: all outcomes of three values are enumerated, with their ties, and
    both percentiles of the shifted function, the worst there is, have to lie inside."""
    plan = PercentilePlan(1.0, (radius,), n, alpha, percentile)
    thresholds = np.array([-0.3, ndtri(1 - percentile) if radius == 0 else 0.5])  # at 0 a flat step at p itself
    thresholds.sort()

    def masses(at: float) -> np.ndarray:
        return -np.diff([1.0, *ndtr(at - thresholds), 0.0])

    here, failed = masses(0.0), {-radius: 0.0, radius: 0.0}
    for first, second in product(range(n + 1), repeat=2):
        if (third := n - first - second) < 0:
            continue
        chance = comb(n, first) * comb(n - first, second) * float(np.prod(here ** [first, second, third]))
        ordered = np.repeat([0, 1, 2], [first, second, third])
        low, high = ordered[plan.ranks[0] - 1]
        for moved in failed:
            law = np.cumsum(masses(moved))
            least = int(np.argmax(law >= percentile - 1e-12))
            most = int(np.argmax(law > percentile + 1e-12))
            failed[moved] += chance * (low > least or high < most)
    assert max(failed.values()) <= alpha


def test_intervals_of_a_linear_function_fail_at_most_alpha():
    """The percentile of w x + b moves by |w| r exactly: no interval can be narrower, and few end inside."""
    random, plan = np.random.default_rng(0), PercentilePlan(0.5, (0.4,), 200, 0.1)
    samples = np.sort(3 * 0.5 * random.standard_normal((4000, 200)), axis=1)
    low, high = samples[:, plan.ranks[0] - 1].T
    missed = (low > -1.2) | (high < 1.2)
    assert 0.03 < missed.mean() <= 0.1


def test_outputs_share_alpha():
    one, two = (PercentilePlan(1.0, (0.5,), 1000, 0.01, outputs=m).ranks for m in (1, 2))
    assert two.tolist() == PercentilePlan(1.0, (0.5,), 1000, 0.005).ranks.tolist()
    assert two[0, 0] < one[0, 0]


def test_radii_beyond_n_are_refused_with_the_least_n():
    with pytest.raises(InputError, match=r"radius 1: .* needs n 301 or more\nn 100 .* radius 20: .* more than"):
        PercentilePlan(0.5, (0.1, 1.0, 20.0), 100, 0.002)
    assert least_samples(0.5, 2.0, 0.002) == 301
    PercentilePlan(0.5, (0.1, 1.0), 301, 0.002)
    for wrong in ({"percentile": 1.0}, {"percentile": 0.0}, {"radii": ()}, {"radii": (0.1, 0.1)}, {"alpha": 0.0},
                  {"n": 0}, {"radii": (-1.0,)}, {"outputs": 0}, {"n": 10**11}):
        with pytest.raises(InputError):
            PercentilePlan(**{"sigma": 0.5, "radii": (0.1,), **wrong})


def test_a_sketch_gives_every_radius_and_level_within_n():
    """At its own ranks exactly; elsewhere no narrower, and no wider than at a radius of sigma / 32 more."""
    plan = PercentilePlan(1.0, (0.25, 0.5), 2000, 0.01)
    values = np.random.default_rng(1).standard_normal((2000, 1)).astype(np.float32)
    kept, ordered = plan.sketch(), np.sort(values[:, 0])
    sketch = order_statistics(values, kept)[:, 0]
    assert sketch.tolist() == ordered[kept - 1].tolist()
    assert plan.is_exact(kept).all()
    middle, below, above = plan.read(kept, sketch)
    assert middle == ordered[999]
    assert np.stack([below, above], axis=1).tolist() == ordered[plan.ranks - 1].tolist()
    for radius, alpha in product((0.0, 0.1, 0.33, 0.8, 1.6), (0.001, 0.1)):
        other, wider = (PercentilePlan(1.0, (r,), 2000, alpha) for r in (radius, radius + 0.045))
        _, low, high = other.read(kept, sketch)
        ends, most = (ordered[one.ranks[0] - 1] for one in (other, wider))
        assert most[0] <= low[0] <= ends[0] <= ends[1] <= high[0] <= most[1]


def test_infinite_values_are_ordered_as_values():
    values = np.array([[np.inf], [0.0], [-np.inf]], dtype=np.float32)
    assert order_statistics(values, np.array([1, 3]))[:, 0].tolist() == [-np.inf, np.inf]
