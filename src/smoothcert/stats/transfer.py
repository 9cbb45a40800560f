"""Certificates carried over from one base classifier to another by paired noisy copies.

f is a base classifier that a run has certified, h another one, such as f in fewer bits; both are judged under the same
noise. For every class c

    P(h = c) = P(f = c) + P(f != c, h = c) - P(f = c, h != c).

So the class c_A that the run of f chose keeps P(h = c_A) >= P(f = c_A) - P(f = c_A, h != c_A): only harmful flips
count, whatever is gained elsewhere. A rival c has P(h = c) <= P(f = c) + P(f != c, h = c).

The run of f bounds the first terms from its own looks at level (1 - share) alpha. The second ones are proportions,
which n noisy copies that both judge bound by Clopper-Pearson at level share alpha. All of it holds together except with
probability alpha, by the union bound, however these copies depend on the samples that bounded f. They must only be
others than those that chose c_A, since a class chosen from the same copies would not be fixed beforehand; here they
have a stream of noise of their own. n, the share and the method are fixed before any copy is judged.

The number of rivals needs no correction: the runner-up of h at the image is one class, fixed whatever is drawn. Its
flips are at most the most that any rival gained, and the run's bound on the largest rival holds for it as for any
other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.stats.binomial import SAFETY, upper_limit
from smoothcert.stats.certify_plans import ProvingPlan, answer, check_level, refuse_without_noise
from smoothcert.stats.histories import Answers, Draw, History, Look, RadiusOf
from smoothcert.stats.procedures import bounds_of
from smoothcert.stats.radius import ProbabilityBounds, cap_rival
from smoothcert.stats.rivals import Rivals, spread
from smoothcert.stats.sequential import SEQUENTIAL_METHODS

PAIRED = ("chosen", "original", "other", "gained", "harmed")
"""The looks after those of the run of f: one vote for c_A, then the looks at the copies that `tally_pairs` counts."""


class Proving(Protocol):
    """A plan whose looks bound the class probabilities, at any level that is chosen without looking at them."""

    def next(self, histories: Sequence[History]) -> list[Draw | None]: ...
    def judge(self, histories: Sequence[History]) -> Answers: ...
    def most(self) -> int: ...
    def identity(self) -> dict[str, Any]: ...

    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        """Return the classes and their bounds, (M,); p_a = 0 where the looks prove nothing.

        The bounds hold for a class and for any one other class, except with probability alpha. With `rivals`, p_b
        bounds each of these, (M, k).
        """
        ...


def tally_pairs(first: np.ndarray, second: np.ndarray, chosen: int, num_classes: int) -> np.ndarray:
    """Return the counts (4, K) int64 of the looks at the copies, each of which adds up to their number.

    They are the votes of f; the votes of h; by class other than c_A the copies that h alone gives it (f says another),
    with all other copies at c_A; and by class other than c_A the copies that f gives c_A and h gives it, with all other
    copies at c_A.

    Args:
        first, second: the classes (m,) that f and h give the same copies. chosen: c_A.

    >>> tally_pairs(np.array([0, 0, 1, 2]), np.array([0, 2, 0, 1]), 0, 3).tolist()
    [[2, 1, 1], [2, 1, 1], [2, 1, 1], [3, 0, 1]]
    """
    gained = np.where(second != first, second, chosen)
    harmed = np.where(first == chosen, second, chosen)
    return np.stack([np.bincount(votes, minlength=num_classes) for votes in (first, second, gained, harmed)])


@dataclass(frozen=True)
class Flips:
    """The paired copies of M images, int64 (M,): how many there are (0 where none were drawn), how many flips between
    the two networks hurt the chosen class and helped it, the most that a rival gained, and the chosen class."""

    copies: np.ndarray
    harmful: np.ndarray
    helpful: np.ndarray
    rival: np.ndarray
    chosen: np.ndarray


@dataclass(frozen=True, repr=False)
class Transfer(ProvingPlan):
    """Certify a base classifier from the looks of another one's run, and from n copies that both judge.

    With p_a and p_b the bounds of `source` at (1 - share) alpha, and U the Clopper-Pearson upper limit at share alpha,
    the bounds are p_a - U(harmful flips) and, for "two-sided", p_b + U(largest gain of a rival) or 1 - p_a if that is
    less, where the two limits have .9 and .1 of their part of alpha. See the module for the proof.

    An image that no flip could keep from being abstained from has no copies.

    Attributes:
        source: the plan that the looks of the other one were taken by.
        n: copies that both networks judge.
        share: part of alpha that the flips spend.
        alpha: failure probability of each certificate.
        method: "two-sided" or "cohen"; the looks of `source` are judged by the same one.
        margin, radius_of: as for `FixedN`.
    Raises:
        InputError: values outside these.
    """

    kind = "certify"
    source: Proving
    n: int = 10_000
    share: float = 0.5
    alpha: float = 0.001
    method: str = "two-sided"
    margin: float | None = None
    radius_of: RadiusOf = field(default=refuse_without_noise, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("n", self.n)
        if not isinstance(self.share, float) or not 0 < self.share < 1:
            raise InputError(f"share must lie strictly between 0 and 1, got {self.share!r}")
        check_level(self.alpha, self.method, self.margin)
        if self.method not in SEQUENTIAL_METHODS:
            raise InputError(f"a transfer bounds both networks' parts by {' or '.join(SEQUENTIAL_METHODS)}, and has no "
                             f"form of {self.method}: give one of these methods")
        if not hasattr(self.source, "prove"):
            raise InputError(f"the looks of a run of the design {type(self.source).__name__} bound no class "
                             f"probability that could be transferred: take the store of another design")

    def identity(self) -> dict[str, Any]:
        return {"design": "transfer", "method": self.method, "alpha": self.alpha, "n": self.n, "share": self.share,
                "margin": self.margin, "source": self.source.identity()}

    def most(self) -> int:
        """Return the votes of a whole record: those of the source, for the class, and of four looks at each copy."""
        return self.source.most() + 1 + (len(PAIRED) - 1) * self.n

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        """Return the next draw: first those of `source`, then the copies, all looks of which are of the same ones."""
        draws: list[Draw | None] = []
        for history in histories:
            looks, paired = split(history)
            draw = None if paired else self.source.next([looks])[0]
            if draw is None and len(paired) < len(PAIRED) and (paired or self.could_certify([looks])[0]):
                draw = Draw(PAIRED[len(paired)], self.n if paired else 1)
            draws.append(draw)
        return draws

    def could_certify(self, histories: Sequence[History]) -> np.ndarray:
        """Return (M,) bool: whether copies without any flip would certify the image; the looks are those of `source`.
        """
        chosen, first = self._judging.prove(histories)
        none = np.zeros(len(histories), dtype=np.int64)
        return self.radius_of(self._subtract(first, Flips(none + self.n, none, none, none, chosen))) > 0

    def choose(self, histories: Sequence[History]) -> np.ndarray:
        """Return the classes (M,) whose flips are to be counted, from the looks of `source`."""
        return self._judging.prove(histories)[0]

    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        """Return the classes and the bounds of h, both (M,); p_a = 0 where there are no copies.

        At another alpha a design may find another class than that whose flips were counted: p_a is 0 there too.

        Of several `rivals` the i-th largest probability under h is at most the i-th largest under f and the largest
        gain of any: k limits of gains hold together at a k-th of their level each.
        """
        chosen, first = self._judging.prove([split(history)[0] for history in histories], rivals)
        flips = self.flips(histories)
        usable = (flips.copies > 0) & (flips.chosen == chosen)
        found = self._subtract(first, flips)
        return chosen, ProbabilityBounds(*(
            np.where(usable.reshape(-1, *[1] * (value.ndim - 1)), value, none) for value, none in (
                (found.p_a, 0.0), (found.q_a, 1.0), (found.p_b, 1.0), (found.q_b, 0.0))))

    def judge_source(self, histories: Sequence[History]) -> Answers:
        """Return the answers of the run of f, as it gave them."""
        return self.source.judge([split(history)[0] for history in histories])

    def judge_directly(self, histories: Sequence[History], times: int = 1) -> Answers:
        """Return the answers that the copies' votes of h alone would give, at all of alpha, for the chosen class.

        With `times` above 1 they are what so many times as many copies would give if the shares of the votes stayed the
        same: estimates, no certificates.
        """
        chosen, radius = self.flips(histories).chosen, np.zeros(len(histories))
        paired = [i for i, history in enumerate(histories) if split(history)[1]]
        if paired:
            votes = times * np.array([split(histories[i])[1][2].counts for i in paired])
            radius[paired] = self.radius_of(bounds_of(chosen[paired], votes, self.alpha, self.method))
        return answer(radius, chosen)

    def flips(self, histories: Sequence[History]) -> Flips:
        """Count the flips of each image. Raises InputError where its paired looks are none or contradict themselves."""
        parts = [split(history) for history in histories]
        drawn = np.array([bool(paired) for _, paired in parts], dtype=bool)
        if any(paired and ([look.stage for look in paired] != list(PAIRED) or not looks) for looks, paired in parts):
            raise InputError(f"a transferred image needs looks of its source, then one each of {', '.join(PAIRED)}")
        found = np.zeros((5, len(parts)), dtype=np.int64)
        if drawn.any():
            counts = np.array([[look.counts for look in paired] for _, paired in parts if paired])
            chosen, first, second, gained, harmed = counts.swapaxes(0, 1)
            c_a = chosen.argmax(axis=1)
            rows, is_rival = np.arange(len(c_a)), np.arange(counts.shape[2]) != c_a[:, None]
            harmful = np.where(is_rival, harmed, 0).sum(axis=1)
            helpful = second[rows, c_a] - first[rows, c_a] + harmful
            sound = (np.all((harmed <= gained) & (gained <= second) | ~is_rival) and np.all(harmful <= first[rows, c_a])
                     and np.all((helpful >= 0) & (helpful <= np.where(is_rival, first, 0).sum(axis=1)))
                     and np.all(counts.sum(axis=2) == [1, *[self.n] * (len(PAIRED) - 1)]))
            if not sound:
                raise InputError("the looks at the paired copies contradict one another")
            found[:, drawn] = (np.full(len(c_a), self.n), harmful, helpful, np.where(is_rival, gained, 0).max(axis=1),
                               c_a)
        return Flips(*found)

    @cached_property
    def _judging(self) -> Proving:
        """The plan of the source at its part of alpha."""
        return replace(cast(Any, self.source), alpha=(1 - self.share) * self.alpha, method=self.method)

    def _subtract(self, first: ProbabilityBounds, flips: Flips) -> ProbabilityBounds:
        """Return the bounds of h from those of f and from flips, rounded to the safe side."""
        spent, copies = self.share * self.alpha, np.maximum(flips.copies, 1)
        harm, _ = upper_limit(flips.harmful, copies, 0.9 * spent if self.method == "two-sided" else spent)
        p_a = np.maximum(first.p_a * (1 - SAFETY) - harm * (1 + SAFETY), 0.0)
        q_a = np.minimum((first.q_a + harm) * (1 + SAFETY), 1.0)
        several = first.p_b.shape[1] if first.p_b.ndim == 2 else 0
        if self.method != "two-sided":
            return spread(p_a, q_a, several) if several else ProbabilityBounds(p_a, q_a, q_a, p_a)
        gain, _ = upper_limit(flips.rival, copies, 0.1 * spent / max(several, 1))
        gain = gain[:, None] if several else gain
        p_b = (first.p_b + gain) * (1 + SAFETY)
        q_b = np.maximum(first.q_b * (1 - SAFETY) - gain * (1 + SAFETY), 0.0)
        return cap_rival(p_a, q_a, p_b, q_b)


def split(history: History) -> tuple[History, History]:
    """Return the looks of the source's run and those at the paired copies."""
    cut = next((k for k, look in enumerate(history) if look.stage in PAIRED), len(history))
    return history[:cut], history[cut:]


def paired_looks(chosen: int, counts: np.ndarray) -> list[Look]:
    """Return the looks `PAIRED` for the class whose copies `tally_pairs` counted, (4, K)."""
    one = np.zeros(counts.shape[1], dtype=np.int64)
    one[chosen] = 1
    return [Look(stage, votes) for stage, votes in zip(PAIRED, (one, *counts), strict=True)]
