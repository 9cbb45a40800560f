"""Plans: what they draw, when they stop, what the counts mean, and how they are rebuilt and read again."""

import json
from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError, UnknownNameError
from smoothcert.noise import build_noise
from smoothcert.stats import (
    ABSTAIN,
    METHODS,
    AtRadii,
    Curve,
    CurveCertify,
    Draw,
    FixedCertify,
    FixedN,
    FixedPredict,
    Look,
    RadiiCertify,
    Sequential,
    SequentialPredict,
    certify_counts,
    certify_plan,
    clopper_pearson,
    default_pilot,
    gaussian_radius,
    plan_from,
    predict_counts,
    predict_plan,
    reread,
)
from smoothcert.stats.earlier import EarlierCurve, EarlierRadii, EarlierSequential
from smoothcert.stats.plans import with_noise
from smoothcert.stats.sizing import size_curves
from votes import drive, looks

SIGMA = 0.5
NOISE = build_noise("gaussian", SIGMA)


def radius_of(margin=None):
    return partial(NOISE.radius, margin=margin)


def radii_plan(radii=(0.5,), n_max=10_000, alpha=0.001, method="cohen", margin=None, n0=100):
    return RadiiCertify(n0, n_max, radii, alpha, method, margin, radius_of(margin))


def earlier_radii(radii, n_max, alpha=0.001):
    return EarlierRadii(100, n_max, radii, alpha, "cohen", None, radius_of())


def curve_plan(n_max=100_000, loss=0.01, method="cohen", alpha=0.001, margin=None, n0=1000):
    return CurveCertify(n0, loss, n_max, alpha, method, margin, radius_of(margin))


def samples(history):
    return sum({look.stage: int(look.counts.sum()) for look in history}.values())


def population(m, classes=4, seed=5):
    rng = np.random.default_rng(seed)
    p_a = rng.uniform(0.35, 1, m)
    return np.column_stack([p_a, (1 - p_a)[:, None] * rng.dirichlet(np.ones(classes - 1), m)])


ALL = [
    FixedCertify(50, 500, 0.01, "t-certify", None, radius_of()),
    FixedCertify(50, 500, 0.01, "two-sided", 0.1, radius_of(0.1)),
    radii_plan((0.0, 0.25, 0.5), 1000),
    radii_plan((0.3,), 1000, method="two-sided", margin=0.05),
    curve_plan(2000, 0.05, n0=100),
    curve_plan(2000, 0.05, "t-certify", n0=100),
    CurveCertify(100, 0.05, 2000, 0.01, "two-sided", None, radius_of(), 0.4),
    EarlierCurve(100, 0.05, 2000, 0.01, "two-sided", None, radius_of()),
    FixedPredict(200, 0.01),
    SequentialPredict(500, 0.01),
    EarlierSequential(500, 0.01),
]


class TestEveryPlan:
    @pytest.mark.parametrize("plan", ALL)
    def test_rebuilt_from_its_identity(self, plan):
        told = json.loads(json.dumps(plan.identity(), sort_keys=True))
        again = plan_from(plan.kind, told, None if plan.kind == "predict" else plan.radius_of)
        assert again == plan
        assert again.identity() == told
        assert reread(again) == plan

    @pytest.mark.parametrize("plan", ALL)
    def test_answers_do_not_depend_on_company(self, plan):
        histories = drive(plan, population(12))
        together = plan.judge(histories)
        assert plan.next(histories) == [None] * 12
        for i, history in enumerate(histories):
            alone = plan.judge([history])
            assert alone.prediction[0] == together.prediction[i]
            for name, column in together.values.items():
                assert column[i] == alone.values[name][0]
            for cut in range(len(history)):
                assert plan.next([history[:cut], *histories])[0] == plan.next([history[:cut]])[0] is not None

    @pytest.mark.parametrize("plan", ALL)
    def test_most_is_the_most(self, plan):
        p = np.concatenate([population(20), [[0.5, 0.5, 0, 0], [0.62, 0.38, 0, 0], [0.85, 0.15, 0, 0]]])
        drawn = [samples(history) for history in drive(plan, p)]
        assert max(drawn) <= plan.most()
        assert max(drawn) >= (0.7 if type(plan) is Curve else 0.9) * plan.most()

    @pytest.mark.parametrize("plan", ALL)
    def test_no_images(self, plan):
        assert plan.next([]) == []
        assert plan.judge([]).prediction.shape == (0,)

    @pytest.mark.parametrize("plan", ALL)
    def test_looks_of_another_plan_are_refused(self, plan):
        other = looks("walk", [60, 40])
        for history in ([], other, [*drive(plan, population(1))[0], *other]):
            with pytest.raises(InputError, match="an image needs a look of stage"):
                plan.judge([history])

    def test_types_of_the_answers(self):
        for plan in ALL:
            answers = plan.judge(drive(plan, population(3)))
            assert answers.prediction.dtype == np.int64
            assert list(answers.values) == (["radius"] if plan.kind == "certify" else ["p_value"])
            assert all(column.dtype == np.float64 for column in answers.values.values())


