"""The accuracy with one noisy copy: exact on linear models, its level by simulation, and designs of all kinds."""

from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError
from smoothcert.stats import AtRadii, Curve, FixedN, clopper_pearson, gaussian_radius, one_pass_accuracy
from smoothcert.stats.intervals import false_claims
from smoothcert.stats.means import lower_mean
from smoothcert.stats.one_pass import LabelLimits, bound_one_pass, limit_labels
from smoothcert.stats.transfer import Transfer, paired_looks, tally_pairs
from votes import drive, looks

RADIUS = partial(gaussian_radius, sigma=1.0)


def test_it_is_tight_for_linear_models():
    """f(x) = sign(<w, x> + b): the adversary steps straight to the boundary, and one noisy copy is right with
    probability Phi((margin - r) / sigma). The mean of h_r over exact probabilities is just that."""
    margin, sigma, radii = np.linspace(-1, 2, 400), 0.5, np.array([0.0, 0.25, 1.0])
    p, q = special.ndtr(margin / sigma), special.ndtr(-margin / sigma)
    found = bound_one_pass(LabelLimits(p, q, 1e-12), radii, sigma, 0.05)
    truth = special.ndtr((margin[:, None] - radii) / sigma).mean(axis=0)
    assert (found.mean <= truth).all()
    assert np.allclose(found.mean, truth, rtol=1e-9)
    assert (found.test_set <= found.mean).all()
    assert np.allclose(found.test_set, truth, atol=1e-9)  # no limit fails
    assert (found.population < truth).all()
    assert (found.population > truth - 0.1).all()


@pytest.mark.parametrize("radius", [0.0, 0.3, 0.8])
def test_it_is_never_above_the_measured_accuracy_under_attack(radius):
    """1,000 images of a linear model in 3 dimensions: votes are drawn, the bound is taken, every image is moved by the
    worst step, and one noisy copy each is answered, 200 times over."""
    rng, sigma, n, d = np.random.default_rng(3), 0.5, 4000, 3
    w = rng.normal(size=d)
    w /= np.linalg.norm(w)
    x = rng.normal(size=(1000, d)) * 0.3 + w * 0.8  # label +1; some lie beyond the boundary
    votes = np.array([((one + sigma * rng.normal(size=(n, d))) @ w > 0).sum() for one in x])
    bound = one_pass_accuracy(votes, n, [radius], sigma)
    attacked = x - radius * w
    right = np.mean([((attacked + sigma * rng.normal(size=x.shape)) @ w > 0).mean() for _ in range(200)])
    assert bound.population[0] <= bound.test_set[0] <= right + 0.002  # four standard errors
    assert bound.population[0] >= right - 0.08


@pytest.mark.parametrize("alpha", [0.01, 0.3])
@pytest.mark.parametrize("radius", [0.0, 0.5])
def test_its_bounds_fail_with_probability_rho_at_most(alpha, radius):
    """20,000 data sets of 60 images and 20 votes: with alpha = .3 every third limit fails, and is paid for. The laws
    lie where limits fail upwards most: at low probabilities, whose h_r is far below that of a lucky limit."""
    rng, m, n, rho, sets = np.random.default_rng(4), 60, 20, 0.2, 20_000
    for laws in ([0.9, 0.1], [0.99, 0.6, 0.3], [0.05], [0.5]):
        kept = special.ndtr(special.ndtri(np.array(laws)) - radius)
        kind = rng.integers(0, len(laws), (sets, m))
        votes = rng.binomial(n, np.array(laws)[kind])
        table = [one_pass_accuracy([k], n, [radius], 1.0, alpha).mean[0] for k in range(n + 1)]
        values = np.array(table)[votes]
        population = (lower_mean(values.T, rho) - alpha) / (1 - alpha)
        test_set = values.mean(axis=1) - np.sort(values, axis=1)[:, m - false_claims(m, alpha, rho):].sum(axis=1) / m
        for bound, truth in ((population, kept.mean()), (test_set, kept[kind].mean(axis=1))):
            failed = int((bound > truth + 1e-9).sum())
            assert stats.binom.sf(failed - 1, sets, rho) > 1e-4
        one = one_pass_accuracy(votes[0], n, [radius], 1.0, alpha, rho)  # and that is what the function computes
        assert one.population[0] == pytest.approx(max(population[0], 0), abs=1e-9)
        assert one.test_set[0] == pytest.approx(max(test_set[0], 0), abs=1e-9)


