"""Planned claims: the level of the bound by enumeration, exact expectations, and what a plan promises."""

from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError
from smoothcert.stats import AtRadii, clopper_pearson, gaussian_radius
from smoothcert.stats.intervals import population_bound
from smoothcert.stats.planning import cheapest, find_votes, foresee, highest, likely_probabilities


def design(n_max: int, alpha: float, radius: float = 0.5) -> AtRadii:
    return AtRadii(n_max=n_max, radii=(radius,), alpha=alpha, method="cohen", labels_known=True,
                   radius_of=partial(gaussian_radius, sigma=0.5))


def pilot(share: float = 0.6, images: int = 50, n: int = 1000) -> np.ndarray:
    k = np.where(np.arange(images) < share * images, 0.97 * n, 0.4 * n)
    return likely_probabilities(k, np.full(images, n))


@pytest.mark.parametrize(("m", "n_max", "alpha", "rho"), [
    (8, 100, 0.1, 0.1), (30, 100, 0.05, 0.05), (30, 400, 0.3, 0.2), (90, 200, 0.02, 0.05)])
def test_the_population_bound_keeps_its_level(m, n_max, alpha, rho):
    """All numbers of claims are summed over: images are either robust, or lie a hair below the radius."""
    plan = design(n_max, alpha)
    edge = special.ndtr(plan.quantiles[0] - 1e-9)
    false, _ = plan.expect(np.array([edge]))
    assert false[0] <= alpha
    bounds = population_bound(np.arange(m + 1), m, alpha, rho)
    worst = 0.0
    for found in bounds[bounds > 0]:
        pi = found * (1 - 1e-9)  # the truth that this number of claims fails first
        theta = pi + (1 - pi) * false[0]
        worst = max(worst, stats.binom.pmf(np.arange(m + 1), m, theta)[bounds > pi].sum())
    assert 0.2 * rho < worst <= rho


@pytest.mark.parametrize("n_max", [100, 1000, 5000])
@pytest.mark.parametrize("z", [-3.0, 0.9, 1.0, 1.05, 1.3, 4.0])
def test_what_a_design_expects_is_exact(n_max, z):
    """The walk of single looks, by scipy's binomial, as in evidence/lookwise.py."""
    plan, p = design(n_max, 0.01), special.ndtr(z)
    law, before, claimed, samples = np.ones(1), 0, 0.0, 0.0
    for k, n in enumerate(plan.looks):
        law = np.convolve(law, stats.binom.pmf(np.arange(n - before + 1), n - before, p))
        count, before = np.arange(n + 1), n
        crosses, gives_up = count >= plan._cuts[k, 0], count <= plan._give_up[k, 0]
        claimed += law[crosses].sum()
        samples += n * law[crosses | gives_up].sum()
        law[crosses | gives_up] = 0.0
    found, mean = plan.expect(np.array([p, 0.5]))
    assert law.sum() == 0.0
    assert found[0] == pytest.approx(claimed, abs=1e-6)
    assert mean[0] == pytest.approx(samples, rel=1e-6)


def test_votes_are_found_from_their_limit():
    k = np.array([100.0, 700.0, 999.0, 1000.0])
    limit = [clopper_pearson(int(votes), 1000, 0.001) for votes in k]
    assert find_votes(special.ndtri(limit), 1000, 0.001) == pytest.approx(k, abs=1e-3)


@pytest.mark.parametrize("bound", [0.1, 0.35, 0.45])
def test_the_least_claims_for_a_bound_are_the_least(bound):
    one, images = foresee(design, pilot(), 0.05, (0.01,), (500,))[0], np.arange(1, 300)
    claims = one.claims_for(bound, images)
    possible = claims <= images
    assert possible.any()
    assert (population_bound(claims[possible], images[possible], 0.01, 0.05) >= bound).all()
    assert (population_bound(claims[possible] - 1, images[possible], 0.01, 0.05) < bound).all()
    assert (population_bound(images[~possible], images[~possible], 0.01, 0.05) < bound).all()


def test_a_plan_keeps_its_chance_and_is_the_cheapest():
    designs = foresee(design, pilot(), 0.05, (0.001, 0.01), (200, 1000, 10_000))
    found = cheapest(designs, 0.45, 0.8, 10_000)
    assert found.chance >= 0.8
    assert found.bound >= 0.45
    every = [one.reach(0.45, 0.8, 10_000) for one in designs]
    assert found.all_samples == min(one.all_samples for one in every if one is not None)


def test_the_chance_counts_what_the_pilot_leaves_open():
    """Runs of images drawn anew, with the share of each drawn as the pilot leaves it open."""
    one = foresee(design, pilot(), 0.05, (0.01,), (1000,))[0]
    planned, rng = one.prove_most(200, 0.8), np.random.default_rng(0)
    share = rng.beta(50 * one.share + 0.5, 50 * (1 - one.share) + 0.5, 40_000)
    reached = population_bound(rng.binomial(200, share), 200, 0.01, 0.05) >= planned.bound
    assert reached.mean() == pytest.approx(planned.chance, abs=0.01)


def test_a_larger_pilot_promises_more():
    bounds = [highest(foresee(design, pilot(images=images), 0.05, (0.01,), (1000,)), 0.8, 500).bound
              for images in (20, 50, 500)]
    assert bounds == sorted(bounds)


def test_a_budget_is_kept():
    found = highest(foresee(design, pilot(), 0.05), 0.5, 10**6, 50_000)
    assert found.all_samples <= 50_000
    assert found.bound > 0.4


def test_what_cannot_be_had_is_none_or_an_error():
    designs = foresee(design, pilot(), 0.05, (0.01,), (1000,))
    assert cheapest(designs, 0.9, 0.8, 10_000) is None
    with pytest.raises(InputError, match="with 50 samples"):
        highest(designs, 0.8, 100, 50)
    with pytest.raises(InputError, match="100,000 unanimous votes"):
        highest(foresee(partial(design, radius=9.0), pilot(), 0.05), 0.8, 100)
