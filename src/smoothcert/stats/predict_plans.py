"""Prediction plans: a fixed number of samples, or as few as the answer takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special

from smoothcert.checks import check_count, check_probability
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.histories import Answers, Draw, History, check_stages, flat_looks
from smoothcert.stats.procedures import ABSTAIN, predict_counts

SPENT = 0.4
"""Coefficient and exponent of the share of alpha that sequential PREDICT spends before its last look."""
FUTILITY = 0.02
"""Probability of giving up on an answer that the last look would have given, at each of the later looks."""


@dataclass(frozen=True, repr=False)
class FixedPredict(Displayed):
    """PREDICT from a fixed number of samples: `predict_counts`.

    Attributes:
        n: samples an image. Several numbers are nested looks of one sample, the 100 first of the 1,000 first: all are
            always drawn, and the answer is that of the last one. `judge` on histories cut shorter answers at an
            earlier one; each is then a test of level alpha by itself, and no two of them together are.
        alpha: probability of returning another class than the smoothed classifier's.
    Raises:
        InputError: values outside these.
    """

    kind = "predict"
    n: int | Sequence[int] = 1000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        several = tuple(check_count("n", n) for n in (self.n if isinstance(self.n, Sequence) else [self.n]))
        if not several or any(after <= before for before, after in pairwise(several)):
            raise InputError(f"n must name one or more numbers of samples in ascending order, got {self.n}")
        check_probability("alpha", self.alpha)
        object.__setattr__(self, "n", several[0] if len(several) == 1 else several)

    def identity(self) -> dict[str, Any]:
        return {"method": "predict", "alpha": self.alpha, "n": self.n if isinstance(self.n, int) else list(self.looks)}

    def most(self) -> int:
        return self.looks[-1]

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = draw_up_to(self.looks)
        return [draws[len(history)] for history in histories]

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "predict", "predict", most=len(self.looks) - 1)
        if not histories:
            return Answers(np.zeros(0, dtype=np.int64), {"p_value": np.zeros(0)})
        found = predict_counts(np.array([history[-1].counts for history in histories]), self.alpha)
        return Answers(found.prediction, {"p_value": found.p_value})

    @property
    def looks(self) -> tuple[int, ...]:
        return (self.n,) if isinstance(self.n, int) else tuple(self.n)


@dataclass(frozen=True, repr=False)
class Sequential(Displayed):
    """PREDICT at looks that grow by a tenth, from 16 samples to n_max; the first look that rejects a tie answers.

    Look k at n_k samples, t_k = n_k / n_max, spends alpha_k = alpha (g(t_k) - g(t_(k-1))), g(t) = .4 t^.4 and g(1) = 1;
    at each, the top two counts are tested at its part (`predict_counts`). A class other than the smoothed
    classifier's is returned with probability at most sum alpha_k = alpha, under any stopping rule.

    An image is given up, and abstained from, once its top two counts are so close that the last look would hardly
    reject: the lead at n_max that is still to be believed, at a level that grows to .02, is too small.

    The p-value is the least over the looks taken of p_k alpha / alpha_k, at most 1: the smallest alpha at which they
    answer. So the same looks may be judged at another alpha, and an image is answered where the p-value is <= alpha.

    Attributes:
        n_max: the most samples an image may take.
        alpha: probability of returning another class than the smoothed classifier's.
    Raises:
        InputError: values outside these.
    """

    kind = "predict"
    n_max: int
    alpha: float = 0.001

    def __post_init__(self) -> None:
        check_count("n_max", self.n_max)
        check_probability("alpha", self.alpha)

    def identity(self) -> dict[str, Any]:
        return {"design": "sequential", "version": 2, "method": "predict", "alpha": self.alpha, "n_max": self.n_max,
                "looks": "16+max(16,n/10)", "spending": f"{SPENT:g}*t^{SPENT:g}", "futility": FUTILITY}

    def most(self) -> int:
        return self.n_max

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = [self.draws[len(history)] for history in histories]
        looked = [i for i, history in enumerate(histories) if history and draws[i]]
        if looked:
            _, look, counts = flat_looks([histories[i][-1:] for i in looked], 0, self.looks)
            done = (self.p_values(look, counts) <= self.alpha) | self.is_futile(look, counts)
            for i in np.array(looked, dtype=np.int64)[done].tolist():  # earlier looks have not stopped it
                draws[i] = None
        return draws

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "predict", "predict")
        least, answer = np.ones(len(histories)), np.full(len(histories), ABSTAIN)
        owner, look, counts = flat_looks(histories, 0, self.looks)
        if len(owner):
            p_value = self.p_values(look, counts)
            np.minimum.at(least, owner, p_value)
            rejects = np.flatnonzero(p_value <= self.alpha)[::-1]
            answer[owner[rejects]] = counts.argmax(axis=1)[rejects]  # the first look is written last
        return Answers(answer, {"p_value": least})

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """The numbers of samples at which there is a look."""
        looks, n = [], 16
        while 1000 * n < 999 * self.n_max:
            looks.append(n)
            n = max(n + 16, n * 11 // 10)
        return (*looks, self.n_max)

    @cached_property
    def shares(self) -> np.ndarray:
        """The share of alpha that each look spends; together no more than 1, rounding included."""
        spent = SPENT * (np.array(self.looks[:-1]) / self.n_max) ** SPENT
        shares = np.diff(spent, prepend=0, append=1)
        return shares * (1 - 2.0**-46) if len(shares) > 1 else shares

    def is_futile(self, look: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return whether to give up at looks (T,) with counts (T, K): this costs answers, and never makes a wrong one.

        With N_1 and N_2 the top two counts, 2 asin sqrt(N_1 / (N_1 + N_2)) - pi/2 is normal with variance
        1 / (N_1 + N_2), nearly. At n_max it has to be z / sqrt(N), N the votes that the two then have together.
        """
        second, first = np.partition(counts, -2, axis=1)[:, -2:].T
        votes, t = first + second, np.array(self.looks)[look] / self.n_max
        lead = 2 * np.arcsin(np.sqrt(first / votes)) - np.pi / 2
        hope = special.ndtri(1 - FUTILITY * np.minimum(2.5 * t, 1)) * np.sqrt((1 - t) / votes)
        return lead + hope < -special.ndtri(self.alpha * self.shares[-1] / 2) * np.sqrt(t / votes)

    @cached_property
    def draws(self) -> tuple[Draw | None, ...]:
        """The draw before each look, and None after the last one."""
        return draw_up_to(self.looks)

    def p_values(self, look: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return p_k alpha / alpha_k, rounded up, of looks (T,) with counts (T, K)."""
        share = self.shares[look]
        return predict_counts(counts, self.alpha).p_value / share * np.where(share < 1, 1 + 2.0**-51, 1.0)


PredictPlan = FixedPredict | Sequential
"""The designs that `SmoothedClassifier.predict` takes."""


def draw_up_to(looks: Sequence[int]) -> tuple[Draw | None, ...]:
    """Return the draw before each look at a sample that grows to `looks`; then None.

    >>> [draw and draw.n for draw in draw_up_to([100, 1000])]
    [100, 900, None]
    """
    return (*(Draw("predict", n - before) for before, n in pairwise((0, *looks))), None)
