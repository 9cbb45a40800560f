"""Designs of earlier versions: their draws and answers stay what they were."""

import json
from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError
from smoothcert.noise import build_noise
from smoothcert.stats import (
    ABSTAIN,
    Curve,
    Draw,
    FixedPredict,
    Sequential,
    certify_counts,
    certify_plan,
    clopper_pearson,
    gaussian_radius,
    plan_from,
    predict_counts,
    predict_plan,
    reread,
)
from smoothcert.stats.earlier import EarlierCurve, EarlierSequential, curve_sizes
from votes import looks

SIGMA = 0.5
NOISE = build_noise("gaussian", SIGMA)
RADIUS_OF = partial(NOISE.radius, margin=None)


class TestVersions:
    def test_identities_are_those_of_the_stores_that_were_made_with_them(self):
        curve = {"design": "curve", "method": "cohen", "alpha": 0.001, "n0": 1000, "n_max": 20_000, "loss": 0.05,
                 "interval": 0.99, "margin": None}
        plan = EarlierCurve(n_max=20_000, loss=0.05, method="cohen", radius_of=RADIUS_OF)
        assert json.dumps(plan.identity()) == json.dumps(curve)
        sequential = {"design": "sequential", "method": "predict", "alpha": 0.01, "n_max": 500, "looks": "16*1.5^k",
                      "spending": "0.3/0.7"}
        assert json.dumps(EarlierSequential(500, 0.01).identity()) == json.dumps(sequential)
        assert type(plan_from("certify", curve, RADIUS_OF)) is EarlierCurve
        assert type(plan_from("predict", sequential)) is EarlierSequential

    def test_new_runs_take_the_last(self):
        assert type(certify_plan(n_max=500, curve_loss=0.1)) is Curve
        assert type(certify_plan(n_max=500, curve_loss=0.1, version=1)) is EarlierCurve
        assert type(predict_plan(n_max=500)) is Sequential
        assert type(predict_plan(n_max=500, version=1)) is EarlierSequential
        with pytest.raises(InputError, match="version 3 of the design curve, and this release knows 1 and 2"):
            certify_plan(n_max=500, curve_loss=0.1, version=3)

    def test_one_version_is_not_the_other(self):
        assert EarlierCurve() != Curve()
        assert EarlierSequential(500) != Sequential(500)
        for name, value in (("version", 2), ("interval", 0.9)):
            with pytest.raises(InputError):
                plan_from("certify", {**EarlierCurve().identity(), name: value}, RADIUS_OF)

    def test_a_radius_up_to_which_is_newer(self):
        with pytest.raises(InputError, match="curve_to is newer than these records"):
            certify_plan(n_max=500, curve_loss=0.1, curve_to=1.0, version=1)


