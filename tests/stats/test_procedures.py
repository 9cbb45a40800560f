"""From counts to predictions and certificates: the published table, definitions, symmetries, and refusals."""

import importlib.util
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from smoothcert.errors import InputError, UnknownNameError
from smoothcert.stats import (
    ABSTAIN,
    METHODS,
    ClassCounts,
    certify_counts,
    clopper_pearson,
    max_radius,
    predict_counts,
)
from smoothcert.stats.procedures import agreement_level
from smoothcert.stats.radius import z_lower

_SPEC = importlib.util.spec_from_file_location(
    "enumeration", Path(__file__).parents[2] / "evidence" / "enumeration.py")
exact = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(exact)

N, ALPHA, CLASSES = 100_000, 0.001, 10


def expected_counts(p_a, share):
    """Counts at their expectation: c_A first, the runner-up's share of the rest, the others equal to within one."""
    top = round(N * p_a)
    runner_up = round((N - top) * share)
    left = N - top - runner_up
    return [top, runner_up, *(left // 8 + (i < left % 8) for i in range(8))]


def first(k=CLASSES):
    return [1] + [0] * (k - 1)


def radius(counts, method, alpha=ALPHA, sigma=1.0):
    return float(certify_counts(first(len(counts)), counts, sigma, alpha, method).radius)


TABLE = [  # p_A, the runner-up's share; CERTIFY, T-CERTIFY as published, T at alpha / 2, two-sided
    (0.5, 0.5, 0, 0, 0, 0.3230),
    (0.6, 0.5, 0.2409, 0.5334, 0.5326, 0.5328),
    (0.8, 0.5, 0.8277, 1.0453, 1.0443, 1.0445),
    (0.9, 0.5, 1.2648, 1.4433, 1.4422, 1.4424),
    (0.99, 0.5, 2.2900, 2.4066, 2.4041, 2.4044),
    (0.9, 1.0, 1.2648, 1.2648, 1.2638, 1.2647),
    (0.999, 1.0, 3.0002, 3.0002, 2.9947, 2.9993),
    (1.0, 1.0, 3.8115, 3.8115, 3.7878, 3.8077),
]


@pytest.mark.parametrize("row", TABLE)
def test_table_of_radii_at_expected_counts(row):
    counts = expected_counts(*row[:2])
    assert sum(counts) == N
    got = [radius(counts, "cohen"), radius(counts, "t-certify"), radius(counts, "t-certify", ALPHA / 2),
           radius(counts, "two-sided")]
    assert [round(r, 4) for r in got] == list(row[2:])
    for r, method in zip(got, ("cohen", "t-certify", None, "two-sided"), strict=True):
        if method:
            prediction = certify_counts(first(), counts, 1.0, ALPHA, method).prediction
            assert prediction == (0 if r > 0 else ABSTAIN)


def published_t_certify(counts, alpha):
    """T-CERTIFY from its definition, one image at a time, with a general-purpose root finder."""
    n, rivals, best = sum(counts), np.array(counts[1:]), 0.0
    for tenth in range(1, 11):
        p_a = float(stats.beta.ppf(tenth * alpha / 10, counts[0], n - counts[0] + 1)) if counts[0] else 0.0
        if p_a <= 0.5:
            continue
        p_b = 1 - p_a
        if tenth < 10:
            level = alpha * (10 - tenth) / 10
            p_b = optimize.brentq(lambda p, level=level: stats.binom.cdf(rivals, n, p).sum() - level, 0, 1, xtol=1e-15)
        best = max(best, (special.ndtri(p_a) - special.ndtri(p_b)) / 2)
    return best


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_t_certify_is_its_definition_and_on_its_safe_side(alpha):
    rng = np.random.default_rng(0)
    positive = 0
    for n, k in ((20, 3), (100, 4), (1000, 10), (100_000, 10), (5000, 100)):
        for share in (0.45, 0.55, 0.75, 0.97):
            counts = rng.multinomial(n, [share, *((1 - share) * rng.dirichlet(np.full(k - 1, 0.5)))]).tolist()
            truth, value = published_t_certify(counts, alpha), radius(counts, "t-certify", alpha)
            assert value == pytest.approx(truth, abs=1e-9)
            assert value <= truth + 1e-12
            positive += value > 0
    assert positive > 5


def test_two_sided_is_its_definition():
    """min(CP_up(max rival, .1 alpha), 1 - p_A): both arms, a rival with every vote, and p_A <= 1/2 with R > 0."""
    arms = set()
    cases = [[750, 130, 120], [95, 5, 0], [100, 0, 0], [48, 2, *[1] * 50], [40, 60, 0], [0, 100, 0], [0, 0, 100]]
    for counts in cases:
        n = sum(counts)
        p_a = float(clopper_pearson(counts[0], n, 0.9 * 0.01))
        own = float(clopper_pearson(max(counts[1:]), n, 0.1 * 0.01, "upper"))
        with np.errstate(invalid="ignore"):
            expected = (special.ndtri(p_a) - special.ndtri(min(own, 1 - p_a))) / 2
        value = radius(counts, "two-sided", 0.01)
        assert value == pytest.approx(max(expected, 0), abs=1e-11)
        arms.add((own < 1 - p_a, value > 0, p_a > 0.5))
    assert {(True, True, True), (False, True, True), (True, True, False)} <= arms


counts_of = st.integers(2, 7).flatmap(lambda k: st.lists(st.integers(0, 400), min_size=k, max_size=k)).filter(sum)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(counts=counts_of, alpha=st.sampled_from([1e-6, 1e-3, 0.05, 0.3]))
def test_t_certify_is_never_below_cohen_and_needs_a_majority(counts, alpha):
    cohen, t = radius(counts, "cohen", alpha), radius(counts, "t-certify", alpha)
    assert t >= cohen
    assert t == 0 or float(clopper_pearson(counts[0], sum(counts), alpha)) > 0.5


@settings(deadline=None, derandomize=True, max_examples=100)
@given(top=st.integers(0, 2000), rest=st.integers(0, 2000), alpha=st.sampled_from([1e-6, 1e-3, 0.05, 0.3]))
def test_two_classes_make_t_certify_equal_cohen(top, rest, alpha):
    """With K = 2, N_B = n - N_A: p_B at level alpha - a' is 1 - CP_lo(N_A, alpha - a'), and CP_lo grows with its level,
    so that the last grid point, where both halves have all of alpha, is the best."""
    if top + rest:
        assert radius([top, rest], "t-certify", alpha) == radius([top, rest], "cohen", alpha)
        assert radius([top, rest], "two-sided", alpha) <= radius([top, rest], "cohen", alpha)


@pytest.mark.parametrize("method", METHODS)
def test_margin_reads_the_lower_bound_of_the_class_alone(method):
    counts, tau, sigma = [990, 6, 4], 0.2, 0.5
    level = 0.9 * ALPHA if method == "two-sided" else ALPHA
    result = certify_counts(first(3), counts, sigma, ALPHA, method, margin=tau)
    p, q = clopper_pearson(990, 1000, level), clopper_pearson(990, 1000, level, complement=True)
    most = sigma * (float(z_lower(p, q)) - special.ndtri(0.5 + tau))
    if method == "t-certify":
        assert 0 < result.radius <= most + 1e-12
    else:
        assert result.radius == pytest.approx(most, abs=1e-11)
    assert result.prediction == 0
    hopeless = certify_counts(first(3), counts, sigma, ALPHA, method, margin=0.499)
    assert (hopeless.prediction, hopeless.radius) == (ABSTAIN, 0.0)


tables = st.tuples(st.integers(1, 6), st.integers(2, 5)).flatmap(
    lambda shape: st.lists(st.lists(st.integers(0, 3000), min_size=shape[1], max_size=shape[1]).filter(sum),
                           min_size=shape[0], max_size=shape[0]))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(estimation=tables, method=st.sampled_from(sorted(METHODS)), data=st.data())
def test_one_image_equals_its_row_of_many(estimation, method, data):
    k = len(estimation[0])
    selection = [data.draw(st.lists(st.integers(0, 9), min_size=k, max_size=k).filter(sum)) for _ in estimation]
    many = certify_counts(selection, estimation, 0.5, 0.01, method)
    assert many.radius.shape == many.prediction.shape == (len(estimation),)
    for i, (chosen, counts) in enumerate(zip(selection, estimation, strict=True)):
        one = certify_counts(chosen, counts, 0.5, 0.01, method)
        assert np.ndim(one.radius) == np.ndim(one.prediction) == 0
        assert (one.radius, one.prediction) == (many.radius[i], many.prediction[i])
        assert (one.prediction == int(np.argmax(chosen))) == (one.radius > 0)
        assert (one.prediction == ABSTAIN) == (one.radius == 0)
    predicted = predict_counts(estimation, 0.2)
    for i, counts in enumerate(estimation):
        one = predict_counts(counts, 0.2)
        assert (one.prediction, one.p_value) == (predicted.prediction[i], predicted.p_value[i])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(counts=counts_of, method=st.sampled_from(sorted(METHODS)), data=st.data())
def test_classes_have_no_order(counts, method, data):
    k = len(counts)
    order = data.draw(st.permutations(range(k)))
    chosen = data.draw(st.integers(0, k - 1))
    selection = np.eye(k, dtype=int)[chosen]
    plain = certify_counts(selection, counts, 1.0, 0.05, method)
    moved = certify_counts(selection[order], np.array(counts)[order], 1.0, 0.05, method)
    assert moved.radius == plain.radius
    assert moved.prediction == (order.index(chosen) if plain.radius > 0 else ABSTAIN)
    before, after = predict_counts(counts, 0.3), predict_counts(np.array(counts)[order], 0.3)
    assert after.p_value == before.p_value
    assert after.prediction == (order.index(before.prediction) if before.prediction != ABSTAIN else ABSTAIN)


@pytest.mark.parametrize("method", METHODS)
def test_radius_scales_with_sigma_grows_with_votes_and_alpha(method):
    votes = np.arange(500, 1001, 20)
    counts = np.stack([votes, (1000 - votes) // 2, 1000 - votes - (1000 - votes) // 2], axis=1)
    selection = np.tile(first(3), (len(votes), 1))
    by_alpha = np.stack([certify_counts(selection, counts, 1.0, a, method).radius for a in (1e-6, 1e-3, 0.1)])
    assert np.all(np.diff(by_alpha, axis=0)[by_alpha[1:] > 0] > 0)
    assert np.all(np.diff(by_alpha, axis=1)[by_alpha[:, 1:] > 0] > 0)
    assert certify_counts(selection, counts, 0.25, 0.1, method).radius == pytest.approx(by_alpha[2] / 4, rel=1e-14)


def test_a_tie_in_the_selection_goes_to_the_lowest_index():
    for selection, chosen in (([5, 5, 1], 0), ([0, 7, 7], 1), ([1, 1, 1], 0)):
        counts = np.eye(3, dtype=int)[chosen] * 1000
        assert certify_counts(selection, counts, 1.0).prediction == chosen
        assert certify_counts(selection, np.roll(counts, 1), 1.0).prediction == ABSTAIN
    assert ClassCounts([3, 9, 9]).top == 1


def test_the_estimation_never_changes_the_selected_class():
    result = certify_counts([10, 0, 0], [0, 1000, 0], 1.0)
    assert (result.prediction, result.radius) == (ABSTAIN, 0.0)


def test_no_images_give_empty_arrays():
    nothing = np.zeros((0, 3), int)
    assert predict_counts(nothing).prediction.shape == (0,)
    for method in METHODS:
        assert certify_counts(nothing, nothing, 1.0, method=method).radius.shape == (0,)


def test_predict_p_value_is_the_exact_test_and_never_below():
    from scipy.stats import binomtest
    rng = np.random.default_rng(5)
    cases = [(1, 0), (5, 0), (5, 5), (60, 40), (61, 39), (1000, 0), (50_700, 49_300), (999, 1001), (30, 3)]
    cases += [(int(a) + 1, int(b)) for a, b in rng.integers(0, 300, (40, 2))]
    for a, b in cases:
        third = min(a, b) // 2
        got = float(predict_counts([a, third, b]).p_value)
        truth = binomtest(max(a, b), a + b, 0.5).pvalue
        assert got == pytest.approx(truth, rel=1e-12, abs=0)
        assert got >= truth * (1 - 1e-15) if truth < 1 else got == 1
        if a + b < 1000:  # in rationals: 2 P(Bin(a + b, 1/2) >= max) as whole numbers over a power of two
            ways = 2 * sum(comb(a + b, j) for j in range(max(a, b), a + b + 1))
            numerator, denominator = got.as_integer_ratio()
            assert numerator * 2 ** (a + b) >= min(ways, 2 ** (a + b)) * denominator


def test_predict_p_value_is_never_below_the_exact_at_large_n():
    rng = np.random.default_rng(6)
    for n in (1000, 30_001, 10**5, 10**6, 8 * 10**6):
        for z in rng.uniform(0.3, 7, 12):
            votes = int(n / 2 + z * np.sqrt(n) / 2) + 1
            got = float(predict_counts([n - votes, votes]).p_value)
            truth = 2 * exact.exact_tail(votes, n, 0.5)[0]
            assert truth <= got <= truth * (1 + max(1e-12, 1e-14 * n**0.5)), (votes, n)


def test_predict_answers_exactly_where_p_is_at_most_alpha():
    for counts in ([70, 30, 0], [30, 70, 5], [1, 2, 12], [60, 45, 1]):
        p_value = float(predict_counts(counts).p_value)
        assert predict_counts(counts, alpha=p_value).prediction == int(np.argmax(counts))
        assert predict_counts(counts, alpha=np.nextafter(p_value, 0)).prediction == ABSTAIN


@pytest.mark.parametrize("counts", [[5, 5], [0, 400, 400], [1, 1, 1], [10**6, 10**6, 3]])
def test_predict_abstains_on_ties(counts):
    result = predict_counts(counts, alpha=0.999)
    assert (result.prediction, result.p_value) == (ABSTAIN, 1.0)


GOOD = ([9, 1], [90, 10], 0.5)


@pytest.mark.parametrize(("changes", "message"), [
    ({"alpha": 0}, "alpha must lie strictly between 0 and 1"),
    ({"alpha": 1}, "alpha must lie strictly between 0 and 1"),
    ({"alpha": -0.1}, "alpha must lie strictly between 0 and 1"),
    ({"alpha": np.nan}, "alpha must lie strictly between 0 and 1"),
    ({"alpha": "0.1"}, "alpha must be a number"),
    ({"alpha": None}, "alpha must be a number"),
    ({"alpha": True}, "alpha must be a number"),
    ({"sigma": 0}, "sigma must be a finite number above 0"),
    ({"sigma": -1.0}, "sigma must be a finite number above 0"),
    ({"sigma": np.nan}, "sigma must be a finite number above 0"),
    ({"sigma": np.inf}, "sigma must be a finite number above 0"),
    ({"sigma": "0.5"}, "sigma must be a number above 0"),
    ({"margin": 0.5}, "margin must lie in"),
    ({"margin": -0.1}, "margin must lie in"),
    ({"margin": np.nan}, "margin must lie in"),
    ({"selection": [9, 1, 0]}, "selection has shape .* and estimation"),
    ({"selection": [[9, 1]]}, "selection has shape .* and estimation"),
    ({"selection": 9}, "selection must have shape"),
    ({"estimation": [[[9, 1]]]}, "estimation must have shape"),
    ({"selection": [9], "estimation": [9]}, "at least two classes"),
    ({"selection": [-1, 5]}, "selection must not be negative"),
    ({"estimation": [-1, 5]}, "estimation must not be negative"),
    ({"selection": [0.5, 0.5]}, "selection must be integers"),
    ({"estimation": [9.0, 1.0]}, "estimation must be integers"),
    ({"estimation": [True, False]}, "estimation must be integers"),
    ({"estimation": ["9", "1"]}, "estimation must be integers"),
    ({"selection": [0, 0]}, "selection must add up to at least 1"),
    ({"estimation": [0, 0]}, "estimation must add up to at least 1"),
    ({"selection": [[9, 1], [9, 1]], "estimation": [[9, 1], [0, 0]]}, "estimation must add up to at least 1"),
])
def test_bad_certificates_are_refused(changes, message):
    arguments = dict(zip(("selection", "estimation", "sigma"), GOOD, strict=True)) | changes
    with pytest.raises(InputError, match=message):
        certify_counts(**arguments)


@pytest.mark.parametrize(("name", "closest"),
                         [("two-side", "two-sided"), ("Cohen", "cohen"), ("tcertify", "t-certify")])
def test_an_unknown_method_is_refused_with_the_closest_name(name, closest):
    with pytest.raises(UnknownNameError, match=f'did you mean "{closest}"'):
        certify_counts(*GOOD, method=name)


@pytest.mark.parametrize(("counts", "alpha", "message"), [
    ([9, 1], 0, "alpha"), ([9, 1], np.nan, "alpha"), ([9, 1], 1.0, "alpha"), ([9], 0.1, "at least two classes"),
    ([9.0, 1.0], 0.1, "integers"), ([-9, 1], 0.1, "negative"), ([0, 0], 0.1, "add up to at least 1"),
    ([[[9, 1]]], 0.1, "shape"), ([], 0.1, "at least two classes"),
])
def test_bad_predictions_are_refused(counts, alpha, message):
    with pytest.raises(InputError, match=message):
        predict_counts(counts, alpha)


def test_class_counts_give_the_same_results_as_arrays():
    selection, estimation = [[9, 1, 0], [0, 5, 5]], [[950, 30, 20], [10, 980, 10]]
    for method in METHODS:
        plain = certify_counts(selection, estimation, 0.5, method=method)
        wrapped = certify_counts(ClassCounts(selection), ClassCounts(estimation), 0.5, method=method)
        assert np.array_equal(plain.radius, wrapped.radius)
        assert np.array_equal(plain.prediction, wrapped.prediction)
    plain, wrapped = predict_counts(estimation), predict_counts(ClassCounts(estimation))
    assert np.array_equal(plain.p_value, wrapped.p_value)
    assert np.array_equal(plain.prediction, wrapped.prediction)


def test_inputs_are_left_alone():
    selection, estimation = np.array([9, 1]), np.array([90, 10])
    for method in METHODS:
        certify_counts(selection, estimation, 0.5, method=method)
    predict_counts(estimation)
    assert (selection.tolist(), estimation.tolist()) == ([9, 1], [90, 10])


def test_class_counts_cannot_be_changed():
    source = np.array([3, 90, 7])
    counts = ClassCounts(source)
    source[0] = 1000
    assert counts.tolist() == [3, 90, 7]
    with pytest.raises((TypeError, ValueError)):
        counts[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        counts[:][0] = 5
    np.asarray(counts)[0] = 5
    assert counts.tolist() == [3, 90, 7]
    for name in ("n", "top", "num_classes", "other"):
        with pytest.raises(AttributeError):
            setattr(counts, name, 1)


def test_class_counts_add_up():
    a, b = ClassCounts([3, 90, 7]), ClassCounts([0, 100, 0])
    assert a + b == ClassCounts([3, 190, 7])
    assert (a + b) + a == a + (b + a)
    assert (a.n, b.n, (a + b).n) == (100, 100, 200)
    assert (a.tolist(), b.tolist()) == ([3, 90, 7], [0, 100, 0])
    many = ClassCounts([[1, 2], [5, 4]])
    assert (many + many).tolist() == [[2, 4], [10, 8]]
    assert (many.n.tolist(), many.top.tolist(), many.num_classes, len(many)) == ([3, 9], [1, 0], 2, 2)
    assert (a.num_classes, a.top, len(a), a[1]) == (3, 1, 3, 90)
    with pytest.raises(InputError, match="cannot be merged"):
        a + ClassCounts([1, 2])
    with pytest.raises(InputError, match="cannot be merged"):
        many + ClassCounts([1, 2])
    with pytest.raises(TypeError):
        a + 1


def test_class_counts_are_values():
    a, same, other = ClassCounts([3, 90, 7]), ClassCounts(np.array([3, 90, 7], dtype=np.uint8)), ClassCounts([3, 7, 90])
    assert a == same
    assert hash(a) == hash(same)
    assert a != other
    assert a != [3, 90, 7]
    assert ClassCounts([[1, 2]]) != ClassCounts([1, 2])
    assert len({a, same, other}) == 2
    assert repr(a) == "ClassCounts([3, 90, 7])"
    assert eval(repr(ClassCounts([[1, 2], [3, 4]]))) == ClassCounts([[1, 2], [3, 4]])
    assert np.asarray(a).dtype == np.int64


@pytest.mark.parametrize("values", [[1], 5, [], [[[1, 2]]], [1.0, 2.0], [-1, 2], [True, False], ["a", "b"], None])
def test_bad_class_counts_are_refused(values):
    with pytest.raises(InputError):
        ClassCounts(values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "alpha"), [(20, 0.05), (300, 0.001), (100_000, 1e-6)])
def test_samples_that_all_agree_reach_the_largest_radius_of_their_method(method, n, alpha):
    votes = [[0, n, 0], [1, n - 1, 0]]
    agreed, other = certify_counts(votes, votes, 0.25, alpha, method).radius
    largest = max_radius(n, agreement_level(method, alpha), 0.25)
    assert agreed <= largest
    assert agreed == pytest.approx(largest, rel=1e-9)
    assert other < agreed
