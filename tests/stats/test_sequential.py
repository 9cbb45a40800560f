"""Bounds over several looks: what is spent, exact coverage under any stopping rule, the tables behind them."""

import importlib
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError
from smoothcert.stats import METHODS, RadiiCertify, gaussian_radius
from smoothcert.stats.binomial import lower_limit
from smoothcert.stats.earlier import EarlierRadii, EarlierSequential
from smoothcert.stats.sequential import (
    LimitTable,
    RunningBounds,
    Seen,
    doubling_looks,
    growing_looks,
    spending_shares,
)

EVIDENCE = str(Path(__file__).parents[2] / "evidence")
sys.path.insert(0, EVIDENCE)
exact = importlib.import_module("lookwise")
simplex = importlib.import_module("enumeration").simplex
sys.path.remove(EVIDENCE)

SIGMA, ROUNDING = 0.5, 1 + 1e-10
RADIUS_OF = partial(gaussian_radius, sigma=SIGMA)
METHODS_HERE = ("cohen", "two-sided")


def plan_at(n_max, alpha, method, radii=(0.25,)):
    return RadiiCertify(10, n_max, radii, alpha, method, None, RADIUS_OF)


def bounds_at(looks, alpha, method, last=0.8):
    alphas = tuple(alpha * share for share in spending_shares(len(looks), last))
    return RunningBounds(looks, alphas, method)


def one_each(look, n_a, rival):
    """M images, each seen at one look."""
    n_a = np.atleast_1d(n_a)
    owner = np.arange(len(n_a))
    return Seen(len(n_a), owner, np.full(len(n_a), look), n_a, np.broadcast_to(rival, n_a.shape))


class TestDesign:
    @pytest.mark.parametrize("n_max", [1, 15, 16, 17, 99, 100, 101, 200, 1000, 100_000])
    def test_looks_ascend_to_n_max(self, n_max):
        for looks, first in ((doubling_looks(n_max), 100), (growing_looks(n_max), 16)):
            assert looks[-1] == n_max
            assert looks[0] == min(first, n_max)
            assert all(a < b for a, b in pairwise(looks))

    def test_looks_of_the_published_design(self):
        assert len(doubling_looks(100_000)) == 11
        assert all(b == 2 * a for a, b in pairwise(doubling_looks(100_000)[:-1]))
        growth = [b / a for a, b in pairwise(growing_looks(10**6)[:-1])]
        assert max(growth) <= 1.5
        assert min(growth) > 1.45

    @pytest.mark.parametrize(("m", "last"), [(1, 0.8), (2, 0.8), (11, 0.8), (23, 0.7)])
    def test_shares_spend_all_of_alpha_and_no_more(self, m, last):
        shares = spending_shares(m, last)
        assert len(shares) == m
        assert sum(shares) == pytest.approx(1, abs=1e-15)
        assert shares[-1] == (last if m > 1 else 1)
        assert len(set(shares[:-1])) <= 1