def test_limits_that_fail_are_paid_for():
    """Without the correction the bound would be false: all images have p = .05, and limits at alpha = .3."""
    rng, m, n, alpha = np.random.default_rng(5), 4000, 20, 0.6
    votes = rng.binomial(n, 0.05, m)
    found = one_pass_accuracy(votes, n, [0.0], 1.0, alpha)
    assert found.mean[0] > 0.02
    assert found.population[0] == 0.0


def test_lower_mean_is_a_limit_below_the_mean():
    values = np.random.default_rng(6).random((500, 3))
    limit = lower_mean(values, 0.05)
    assert (limit < values.mean(axis=0)).all()
    assert (limit > values.mean(axis=0) - 0.1).all()
    assert lower_mean(np.ones((1, 1)), 0.05)[0] == pytest.approx(0.05 / 2, rel=1e-9)
    assert lower_mean(np.zeros((10, 1)), 0.05)[0] == 0


@pytest.mark.parametrize("plan", [
    FixedN(n=400, alpha=0.01, radius_of=RADIUS), Curve(n_max=1000, alpha=0.01, radius_of=RADIUS),
    AtRadii(n_max=1000, radii=(0.25,), alpha=0.01, radius_of=RADIUS),
    AtRadii(n_max=1000, radii=(0.5,), alpha=0.01, method="cohen", radius_of=RADIUS),
    AtRadii(n_max=1000, radii=(0.5,), alpha=0.01, labels_known=True, radius_of=RADIUS),
], ids=["fixed", "curve", "radii", "leader", "labels"])
def test_looks_of_every_design_bound_the_label(plan):
    rng = np.random.default_rng(7)
    p = rng.dirichlet(np.full(4, 0.3), 300)
    histories, labels = drive(plan, p, rng, label=1), np.full(300, 1)
    found = limit_labels(plan, histories, labels, 4)
    assert found.alpha == 0.01
    assert np.allclose(found.p + found.q, 1)
    assert (found.p > p[:, 1]).sum() <= stats.binom.ppf(0.9999, 300, 0.01)
    assert found.p.max() > 0.8
    if isinstance(plan, FixedN):
        votes = np.array([history[1].counts[1] for history in histories])
        assert np.allclose(found.p, clopper_pearson(votes, 400, 0.01), rtol=1e-12)


def test_a_transfer_bounds_the_chosen_class_alone():
    plan = Transfer(source=FixedN(n=400, alpha=0.01, radius_of=RADIUS), n=400, alpha=0.01, radius_of=RADIUS)
    same = np.repeat([0, 1], [380, 20])
    history = [*looks("select", [95, 5, 0]), *looks("estimate", [380, 20, 0]),
               *paired_looks(0, tally_pairs(same, same, 0, 3))]
    found = limit_labels(plan, [history, history], np.array([0, 1]), 3)
    assert 0.8 < found.p[0] < 0.95
    assert found.p[1] == 0


@pytest.mark.parametrize(("votes", "n", "options"), [
    ([], 10, {}), ([11], 10, {}), ([[1]], 10, {}), ([5], 10, {"radii": [-1.0]}), ([5], 10, {"sigma": 0.0}),
    ([5], 10, {"alpha": 1.0}), ([5], 10, {"rho": 0.0}),
])
def test_bad_values_are_refused(votes, n, options):
    with pytest.raises(InputError):
        one_pass_accuracy(np.array(votes, dtype=np.int64), n, **{"radii": [0.5], "sigma": 1.0, **options})