class TestFixed:
    @pytest.mark.parametrize("method", METHODS)
    def test_certify_is_certify_counts(self, method):
        plan = FixedCertify(100, 1000, 0.01, method, None, radius_of())
        histories = drive(plan, population(30))
        assert [[(look.stage, look.counts.sum()) for look in h] for h in histories] == [
            [("select", 100), ("estimate", 1000)]] * 30
        answers = plan.judge(histories)
        selection, estimation = (np.array([h[i].counts for h in histories]) for i in (0, 1))
        expected = certify_counts(selection, estimation, SIGMA, 0.01, method)
        assert np.array_equal(answers.prediction, expected.prediction)
        assert np.array_equal(answers.values["radius"], expected.radius)
        assert 0 < np.sum(answers.prediction == ABSTAIN) < 30

    def test_predict_is_predict_counts(self):
        plan = FixedPredict(100, 0.01)
        histories = drive(plan, population(30))
        expected = predict_counts(np.array([h[0].counts for h in histories]), 0.01)
        answers = plan.judge(histories)
        assert np.array_equal(answers.prediction, expected.prediction)
        assert np.array_equal(answers.values["p_value"], expected.p_value)

    def test_identities_of_stores_written_before_there_were_plans(self):
        certify = {"method": "two-sided", "alpha": 0.001, "n0": 100, "n": 100_000, "margin": None}
        assert FixedCertify(100, 100_000, 0.001, "two-sided", None, radius_of()).identity() == certify
        assert FixedPredict(1000, 0.001).identity() == {"method": "predict", "alpha": 0.001, "n": 1000}


