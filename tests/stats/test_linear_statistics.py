"""Linear binary classifiers, whose margin is the true radius: sigma Phi^-1(p_A), so certificates can be marked."""

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.stats import certify_counts


@pytest.mark.parametrize("method", ["cohen", "two-sided"])
@pytest.mark.parametrize("n", [100, 1000, 100_000])
def test_no_more_false_certificates_than_alpha_allows(method, n):
    """1,000 classifiers f(x) = sign(<w, x> + b) with margin m: p_A = Phi(m / sigma). The class is picked from separate
    samples, and may be the wrong one, whose radius is 0."""
    rng = np.random.default_rng([n, len(method)])
    sigma, alpha, classifiers = 0.5, 0.05, 1000
    margin = sigma * special.ndtri(rng.uniform(0.5, 0.9999, classifiers))
    p_a = special.ndtr(margin / sigma)
    votes = rng.binomial(25, p_a)
    selection = np.stack([votes, 25 - votes], axis=1)
    votes = rng.binomial(n, p_a)
    result = certify_counts(selection, np.stack([votes, n - votes], axis=1), sigma, alpha, method)
    truth = np.where(result.prediction == 1, 0.0, margin)
    exceeded = int((result.radius > truth).sum())
    assert stats.binom.sf(exceeded - 1, classifiers, alpha) >= 1e-3
    if method == "cohen":  # and it is not slack: nearly all of alpha is used
        assert exceeded >= 20
    assert np.mean(result.radius > 0) > 0.5


@pytest.mark.parametrize("method", ["cohen", "two-sided"])
def test_radius_tends_to_the_margin(method):
    """At n = 1e6, alpha = 1e-6 and expected counts the radius is within 2 % of the margin, from below."""
    n, sigma = 10**6, 0.25
    p_a = np.linspace(0.7, 0.999, 60)
    votes = np.floor(n * p_a).astype(int)
    counts = np.stack([n - votes, votes], axis=1)
    result = certify_counts(np.tile([0, 1], (60, 1)), counts, sigma, 1e-6, method)
    margin = sigma * special.ndtri(p_a)
    assert np.all(result.prediction == 1)
    assert np.all(result.radius < margin)
    assert np.all(result.radius > 0.98 * margin)
