"""Multi-label certificates: exact failure probabilities, and Holm's procedure against its definition."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy import special, stats

from smoothcert.errors import InputError
from smoothcert.stats import gaussian_radius
from smoothcert.stats.multi_label import MultiLabelPlan

SIGMA = 0.5


def plan(labels: int, n0: int = 3, n: int = 14, alpha: float = 0.1) -> MultiLabelPlan:
    return MultiLabelPlan(labels, n0, n, alpha, partial(gaussian_radius, sigma=SIGMA))


def false(answers, p: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return which labels (M, L) claim an answer within `radii` that is not kept there, for true probabilities p."""
    kept = np.where(answers.prediction == 1, p, 1 - p)
    return (answers.prediction >= 0) & (radii > SIGMA * special.ndtri(kept) + 1e-12)


@pytest.mark.parametrize("p", [(0.5, 0.5), (0.62, 0.3), (0.9, 0.55), (0.97, 0.97), (0.75, 0.75)])
@pytest.mark.parametrize("joint", ["independent", "equal", "opposite"])
def test_all_labels_fail_with_at_most_alpha(p, joint):
    """All counts of two labels that depend on each other in the three extreme ways."""
    one = plan(2)
    p = np.array(p) if joint == "independent" else np.array([p[0], p[0] if joint == "equal" else 1 - p[0]])
    cells = np.array([(*select, *estimate) for select in product(range(4), repeat=2)
                      for estimate in product(range(15), repeat=2)])
    if joint == "independent":
        weight = (stats.binom.pmf(cells[:, :2], 3, p) * stats.binom.pmf(cells[:, 2:], 14, p)).prod(axis=1)
    else:
        mirror = (lambda k, n: k) if joint == "equal" else (lambda k, n: n - k)
        weight = stats.binom.pmf(cells[:, 0], 3, p[0]) * stats.binom.pmf(cells[:, 2], 14, p[0])
        weight = weight * (cells[:, 1] == mirror(cells[:, 0], 3)) * (cells[:, 3] == mirror(cells[:, 2], 14))
    answers = one.judge(cells[:, :2], cells[:, 2:])
    assert weight.sum() == pytest.approx(1)
    assert weight[false(answers, p, answers.radius).any(axis=1)].sum() <= one.alpha
    for radius in (1e-9, 0.1, 0.25, 0.4, *(SIGMA * special.ndtri(np.maximum(p, 1 - p)) + 1e-9)):
        claimed = answers.holm >= radius
        wrong = claimed & false(answers, p, np.full_like(answers.holm, radius))
        assert weight[wrong.any(axis=1)].sum() <= one.alpha


def test_holm_is_the_step_down_test_at_every_radius():
    one = plan(4, n=60)
    rng = np.random.default_rng(0)
    estimate = rng.integers(20, 61, (300, 4))
    answers = one.judge(np.full((300, 4), 3), estimate)
    more = 0
    for radius in (0.05, 0.2, 0.4, 0.6):
        p_values = stats.binom.sf(estimate - 1, 60, special.ndtr(radius / SIGMA))
        for row in range(300):
            claimed = np.zeros(4, bool)
            for j, label in enumerate(np.argsort(p_values[row], kind="stable")):
                if p_values[row, label] > one.alpha / (4 - j):
                    break
                claimed[label] = True
            np.testing.assert_array_equal(answers.holm[row] >= radius, claimed)
        more += int(((answers.holm >= radius) & (answers.radius < radius)).sum())
    assert more > 20
    assert (answers.holm >= answers.radius).all()


def test_one_label_is_certified_like_two_classes():
    from smoothcert.stats import certify_counts

    one = plan(1, n0=100, n=1000, alpha=0.001)
    present = np.array([[0], [3], [480], [503], [620], [998], [1000]])
    answers = one.judge(np.where(present > 500, 100, 0), present)
    both = np.concatenate([1000 - present, present], axis=1)
    other = certify_counts(np.where(both > 500, 100, 0), both, sigma=SIGMA, alpha=0.001, method="cohen")
    np.testing.assert_array_equal(answers.radius[:, 0], other.radius)
    np.testing.assert_array_equal(answers.holm, answers.radius)
    np.testing.assert_array_equal(answers.prediction[:, 0], other.prediction)


def test_counts_that_no_run_gives_are_refused():
    one = plan(2)
    with pytest.raises(InputError, match=r"estimate must lie between 0 and 14, got values from 0 to 15"):
        one.judge(np.zeros((1, 2), int), np.array([[0, 15]]))
    with pytest.raises(InputError, match=r"select must be whole numbers of shape \(M, 2\)"):
        one.judge(np.zeros((1, 3), int), np.zeros((1, 2), int))
    with pytest.raises(InputError, match="labels"):
        plan(0)