class TestRadii:
    def test_draws_follow_the_looks(self):
        plan = earlier_radii((0.5,), 1000)
        undecided = [Look("select", np.array([60, 40]))]
        assert plan.next([[]]) == [Draw("select", 100)]
        drawn = []
        for n in (100, 200, 400, 800, 1000):  # .84 is the probability of radius .5 at sigma .5
            drawn += plan.next([undecided])
            undecided.append(Look("estimate", np.array([round(0.85 * n), n - round(0.85 * n)])))
        assert drawn == [Draw("estimate", n) for n in (100, 100, 200, 400, 200)]
        assert plan.next([undecided]) == [None]

    @pytest.mark.parametrize("method", ["cohen", "two-sided"])
    def test_stops_when_every_radius_is_decided(self, method):
        plan = radii_plan((0.0, 0.5, 0.9), 10_000, method=method)
        histories = drive(plan, population(60, 3))
        claimed, open_ = plan.decide(histories)
        radius = plan.judge(histories).values["radius"]
        full = np.array([samples(h) == plan.most() for h in histories])
        assert 0 < full.sum() < 60
        assert not np.any(open_[~full])
        assert np.array_equal(claimed, (radius[:, None] >= plan.radii) & (radius > 0)[:, None])  # what judge reports
        for history in histories:
            for cut in range(2, len(history)):
                assert plan.decide([history[:cut]])[1].any()  # it was not decided any earlier

    def test_radius_zero_asks_for_any_certificate(self):
        plan = radii_plan((0.0,), 10_000)
        histories = drive(plan, np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]]))
        hopeless = [Look("select", np.array([60, 40])), Look("estimate", np.array([30, 70]))]
        claimed, open_ = plan.decide([*histories, hopeless])
        assert claimed[:, 0].tolist() == [True, False, True, False]
        assert not open_[3, 0]
        assert plan.judge(histories).prediction.tolist() == [0, ABSTAIN, 1]

    def test_early_looks_are_kept_where_they_are_better(self):
        """The radius is that of the best look, not of the last."""
        plan = radii_plan((0.7,), 10_000)
        good, bad = np.array([100, 0]), np.array([140, 60])
        start = looks("select", [90, 10])
        both = plan.judge([[*start, *looks("estimate", good, bad)]]).values["radius"]
        assert both == plan.judge([[*start, *looks("estimate", good)]]).values["radius"]
        assert both > plan.judge([[*start, *looks("estimate", bad)]]).values["radius"]

    def test_the_levels_of_the_looks(self):
        """From the definition: 5 looks at n_max = 1000, so .05 alpha each and .8 alpha for the last."""
        plan, start = earlier_radii((0.7,), 1000, alpha=0.01), looks("select", [90, 10])
        radius = plan.judge([[*start, *looks("estimate", [195, 5])], [*start, *looks("estimate", [990, 10])]])
        p = [clopper_pearson(195, 200, 0.01 * 0.05), clopper_pearson(990, 1000, 0.01 * 0.8)]
        assert radius.values["radius"] == pytest.approx(SIGMA * special.ndtri(p), rel=1e-11)

    def test_radii_out_of_reach_are_dropped(self):
        """Unanimous votes at the last look certify radii up to sigma Phi^-1((.8 alpha)^(1/n_max)), and no more."""
        reach = SIGMA * float(special.ndtri((0.8 * 0.001) ** (1 / 1000)))
        easy = np.array([[0.97, 0.03]])
        both, one = earlier_radii((0.3, reach + 1e-9), 1000), earlier_radii((0.3,), 1000)
        assert [samples(h) for h in drive(both, easy)] == [samples(h) for h in drive(one, easy)] == [200]
        unanimous = looks("select", [100, 0]) + looks("estimate", [1000, 0])
        within = earlier_radii((reach - 1e-9,), 1000)
        assert within.decide([unanimous])[0].tolist() == [[True]]
        assert samples(drive(within, np.array([[1.0, 0.0]]))[0]) == 1100

    def test_with_no_radius_in_reach_only_selection_is_drawn(self):
        plan = radii_plan((2.0, 3.0), 1000)
        assert plan.most() == 100
        histories = drive(plan, np.array([[1.0, 0.0]]))
        assert [look.stage for look in histories[0]] == ["select"]
        answers = plan.judge(histories)
        assert (answers.prediction.tolist(), answers.values["radius"].tolist()) == ([ABSTAIN], [0.0])

    def test_samples_are_saved(self):
        """Radii well off the truth are decided from a few hundred samples, and a near one takes nearly all."""
        truth = SIGMA * special.ndtri(np.array([0.99, 0.8, 0.6, 0.45]))
        p = np.column_stack([special.ndtr(truth / SIGMA), special.ndtr(-truth / SIGMA)])
        far = [samples(h) for h in drive(radii_plan((0.35,), 100_000), np.repeat(p[:1], 50, axis=0))]
        assert np.mean(far) < 500
        given_up = [samples(h) for h in drive(radii_plan((0.9,), 100_000), np.repeat(p[2:], 50, axis=0))]
        assert np.mean(given_up) < 500
        near = [samples(h) for h in drive(radii_plan((float(truth[1]) - 0.003,), 100_000), np.repeat(p[1:2], 50, 0))]
        assert np.mean(near) > 30_000

    def test_little_power_is_lost(self):
        """A radius that the fixed procedure certifies nearly always is claimed nearly always: beta = .01 is all that
        giving up may cost, and .8 alpha at the last look costs little."""
        n, p_a = 10_000, 0.861
        histories = drive(radii_plan((0.5,), n), np.repeat([[p_a, 1 - p_a]], 1000, axis=0), seed=2)
        claimed = radii_plan((0.5,), n).decide(histories)[0].mean()
        least = np.argmax(certify_counts(np.tile([1, 0], (n, 1)), np.column_stack([np.arange(n), n - np.arange(n)]),
                                         SIGMA, 0.001, "cohen").radius >= 0.5)
        fixed = stats.binom.sf(least - 1, n, p_a)
        assert fixed > 0.99
        assert claimed > fixed - 0.02

    @pytest.mark.parametrize("method", ["cohen", "two-sided"])
    def test_read_again(self, method):
        plan = radii_plan((0.25, 0.5), 1000, 0.01, method)
        histories = drive(plan, population(40))
        before = plan.judge(histories).values["radius"]
        assert np.array_equal(reread(plan, alpha=0.01).judge(histories).values["radius"], before)
        stricter = reread(plan, alpha=1e-4).judge(histories).values["radius"]
        assert np.all((stricter < before) | (before == 0))
        assert before.max() > 0
        with_margin = reread(plan, margin=0.1)
        assert with_margin.identity()["margin"] == 0.1
        smaller = with_margin.judge(histories).values["radius"]
        assert np.all((smaller < before) | (before == 0))
        assert np.array_equal(reread(with_margin, margin=None).judge(histories).values["radius"], before)
        other = reread(plan, method="two-sided" if method == "cohen" else "cohen")
        assert other.judge(histories).values["radius"] == pytest.approx(
            radii_plan((0.25, 0.5), 1000, 0.01, other.method).judge(histories).values["radius"], abs=0)

    def test_a_margin_is_the_noise_s_own(self):
        plan = EarlierRadii(100, 1000, (0.2,), 0.001, "cohen", 0.1, radius_of(0.1))
        history = looks("select", [9, 1]) + looks("estimate", [95, 5])
        p = clopper_pearson(95, 100, 0.001 * 0.2 / 4)
        assert plan.judge([history]).values["radius"] == pytest.approx(
            SIGMA * (special.ndtri(p) - special.ndtri(0.6)), rel=1e-10)

    def test_refusals(self):
        with pytest.raises(InputError, match="t-certify has no sequential form"):
            radii_plan(method="t-certify")
        with pytest.raises(InputError, match="t-certify has no sequential form"):
            reread(radii_plan(), method="t-certify")
        for radii in ((), (-0.1,), (np.inf,), ("far",), (float("nan"),)):
            with pytest.raises(InputError, match="radii must be"):
                radii_plan(radii)
        assert radii_plan((0.5, 0.25, 0.5)).radii == (0.25, 0.5)
        start = looks("select", [9, 1])
        with pytest.raises(InputError, match="a look at 150 samples is none of this plan's"):
            radii_plan().judge([[*start, *looks("estimate", [100, 50])]])
        with pytest.raises(InputError, match="in order"):
            radii_plan().judge([[*start, *looks("estimate", [150, 50], [80, 20])]])