class TestEarlierCurve:
    def sizes(self, n_a, rival=None, pilot=1000, n_max=100_000, loss=0.01, method="cohen", alpha=0.001):
        n_a = np.atleast_1d(n_a)
        rival = pilot - n_a if rival is None else np.atleast_1d(rival)
        return curve_sizes(n_a, rival, pilot, n_max, loss, alpha, method, partial(gaussian_radius, sigma=1.0))

    @pytest.mark.parametrize("n_a", [540, 560, 750, 970, 990, 1000])
    def test_one_sided_size_is_the_largest_need_over_the_interval(self, n_a):
        """From the definition, over fine grids of n and of p."""
        n_max, loss, alpha = 100_000, 0.01, 0.001
        p = np.linspace(*(float(clopper_pearson(n_a, 1000, 0.005, side)) for side in ("lower", "upper")), 21)[:, None]
        n = np.unique(np.append(np.geomspace(100, n_max, 1000).round(), n_max))
        k = np.floor(n * p + 1e-9)
        radius = np.maximum(special.ndtri(special.betaincinv(k, n - k + 1, alpha)), 0)
        reached = (radius >= (1 - loss) * radius[:, -1:]) & ((radius[:, -1:] > 0) | (n == n_max))
        assert self.sizes(n_a)[0] == pytest.approx(n[reached.argmax(axis=1)].max(), rel=0.03)

    @pytest.mark.parametrize("n_a", [520, 700, 900, 990, 1000])
    def test_two_sided_size_covers_the_whole_rectangle(self, n_a):
        """R at expected counts, and its need, on a grid of (p_A, p_B): nowhere more than 8 % above the size."""
        n_max, loss, alpha, pilot = 100_000, 0.01, 0.001, 1000

        def radius(n, p_a, p_b):
            k_a = np.floor(n * p_a + 1e-9)
            k_b = np.minimum(np.ceil(n * p_b - 1e-9), n - k_a)
            q = 1 - stats.beta.ppf(0.9 * alpha, k_a, n - k_a + 1)
            other = np.where(k_b < n, stats.beta.isf(0.1 * alpha, k_b + 1, np.maximum(n - k_b, 1)), 1.0)
            return np.maximum(-special.ndtri(q) - special.ndtri(np.minimum(other, q)), 0) / 2

        for share in (0.0, 0.2, 0.6, 1.0):
            rival = round((pilot - n_a) * share)
            size = self.sizes(n_a, rival, method="two-sided")[0]
            (low_a, high_a), (low_b, high_b) = (
                [float(clopper_pearson(k, pilot, 0.005, side)) for side in ("lower", "upper")] for k in (n_a, rival))
            p_a, p_b = (a.ravel() for a in np.meshgrid(np.linspace(low_a, high_a, 13), np.linspace(low_b, high_b, 13)))
            p_a, p_b = p_a[p_a + p_b <= 1], p_b[p_a + p_b <= 1]
            at_most = radius(n_max, p_a, p_b)
            if radius(n_max, low_a, min(high_b, 1 - low_a)) <= 0:
                assert size == n_max
                continue
            short = radius(np.minimum(np.ceil(1.08 * size), n_max), p_a, p_b) < (1 - loss) * at_most
            assert not short.any()
            assert size < n_max

    @pytest.mark.parametrize("method", ["cohen", "two-sided"])
    @pytest.mark.parametrize("p_a", [0.7, 0.9, 0.995, 1.0])
    def test_the_radius_lost_is_within_what_was_allowed(self, p_a, method):
        p = np.array([p_a, 0.6 * (1 - p_a), 0.4 * (1 - p_a)])
        pilot = np.floor(1000 * p + 1e-9).astype(int)
        n = int(EarlierCurve(n0=1000, method=method, radius_of=RADIUS_OF).next([looks("pilot", pilot)])[0].n)  # type: ignore[union-attr]

        def radius(n):
            counts = np.floor(n * p + 1e-9).astype(int)
            counts[2] += n - counts.sum()
            return float(certify_counts([1, 0, 0], counts, 1.0, 0.001, method).radius)

        assert n < 90_000
        assert radius(n) >= 0.99 * radius(100_000) * (1 - 0.001)
        assert radius(n // 2) < 0.99 * radius(100_000)


class TestEarlierSequential:
    def test_returns_at_the_first_rejection(self):
        plan = EarlierSequential(100, 0.01)  # looks 16, 24, 36, 54, 81, 100; .3 / 5 of alpha at each but the last
        level = 0.01 * 0.3 / 5
        assert 2 * stats.binom.sf(14, 16, 0.5) < level < 2 * stats.binom.sf(13, 16, 0.5)
        assert plan.next([[]]) == [Draw("predict", 16)]
        assert plan.next([looks("predict", [15, 1]), looks("predict", [14, 2])]) == [None, Draw("predict", 8)]
        answers = plan.judge([looks("predict", [0, 16]), looks("predict", [14, 2])])
        assert answers.prediction.tolist() == [1, ABSTAIN]
        assert answers.values["p_value"] == pytest.approx([2.0**-15 / 0.06, 2 * 137 / 2.0**16 / 0.06], rel=1e-9)
        exhausted = looks("predict", [8, 8], [12, 12], [18, 18], [27, 27], [41, 40], [51, 49])
        assert plan.next([exhausted]) == [None]
        assert plan.judge([exhausted]).values["p_value"].tolist() == [1.0]

    def test_a_look_that_once_answered_is_not_outvoted(self):
        """At a larger alpha an early look answers; later ones, which might say otherwise, do not count."""
        plan = EarlierSequential(24, 0.5)
        history = looks("predict", [13, 3], [13, 11])
        assert plan.judge([history]).prediction.tolist() == [0]
        swapped = looks("predict", [15, 1], [15, 9])
        assert plan.judge([swapped]).prediction.tolist() == plan.judge([swapped[:1]]).prediction.tolist() == [0]

    def test_one_look_is_the_fixed_test(self):
        counts = [np.array([12, 3]), np.array([14, 1])]
        answers = EarlierSequential(15, 0.01).judge([looks("predict", c) for c in counts])
        assert answers.values["p_value"].tolist() == predict_counts(np.array(counts), 0.01).p_value.tolist()

    def test_margins_and_methods_are_refused(self):
        for plan in (EarlierSequential(100, 0.01), FixedPredict(100, 0.01)):
            with pytest.raises(InputError, match="only alpha"):
                reread(plan, method="cohen")
            with pytest.raises(InputError, match="only alpha"):
                reread(plan, margin=None)
