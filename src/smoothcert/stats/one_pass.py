"""The accuracy left to a classifier that answers with one noisy copy, against an adversary who does not see the noise.

That classifier answers f(x + d + e) with e ~ N(0, sigma^2 I) drawn anew; the adversary chooses d, ||d|| <= r, knowing
everything but e. An image whose label has probability p_y keeps it with probability h_r(p_y) at least, where
h_r(p) = Phi(Phi^-1(p) - r / sigma) (Neyman-Pearson). So the mean of h_r(p_y) over new images is a lower bound of the
accuracy. It is a marginal claim, over images and noise: no single answer is certified.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from smoothcert.checks import check_positive, check_probability
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY, check_trials, lower_limit
from smoothcert.stats.claimed import add_labels, judge_labels
from smoothcert.stats.histories import History
from smoothcert.stats.intervals import check_radii, false_claims
from smoothcert.stats.means import lower_mean
from smoothcert.stats.radius import z_lower
from smoothcert.stats.transfer import Transfer


@dataclass(frozen=True)
class LabelLimits:
    """Lower limits of the probability of each image's label under noise; each fails with probability alpha at most.

    Attributes:
        p, q: (M,) the limit, and 1 minus it.
        alpha: the level.
    """

    p: np.ndarray
    q: np.ndarray
    alpha: float


@dataclass(frozen=True)
class OnePass:
    """Lower bounds of the accuracy with one noisy copy, at each radius (R,), as fractions.

    They hold with probability 1 - rho at one radius chosen beforehand. `mean` is that of h_r over the limits of the
    images, with no correction: an estimate.

    Attributes:
        radii: the radii asked for.
        mean: of V_i = h_r(L_i), L_i the lower limit of image i.
        test_set: for these images, and new noise.
        population: for new images.
    """

    radii: np.ndarray
    mean: np.ndarray
    test_set: np.ndarray
    population: np.ndarray


def one_pass_accuracy(
    votes: npt.ArrayLike, n: npt.ArrayLike, radii: npt.ArrayLike, sigma: float, alpha: float = 0.001, rho: float = 0.05
) -> OnePass:
    """Return the accuracy with one noisy copy from the votes for the labels; see `OnePass`.

    Args:
        votes: for each image's label, (M,). n: samples, fixed beforehand, (M,) or one number.
        radii: (R,), in the units of sigma. alpha: level of each image's limit. rho: failure probability.
    Raises:
        InputError: values outside these.

    >>> at = one_pass_accuracy([990] * 500, 1000, [0.0, 0.5], sigma=0.5)
    >>> at.population.round(3).tolist()
    [0.956, 0.815]
    """
    alpha = check_probability("alpha", alpha)
    votes, n = np.broadcast_arrays(*check_trials(votes, n))
    if votes.ndim != 1 or not votes.size:
        raise InputError(f"votes must have shape (M,) with at least one image, got {votes.shape}")
    return bound_one_pass(LabelLimits(*lower_limit(votes, n, alpha), alpha), radii, sigma, rho)


def bound_one_pass(limits: LabelLimits, radii: npt.ArrayLike, sigma: float, rho: float) -> OnePass:
    """Return the bounds of limits that are independent over images.

    V_i exceeds h_r(p_y) where L_i fails alone, with probability alpha, and is at most 1 there. *New images*: hence
    E V <= mu + alpha (1 - mu) for mu = E h_r(p_y), so mu >= (E V - alpha) / (1 - alpha), and `lower_mean` bounds E V.
    *These images*: with probability 1 - rho no more than q limits fail (`false_claims`), and the q largest V_i are the
    most that these can add.
    """
    grid, sigma, rho = check_radii(radii), check_positive("sigma", sigma), check_probability("rho", rho)
    z, m = z_lower(limits.p, limits.q), len(limits.p)
    kept = special.ndtr(z[:, None] - grid / sigma * (1 + SAFETY)) * (1 - SAFETY)
    mean = kept.mean(axis=0)
    failing = false_claims(m, limits.alpha, rho)
    largest = np.sort(kept, axis=0)[m - failing:].sum(axis=0) / m
    population = (lower_mean(kept, rho) - limits.alpha) / (1 - limits.alpha)
    return OnePass(grid, mean, np.maximum(mean * (1 - SAFETY) - largest, 0.0),
                   np.maximum(population * (1 - SAFETY), 0.0))


def limit_labels(plan: Any, histories: Sequence[History], labels: np.ndarray, num_classes: int) -> LabelLimits:
    """Return the limits of the labels (M,) that the looks of a plan prove, one-sided at all of its alpha.

    Looks of a sequential plan bound the label's class at every look, wherever they stopped. Of a transfer only the
    flips of the chosen class are known, so images of another label have the limit 0.
    """
    one_sided = replace(plan, method="cohen")
    if isinstance(plan, Transfer):
        chosen, bounds = one_sided.prove(histories)
        usable = chosen == labels
        return LabelLimits(np.where(usable, bounds.p_a, 0.0), np.where(usable, bounds.q_a, 1.0), plan.alpha)
    if not getattr(plan, "labels_known", False):
        one_sided, histories = judge_labels(one_sided, add_labels(histories, labels, num_classes))
    _, bounds = one_sided.prove(histories)
    return LabelLimits(bounds.p_a, bounds.q_a, plan.alpha)