class TestCurve:
    def sizes(self, n_a, pilot=1000, n_max=100_000, loss=0.01, method="cohen", alpha=0.001):
        n_a = np.atleast_1d(n_a)
        return size_curves(n_a, pilot - n_a, pilot, n_max, loss, alpha, method, partial(gaussian_radius, sigma=SIGMA))

    def test_a_pilot_then_one_fresh_draw(self):
        plan = curve_plan()
        assert plan.next([[]]) == [Draw("pilot", 1000)]
        draw, = plan.next([looks("pilot", [900, 100])])
        assert draw is not None
        assert draw.stage == "estimate"
        assert draw.n == self.sizes(900)[0]
        assert 30_000 < draw.n < 35_000
        assert plan.next([looks("pilot", [900, 100]) + looks("estimate", [draw.n, 0])]) == [None]

    def test_the_pilot_chooses_and_no_more(self):
        """Same class and n, another pilot: the same answer, which is the fixed procedure's on the fresh counts."""
        plan, fresh = curve_plan(), looks("estimate", [45_000, 5_000])
        answers = plan.judge([looks("pilot", pilot) + fresh for pilot in ([990, 10], [600, 400], [10, 990])])
        expected = certify_counts([1, 0], [45_000, 5_000], SIGMA, 0.001, "cohen")
        assert answers.prediction.tolist() == [0, 0, ABSTAIN]
        assert answers.values["radius"].tolist() == [expected.radius, expected.radius, 0]

    @pytest.mark.parametrize("method", METHODS)
    def test_hopeless_pilots_abstain_without_samples(self, method):
        plan = curve_plan(method=method)
        hopeless = looks("pilot", [430, 300, 270])  # two-sided it is not, where the rivals may be lower
        if method == "two-sided":
            assert plan.next([hopeless])[0] is not None
            return
        assert plan.next([hopeless]) == [None]
        answers = plan.judge([hopeless])
        assert (answers.prediction.tolist(), answers.values["radius"].tolist()) == ([ABSTAIN], [0.0])
        small, = plan.next([looks("pilot", [520, 480])])
        assert small.n > 50_000

    def test_two_sided_radii_below_a_half_are_asked_for(self):
        """35 % of the votes are hopeless one-sided, and prove a radius where no rival has more than 20 %."""
        draw, = curve_plan(method="two-sided").next([looks("pilot", [350, 200, 200, 200, 50])])
        assert 30_000 < draw.n < 100_000

    @pytest.mark.parametrize("method", METHODS)
    def test_false_certificates_are_rare_enough(self, method):
        alpha, size = 0.05, 1500
        plan = CurveCertify(50, 0.1, 1000, alpha, method, None, radius_of())
        for p in ([0.6, 0.4], [0.93, 0.05, 0.02]):
            answers = plan.judge(drive(plan, np.repeat([p], size, axis=0), seed=4))
            rival = p[1] if len(p) > 2 and method != "cohen" else 1 - p[0]
            truth = SIGMA * (special.ndtri(p[0]) - special.ndtri(rival)) / 2
            false = int(((answers.values["radius"] > truth) | (answers.prediction > 0)).sum())
            level = 2 * alpha if method == "t-certify" else alpha
            assert stats.binom.sf(false - 1, size, level) > 1e-4
            assert false > 0.1 * alpha * size

    def test_read_again_at_another_alpha_and_method(self):
        """n and the class are fixed given the pilot, so every fixed-n procedure may follow."""
        plan = curve_plan(2000, 0.05, n0=100)
        histories = drive(plan, population(30))
        before = plan.judge(histories).values["radius"]
        for method in METHODS:
            after = reread(plan, alpha=1e-5, method=method).judge(histories).values["radius"]
            for i, history in enumerate(histories):
                expected = certify_counts(history[0].counts, history[1].counts, SIGMA, 1e-5, method).radius \
                    if len(history) == 2 else 0.0
                assert after[i] == expected
        assert np.array_equal(reread(plan, alpha=0.001).judge(histories).values["radius"], before)

    @pytest.mark.parametrize(("n_max", "expected"), [(100_000, 1000), (5000, 500), (300, 100), (60, 60)])
    def test_default_pilot(self, n_max, expected):
        assert default_pilot(n_max) == expected


