"""Sizes of whole curves: what they lose of the radius, by exact sums, and up to which radius they care."""

from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.stats import METHODS, certify_counts, gaussian_radius
from smoothcert.stats.sizing import size_curves

N_MAX, PILOT, ALPHA = 20_000, 500, 0.001


def sizes(n_a, rival=None, loss=0.01, method="cohen", margin=None, to=None, sigma=1.0, n_max=N_MAX):
    n_a = np.atleast_1d(n_a)
    rival = PILOT - n_a if rival is None else np.atleast_1d(rival)
    radius_of = partial(gaussian_radius, sigma=sigma, margin=margin)
    return size_curves(n_a, rival, PILOT, n_max, loss, ALPHA, method, radius_of, to)


def mean_radius(n, p, to=np.inf):
    """The radius of CERTIFY that is expected of n votes, exactly, one probability at a time."""
    low, high = stats.binom.ppf([1e-9, 1 - 1e-9], n, p).astype(int)
    k = np.arange(low, high + 1)
    counts = np.column_stack([k, n - k])
    radius = certify_counts(np.tile([1, 0], (len(k), 1)), counts, 1.0, ALPHA, "cohen").radius
    return float(stats.binom.pmf(k, n, p) @ np.minimum(radius, to))


class TestLoss:
    @pytest.mark.parametrize(("loss", "to"), [(0.02, None), (0.2, None), (0.05, 2.0)])
    def test_the_mean_radius_lost_is_within_what_was_allowed(self, loss, to):
        """Over images from a coin's toss to certainty; each one's pilot is drawn too."""
        p = np.concatenate([special.ndtr(np.linspace(0.05, 3.5, 20)), [1 - 1e-6] * 4])
        rng, lost, full, drawn = np.random.default_rng(1), 0.0, 0.0, []
        for each in p:
            n, times = np.unique(sizes(rng.binomial(PILOT, each, 12), loss=loss, to=to), return_counts=True)
            most = mean_radius(N_MAX, each, to or np.inf)
            got = [mean_radius(m, each, to or np.inf) if m else 0 for m in n]
            full += most * times.sum()
            lost += (most - np.array(got)) @ times
            drawn.append(n @ times / times.sum())
        assert 0.3 * loss < lost / full <= loss
        assert np.mean(drawn) < 0.8 * N_MAX

    def test_a_smaller_loss_takes_more(self):
        found = [sizes([300, 400, 450, 490, 500], loss=loss) for loss in (0.001, 0.01, 0.1)]
        assert np.all(np.diff(found, axis=0) < 0)
        assert np.all(found[0] <= N_MAX)

    @pytest.mark.parametrize("method", METHODS)
    def test_hopeless_and_tiny_radii_take_no_sample(self, method):
        assert sizes([150], [340], method=method).tolist() == [0]
        n = sizes([235], [265], method=method, loss=0.3)
        assert n.tolist() == [0]  # all that it may have is less than 30 % of sigma / 50

    def test_units_and_company_do_not_matter(self):
        n_a = np.array([260, 300, 400, 490, 500, 400])
        alone = [int(sizes(k)[0]) for k in n_a]
        assert sizes(n_a).tolist() == alone == sizes(n_a, sigma=0.25).tolist()

    def test_sizes_are_quick(self):
        rng = np.random.default_rng(0)
        n_a = rng.integers(200, PILOT + 1, 300)
        found = sizes(n_a, ((PILOT - n_a) * rng.uniform(0, 1, 300)).astype(int), method="two-sided")
        assert found.max() <= N_MAX


class TestTo:
    def test_no_sample_for_radii_beyond(self):
        """Unanimous votes reach radius 2 with few samples, and the largest radius only with nearly all of them."""
        whole, capped, less = (int(sizes(500, to=to)[0]) for to in (None, 2.0, 0.5))
        assert less < capped < 1000 < whole
        assert special.ndtri(ALPHA ** (1 / capped)) > 0.99 * 2.0  # what a loss of 1 % leaves

    def test_a_radius_out_of_reach_changes_little(self):
        assert sizes([300, 400], to=100.0) == pytest.approx(sizes([300, 400], loss=0.01 * 0.8 / 0.97), rel=0.01)

    def test_it_is_in_the_units_of_the_noise(self):
        assert sizes(500, to=0.5, sigma=0.25) == sizes(500, to=2.0)


class TestTwoSided:
    def test_few_votes_for_rivals_save_samples_near_a_half(self):
        """At 52 % the radius is near 0 if one rival has the rest, and far from it if many do."""
        one, many = sizes([260, 260], [240, 50], method="two-sided")
        assert many < one

    def test_a_margin_is_asked_for(self):
        assert sizes(400, method="two-sided", margin=0.1) != sizes(400, method="two-sided")
        assert sizes(280, margin=0.4).tolist() == [0]