class TestBounds:
    @pytest.mark.parametrize("method", METHODS_HERE)
    def test_one_look_is_the_fixed_procedure(self, method):
        n, alpha = 300, 0.01
        n_a = np.repeat(np.arange(0, n + 1, 20), 3)
        rival = (n - n_a) * np.tile([0, 1, 2], len(n_a) // 3) // 2
        got = bounds_at((n,), alpha, method).prove(one_each(0, n_a, rival))
        expected = METHODS[method](n_a, rival[:, None], np.full(len(n_a), n), alpha)
        for name in ("p_a", "q_a", "p_b", "q_b"):
            assert np.array_equal(getattr(got, name), getattr(expected, name))

    def test_bounds_are_the_best_of_all_looks(self):
        """Running maximum of p_a and minimum of p_b, each look at its own levels; taken from the definition."""
        looks, alpha = (100, 200, 400), 0.02
        shares = spending_shares(3, 0.8)
        n_a, rival = np.array([97, 180, 350]), np.array([3, 5, 50])
        seen = Seen(2, np.array([1, 1, 1]), np.arange(3), n_a, rival)
        got = bounds_at(looks, alpha, "two-sided").prove(seen)
        p_a = max(stats.beta.ppf(0.9 * alpha * s, k, n - k + 1) for s, k, n in zip(shares, n_a, looks, strict=True))
        p_b = min(stats.beta.isf(0.1 * alpha * s, k + 1, n - k) for s, k, n in zip(shares, rival, looks, strict=True))
        assert (got.p_a[1], got.p_b[1]) == pytest.approx((p_a, min(p_b, 1 - p_a)), rel=1e-9)
        assert np.argmax([k / n for k, n in zip(n_a, looks, strict=True)]) == 0  # an early look may be the best one
        assert (got.p_a[0], got.p_b[0]) == (0, 1)  # an image never looked at: nothing is known
        one_sided = bounds_at(looks, alpha, "cohen").prove(seen)
        assert one_sided.p_b[1] == one_sided.q_a[1]

    def test_a_further_look_never_loosens(self):
        bounds = bounds_at((100, 200, 400), 0.05, "two-sided")
        rng = np.random.default_rng(1)
        counts = rng.multinomial(np.array([100, 100, 200]), [0.6, 0.3, 0.1], size=(200, 3)).cumsum(axis=1)
        before = np.zeros(200)
        for m in (1, 2, 3):
            radius = exact.path_radii(bounds, counts[:, :m])
            assert np.all(radius >= before)
            before = radius
        assert before.max() > 0

    def test_hoped_for_bounds_are_limits_the_other_way(self):
        beta = 0.01
        seen = Seen(1, np.zeros(2, int), np.arange(2), np.array([60, 110]), np.array([40, 90]))
        hoped = EarlierRadii(10, 200, (0.25,), 0.001, "cohen", None, RADIUS_OF).hope(seen)
        expected = min(stats.beta.isf(beta / 2, k + 1, n - k) for k, n in ((60, 100), (110, 200)))
        assert hoped.p_a[0] == pytest.approx(expected, rel=1e-9)
        assert hoped.p_b[0] == hoped.q_a[0] == pytest.approx(1 - expected, rel=1e-9)
        hoped = EarlierRadii(10, 200, (0.25,), 0.001, "two-sided", None, RADIUS_OF).hope(seen)
        rival = max(stats.beta.ppf(beta / 4, k, n - k + 1) for k, n in ((40, 100), (90, 200)))
        assert hoped.p_b[0] == pytest.approx(rival, rel=1e-9)

    def test_t_certify_is_refused_with_the_reason(self):
        with pytest.raises(InputError, match="each look spends its own part of alpha"):
            bounds_at((100,), 0.001, "t-certify")


class TestTable:
    @pytest.mark.parametrize("first", [True, False])
    def test_limits_have_the_bits_of_a_direct_computation(self, first):
        rows = ((100, 0.001), (100, 0.3), (1600, 1e-5), (3200, 0.01), (100_000, 0.02), (1 << 18, 0.1), (10**7, 0.05))
        table = LimitTable(rows)
        rng = np.random.default_rng(0)
        row = rng.integers(0, len(rows), 300)
        n, level = (np.array(column) for column in zip(*rows, strict=True))
        k = np.where(rng.random(300) < 0.3, n[row] * rng.integers(0, 2, 300), rng.integers(0, n[row] + 1))
        if not first:
            table.lower(row[::2], k[::2])
        for got, expected in zip(table.lower(row, k), lower_limit(k, n[row], level[row]), strict=True):
            assert np.array_equal(got, expected)
        for i in (0, 7, 19):  # alone as in company
            assert table.lower(row[[i]], k[[i]])[0] == lower_limit(k[i], n[row[i]], level[row[i]])[0]

    def test_every_count_of_a_small_look(self):
        table = LimitTable(((100, 0.01), (130, 0.02)))
        for row, n in enumerate((100, 130)):
            k = np.arange(n + 1)
            got = table.lower(np.full(n + 1, row), k)
            assert np.array_equal(np.stack(got), np.stack(lower_limit(k, n, (0.01, 0.02)[row])))


class TestExactCoverage:
    @pytest.mark.parametrize("method", METHODS_HERE)
    @pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
    @pytest.mark.parametrize("n_max", [100, 250, 800])
    def test_two_classes_whatever_the_stopping_rule(self, n_max, alpha, method):
        """Under the plan's own rule and under an adversary, who stops as soon as the certificate is false; at the
        probabilities where failure peaks (a hair below each one that some count would certify), and others."""
        plan = plan_at(n_max, alpha, method)
        radii, stops = exact.radii_by_look(plan), exact.stops_by_look(plan)
        peaks = exact.jumps(SIGMA, radii)
        some = peaks[np.linspace(0, len(peaks) - 1, 30).astype(int)]
        for p in (*some, 0.3, 0.6, 0.999, float(special.ndtr(0.25 / SIGMA)) - 1e-9):
            adversary, _ = exact.certificate_failure(plan, SIGMA, p, radii)
            own, _ = exact.certificate_failure(plan, SIGMA, p, radii, stops)
            assert own <= adversary * ROUNDING
            assert adversary <= alpha * ROUNDING

    def test_the_grid_finds_the_worst_case_and_a_false_claim(self):
        """At one look Cohen's bound is met with equality; the whole alpha at each of four looks fails with more."""
        alpha = 0.05
        single = EarlierRadii(10, 100, (0.25,), alpha, "cohen", None, RADIUS_OF)
        radii = exact.radii_by_look(single)
        worst = max(exact.certificate_failure(single, SIGMA, p, radii)[0] for p in exact.jumps(SIGMA, radii))
        assert worst == pytest.approx(alpha, rel=1e-6)
        looks = doubling_looks(800)
        greedy = RunningBounds(looks, (alpha,) * 4, "cohen")
        failing = [RADIUS_OF(greedy.prove(one_each(i, np.arange(n + 1), 0))) > SIGMA * special.ndtri(0.7)
                   for i, n in enumerate(looks)]
        assert exact.walk(looks, failing, [np.zeros_like(f) for f in failing], 0.7)[0] > 1.5 * alpha

    @pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
    @pytest.mark.parametrize("looks", [(5, 20), (4, 8, 16), (3, 9, 10, 20)])
    def test_three_classes_two_sided(self, looks, alpha):
        """All paths of counts over the looks. The radius only grows along a path, so its end is the worst stop."""
        counts, log_orders = exact.paths(looks)
        assert np.exp(log_orders + counts[:, -1] @ np.log([0.2, 0.3, 0.5])).sum() == pytest.approx(1, abs=1e-12)
        radius = exact.path_radii(bounds_at(looks, alpha, "two-sided"), counts)
        p = np.concatenate([simplex(8), exact.path_points(radius, 25, 4)])
        failure = exact.path_failure(p, counts, log_orders, radius)
        assert failure.max() <= alpha * ROUNDING
        assert failure.max() > 0.2 * alpha

    @pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
    @pytest.mark.parametrize("n_max", [10, 16, 24, 100, 700])
    def test_sequential_predict_at_and_beside_a_tie(self, n_max, alpha):
        plan = EarlierSequential(n_max, alpha)
        at_tie, samples = exact.prediction_failure(plan, 0.5)
        assert at_tie <= alpha * ROUNDING
        assert at_tie > 0.2 * alpha or 2.0 ** (1 - n_max) > alpha
        assert samples <= n_max
        for p in (0.5 + 1e-9, 0.51, 0.6):
            assert exact.prediction_failure(plan, p)[0] <= at_tie / 2 * ROUNDING


class TestDefaults:
    """The published design, n_max = 100,000, simulated; exact enumeration would be too large."""

    LOOKS = doubling_looks(100_000)

    def paths(self, p, size, seed):
        steps = np.diff(self.LOOKS, prepend=0)
        return np.random.default_rng(seed).multinomial(steps, p, size=(size, len(steps))).cumsum(axis=1)

    @pytest.mark.parametrize("method", METHODS_HERE)
    @pytest.mark.parametrize("p_a", [0.501, float(special.ndtr(1.0)), 0.99])
    def test_false_certificates_are_rare_enough(self, p_a, method):
        size, alpha = 2000, 0.05
        p = np.array([p_a, 0.9 * (1 - p_a), 0.1 * (1 - p_a)])
        radius = exact.path_radii(bounds_at(self.LOOKS, alpha, method), self.paths(p, size, 3))
        rival = p[1] if method == "two-sided" else 1 - p_a
        truth = (special.ndtri(p_a) - special.ndtri(rival)) / 2
        false = int((radius > truth).sum())
        assert stats.binom.sf(false - 1, size, alpha) > 1e-4  # no evidence of more than alpha
        assert false > 0.1 * alpha * size  # and alpha is really spent