class TestByThemselves:
    """Plans made by name, as they are given to a smoothed classifier."""

    def test_defaults(self):
        assert FixedN() == FixedN(n0=100, n=100_000, alpha=0.001, method="two-sided", margin=None)
        assert AtRadii(radii=[0.5, 0.25, 0.5]) == AtRadii(n0=100, n_max=100_000, radii=(0.25, 0.5), alpha=0.001)
        assert Curve() == Curve(n0=1000, loss=0.01, n_max=100_000)
        assert Curve(n_max=4000).n0 == 400
        assert FixedPredict() == FixedPredict(1000, 0.001)
        assert Sequential(500) == Sequential(n_max=500, alpha=0.001)
        assert hash(AtRadii(radii=[0.5])) == hash(AtRadii(radii=(0.5,)))

    def test_the_names_of_before_are_the_same_classes(self):
        assert (FixedCertify, RadiiCertify, CurveCertify, SequentialPredict) == (FixedN, AtRadii, Curve, Sequential)

    @pytest.mark.parametrize(("make", "words"), [
        (lambda: FixedN(n=0), "n must be at least 1, got 0"), (lambda: FixedN(n0=0), "n0 must be at least 1, got 0"),
        (lambda: FixedN(alpha=1), "alpha must lie"), (lambda: FixedN(method="best"), "unknown method"),
        (lambda: FixedN(margin=0.5), "margin must lie"), (AtRadii, r"radii must be .*, got \(\)"),
        (lambda: AtRadii(radii=[-1]), "radii must be"), (lambda: AtRadii(radii=0.5, n_max=0), "n_max must be"),
        (lambda: AtRadii(radii=[0.5], method="t-certify"), "no sequential form"),
        (lambda: AtRadii([0.5]), "n0 must be a whole number"), (lambda: Curve(loss=0), "loss must lie"),
        (lambda: Curve(n_max=0), "n_max must be"), (lambda: Curve(n0=0), "n0 must be at least 1, got 0"),
        (lambda: FixedPredict(0), "n must be at least 1"), (lambda: FixedPredict((5, 5)), "ascending order"),
        (lambda: Sequential(0), "n_max must be"), (lambda: Sequential(10, alpha=0), "alpha must lie"),
    ])
    def test_values_that_a_plan_does_not_take(self, make, words):
        with pytest.raises(InputError, match=words):
            make()

    def test_a_plan_without_noise_draws_and_does_not_judge(self):
        history = [Look("select", np.array([60, 40])), Look("estimate", np.array([900, 100]))]
        plan = FixedN(n=1000)
        assert plan.next([[]]) == [Draw("select", 100)]
        with pytest.raises(InputError, match="knows no noise yet"):
            plan.judge([history])
        assert with_noise(plan, build_noise("grid", 0.5).radius).judge([history]).values["radius"][0] > 0

    def test_it_is_rebuilt_from_its_identity_with_a_noise(self):
        for plan in (FixedN(n=50), AtRadii(radii=[0.5], n_max=500), Curve(n_max=500, method="cohen", margin=0.1)):
            assert plan_from("certify", plan.identity(), radius_of()) == plan
        for plan in (FixedPredict((5, 10)), Sequential(100)):
            assert plan_from("predict", plan.identity()) == plan


