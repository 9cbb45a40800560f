"""Values of two processors are one value up to rounding, and what passes for one is still proved."""

import math

import mpmath
import numpy as np
import pytest

from smoothcert.stats import certify_counts, is_same


@pytest.mark.parametrize("n", [2, 5, 129, 1000, 10**5, 10**9])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4])
def test_a_radius_that_passes_is_proved_by_its_votes(n, alpha):
    """All n votes agree: R = sigma Phi^-1(alpha^(1/n)), here with 50 digits."""
    sigma = 0.25
    radius = float(certify_counts([0, 1], [0, n], sigma, alpha, "cohen").radius)
    with mpmath.workdps(50):
        p = mpmath.mpf(alpha) ** (mpmath.mpf(1) / n)
        exact = sigma * mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1)
        if exact <= 0:
            assert radius == 0
            return
    largest = radius
    for step in 2.0 ** np.arange(-60, -40, 0.25):
        if is_same("radius", radius * (1 + step), radius, sigma):
            largest = max(largest, radius * (1 + step))
    assert largest > radius
    assert largest < exact
    assert not is_same("radius", radius + 1e-12, radius, sigma)


@pytest.mark.parametrize(("name", "stored", "found", "same"), [
    ("radius", math.nextafter(0.3, 1), 0.3, True), ("radius", math.nextafter(0.3, 0), 0.3, True),
    ("radius", 1e-300, 0.0, False), ("radius", 0.0, 1e-17, True), ("radius", math.nan, 0.3, False),
    ("radius", math.inf, 0.3, False), ("radius", None, 0.3, False), ("p_value", 1e-200 * (1 + 1e-12), 1e-200, True),
    ("p_value", 1e-200 * (1 - 1e-10), 1e-200, False), ("p_value", 1e-200, 0.0, False), ("loss", 1 + 2**-52, 1.0, False),
    ("prediction", 1, 2, False), ("prediction", -1, -1, True), ("p_value", None, None, True),
])
def test_only_radii_and_p_values_are_compared_up_to_rounding(name, stored, found, same):
    assert is_same(name, stored, found, 0.5) is same
