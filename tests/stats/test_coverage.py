"""Exact coverage: the failure probability of every procedure, summed over all outcomes, against its claim."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from smoothcert.stats import certify_counts

_SPEC = importlib.util.spec_from_file_location(
    "enumeration", Path(__file__).parents[2] / "evidence" / "enumeration.py")
exact = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(exact)

TRIALS, ALPHAS = (10, 30, 60, 100), (0.001, 0.01, 0.05, 0.2)
CLAIMS = {"cohen": 1, "two-sided": 1, "t-certify": 2}
"""Failure probability that each method may have, in units of alpha."""
ROUNDING = 1 + 1e-10


@cache
def plain_grid():
    """Regular points, and points beside 0, 1/2 and 1."""
    ends = [(a, b, 1 - a - b) for a in (1e-6, 1e-3, 0.4999, 0.5, 0.5001, 0.999, 1 - 1e-6)
            for b in (0.0, 1e-6, 1e-3, 0.3, 0.4998) if a + b <= 1]
    return np.concatenate([exact.simplex(14), np.array(ends)])


CASES = [(method, n, alpha) for method in CLAIMS for n in TRIALS for alpha in ALPHAS
         if method != "t-certify" or n < 60 or alpha == 0.01]  # the costly ones of t-certify: once; all in evidence/


@pytest.mark.parametrize(("method", "n", "alpha"), CASES)
def test_certificates_fail_with_at_most_the_claimed_probability(method, n, alpha):
    p = np.concatenate([plain_grid(), exact.near_jumps(n, alpha, method, radii=120, shapes=5)])
    for selected in (0, 1) if n < 60 else (0,):  # 0 is the top class of half of these points, 1 mostly not
        assert exact.failure_probability(p, n, alpha, method, selected).max() <= CLAIMS[method] * alpha * ROUNDING


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_grid_finds_the_worst_case(alpha):
    """The check above has teeth: Cohen's bound is met with equality (all but 1e-6) at the jumps, so a method that
    was wrong by a hair would be seen."""
    for n in (30, 100):
        jumps = exact.near_jumps(n, alpha, "cohen", radii=60, shapes=1)
        worst = exact.failure_probability(jumps, n, alpha, "cohen").max()
        assert worst >= alpha * (1 - 1e-6)


def test_a_false_claim_is_seen():
    """The enumeration refutes what is false: Cohen's procedure run at 1.01 alpha fails with more than alpha."""
    alpha, n = 0.05, 30
    jumps = exact.near_jumps(n, 1.01 * alpha, "cohen", radii=60, shapes=1)
    assert exact.failure_probability(jumps, n, 1.01 * alpha, "cohen").max() > alpha


def test_the_enumeration_is_a_probability_law():
    """The outcomes' probabilities add up to 1, and failures equal a plain loop's."""
    counts, log_coefficients = exact.outcomes(6)
    assert len(counts) == 28
    assert np.all(counts.sum(axis=1) == 6)
    p = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.45, 0.55, 0.0]])
    assert exact.probabilities(p, counts, log_coefficients).sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-12)
    alpha = 0.3
    for method in CLAIMS:
        got = exact.failure_probability(p, 6, alpha, method, selected=1, chunk=2)
        radii = [float(certify_counts([0, 1, 0], outcome, 1.0, alpha, method).radius) for outcome in counts]
        for row, value in zip(p, got, strict=True):
            truth = float(exact.true_radius(row[None], 1)[0])
            chances = np.exp(log_coefficients) * np.prod(row**counts, axis=1)
            assert value == pytest.approx(sum(c for c, r in zip(chances, radii, strict=True) if r > truth), abs=1e-13)
    assert exact.failure_probability(p, 6, alpha, "cohen", selected=1)[2] > 0


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", TRIALS)
def test_predict_returns_a_wrong_class_with_at_most_alpha(n, alpha):
    """For every class that is not a top class, and (Hung & Fithian 2019) for all of them together; at a tie of the top
    classes none is the one top class, so there any answer counts."""
    near_ties = [(a + e, a, 1 - 2 * a - e) for a in (1 / 3, 0.34, 0.4, 0.45, 0.4995)
                 for e in (0.0, 1e-12, 1e-4) if 2 * a + e <= 1]
    p = np.concatenate([plain_grid(), np.array([*near_ties, (0.5, 0.5, 0.0), (1 / 3, 1 / 3, 1 / 3)])])
    returned = exact.return_probability(p, n, alpha)
    below_top = p < p.max(axis=1, keepdims=True)
    assert np.all(returned[below_top] <= alpha * ROUNDING)
    is_the_top = (p == p.max(axis=1, keepdims=True)) & ((p == p.max(axis=1, keepdims=True)).sum(axis=1) == 1)[:, None]
    wrong = (returned * ~is_the_top).sum(axis=1)
    assert np.all(wrong <= alpha * ROUNDING)
    votes = np.arange(n + 1)
    rejections = 2 * stats.binom.sf(votes - 1, n, 0.5)
    assert wrong.max() >= rejections[rejections <= alpha].max(initial=0) * (1 - 1e-9)  # the two-class tie at least
    assert returned[is_the_top].max() == pytest.approx(float(2.0 ** (1 - n) <= alpha), abs=1e-3)