class TestFromOptions:
    def test_designs(self):
        assert certify_plan(radius_of()) == FixedCertify(100, 100_000, 0.001, "two-sided", None, radius_of())
        assert certify_plan(radius_of(), radii=[0.5, 0.25], n_max=1000, method="cohen") == radii_plan(
            (0.25, 0.5), 1000, n0=0)
        assert certify_plan(radius_of(), curve_loss=0.01, n_max=100_000, method="cohen") == curve_plan()
        assert predict_plan() == FixedPredict(1000, 0.001)
        assert predict_plan(n_max=5000, alpha=0.01) == SequentialPredict(5000, 0.01)

    @pytest.mark.parametrize("options", [
        {"n": 10, "n_max": 10, "radii": [1]}, {"radii": [1]}, {"curve_loss": 0.1}, {"n_max": 10},
        {"n_max": 10, "radii": [1], "curve_loss": 0.1}, {"n": 0}, {"n0": 0}, {"alpha": 1.0}, {"method": "best"},
        {"margin": 0.5}, {"n_max": 10, "curve_loss": 1.0},
    ])
    def test_what_names_no_design_is_refused(self, options):
        with pytest.raises(InputError):
            certify_plan(radius_of(), **options)

    @pytest.mark.parametrize("make", [certify_plan, predict_plan])
    def test_n_and_n_max_exclude_one_another_by_one_rule(self, make):
        more = {"radii": [0.5]} if make is certify_plan else {}
        words = "n = 10 fixes the number of samples and n_max = 20 bounds it: give one of them"
        with pytest.raises(InputError, match=f"^{words}$"):
            make(n=10, n_max=20, **more)

    @pytest.mark.parametrize(("options", "words"), [
        ({"radii": [1]}, "give n_max"), ({"curve_loss": 0.1}, "give n_max"), ({"n": 5, "radii": [1]}, "give n_max"),
        ({"n_max": 10}, "needs either radii"), ({"n_max": 10, "radii": [1], "curve_loss": 0.1}, "needs either radii"),
    ])
    def test_what_is_missing_or_too_much_is_named(self, options, words):
        with pytest.raises(InputError, match=words):
            certify_plan(**options)

    def test_none_stands_for_the_default_of_the_design(self):
        assert certify_plan(n=None, alpha=None, method=None) == FixedN()
        assert certify_plan(n_max=4000, curve_loss=0.05) == Curve(loss=0.05, n_max=4000)
        assert predict_plan(None, None, None) == FixedPredict()

    def test_identities_that_cannot_be_rebuilt_are_refused(self):
        radii = radii_plan().identity()
        with pytest.raises(InputError, match=r"another version of the design radii: spending '0.5/0.5'"):
            plan_from("certify", {**radii, "spending": "0.5/0.5"}, radius_of())
        with pytest.raises(InputError, match="another version of the design fixed: colour"):
            plan_from("predict", {**FixedPredict(10, 0.1).identity(), "colour": "red"})
        with pytest.raises(InputError, match="needs n_max"):
            plan_from("certify", {k: v for k, v in radii.items() if k != "n_max"}, radius_of())
        with pytest.raises(UnknownNameError, match="curve"):
            plan_from("certify", {**radii, "design": "curves"}, radius_of())
        with pytest.raises(UnknownNameError, match="predict"):
            plan_from("predicts", radii, radius_of())
        with pytest.raises(InputError, match="radius_of"):
            plan_from("certify", radii)
