"""Multi-label certificates: whether each of several labels is present, from the votes of the same noisy copies.

A base classifier says of every label whether it is present. Each label is a binary smoothed classifier of its own, so
CERTIFY (Cohen et al. 2019) proves a radius for it, and at alpha / L for each of L labels all radii of an input hold
together with probability 1 - alpha.

**Holm.** At one radius r that was chosen beforehand, more labels can be claimed at the same alpha. H_l says that the
answer of label l is not kept within r, so that its probability is at most p_r = Phi(r / sigma). It is rejected at
level a where the lower limit of the count at a exceeds p_r. S. Holm (1979, "A simple sequentially rejective multiple
test procedure") tests the label with the most votes at alpha / L, the next one at alpha / (L - 1), and so on to the
first that fails. So label (j), in the order of the votes, is claimed at r where all the limits of (1) ... (j), at
alpha / L ... alpha / (L - j + 1), reach r: that is, up to the least of their radii, which is computed here once for
every r. The proof needs no independence of labels. It does need a single r: over all r at once the chance of a false
claim can exceed alpha, and then only the radii at alpha / L hold.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.checks import check_count, check_probability
from smoothcert.errors import InputError
from smoothcert.stats.certify_plans import FixedN, refuse_without_noise
from smoothcert.stats.histories import RadiusOf
from smoothcert.stats.procedures import ABSTAIN, bounds_of

METHOD = "cohen"
"""Of two answers, one has what the other lacks: a second limit for the rival gains nothing."""


@dataclass(frozen=True)
class LabelAnswers:
    """The certificates of M inputs and their L labels; without the M, of one input.

    Attributes:
        chosen: (M, L) int64, by the selection: 1 present, 0 absent.
        radius: (M, L), within which the chosen answers are kept, all of an input together at alpha; 0 where nothing is
            proved.
        holm: (M, L) at least `radius`: at one radius r that was chosen beforehand, the chosen answers of an input with
            holm >= r are kept together at alpha.
    """

    chosen: np.ndarray
    radius: np.ndarray
    holm: np.ndarray

    @property
    def prediction(self) -> np.ndarray:
        """(M, L) int64: the chosen answers, -1 where the radius is 0 and the label abstains."""
        return np.where(self.radius > 0, self.chosen, ABSTAIN)


@dataclass(frozen=True)
class MultiLabelPlan:
    """CERTIFY for L labels at once: n0 samples choose the answer of each label, n fresh ones bound its probability.

    Args:
        labels: L.
        n0, n: samples an input.
        alpha: failure probability of an input: of all its labels together.
        radius_of: turns bounds into radii, `noise.radius`.
    Raises:
        InputError: values outside these.
    """

    labels: int
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    radius_of: RadiusOf = field(default=refuse_without_noise, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("labels", self.labels)
        check_probability("alpha", self.alpha)
        _ = self.each

    @cached_property
    def each(self) -> FixedN:
        """The plan of a single label, whose two classes are absent and present, at its part of alpha."""
        return FixedN(self.n0, self.n, self.alpha / self.labels, METHOD, radius_of=self.radius_of)

    def identity(self) -> dict[str, Any]:
        """Return the procedure as a store's identity has it; alpha is that of an input."""
        return {**self.each.identity(), "alpha": self.alpha}

    def judge(self, select: np.ndarray, estimate: np.ndarray) -> LabelAnswers:
        """Certify M inputs.

        Args:
            select, estimate: (M, L) of the n0 and of the n copies, those with the label.
        """
        chosen = (2 * check_present("select", select, self.n0, self.labels) > self.n0).astype(np.int64)
        present = check_present("estimate", estimate, self.n, self.labels)
        votes = np.where(chosen == 1, present, self.n - present)
        radius = self._radii(votes, self.labels)
        order = np.argsort(-votes, axis=1, kind="stable")
        ranked = np.take_along_axis(votes, order, axis=1)
        steps = np.stack([self._radii(ranked[:, j], self.labels - j) for j in range(self.labels)], axis=1)
        holm = np.empty_like(radius)
        np.put_along_axis(holm, order, np.minimum.accumulate(steps, axis=1), axis=1)
        return LabelAnswers(chosen, radius, holm)

    def _radii(self, votes: np.ndarray, share: int) -> np.ndarray:
        """Return the radii that `votes` (...,) of n prove at alpha / share."""
        counts = np.stack([votes.ravel(), self.n - votes.ravel()], axis=1)
        bounds = bounds_of(np.zeros(len(counts), dtype=np.int64), counts, self.alpha / share, METHOD)
        return self.radius_of(bounds).reshape(votes.shape)


def check_present(name: str, counts: np.ndarray, n: int, labels: int) -> np.ndarray:
    """Return counts (M, L) of n as int64. Raises InputError for others."""
    found = np.asarray(counts)
    if found.ndim != 2 or found.shape[1] != labels or found.dtype.kind not in "iu":
        raise InputError(f"{name} must be whole numbers of shape (M, {labels}), got {found.dtype} {found.shape}")
    if found.size and not 0 <= found.min() <= found.max() <= n:
        raise InputError(f"{name} must lie between 0 and {n}, got values from {found.min()} to {found.max()}")
    return found.astype(np.int64)
