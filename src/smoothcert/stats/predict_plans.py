"""Prediction plans: a fixed number of samples, and sequential."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from smoothcert.checks import check_count, check_probability
from smoothcert.errors import InputError
from smoothcert.stats.histories import Answers, Draw, History, check_stages, flat_looks
from smoothcert.stats.procedures import ABSTAIN, predict_counts
from smoothcert.stats.sequential import growing_looks, spending_shares

LAST_SHARE = 0.7
"""Share of alpha that sequential PREDICT keeps for its last look."""


@dataclass(frozen=True)
class FixedPredict:
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
        return [self._draws[len(history)] for history in histories]

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "predict", "predict", most=len(self.looks) - 1)
        if not histories:
            return Answers(np.zeros(0, dtype=np.int64), {"p_value": np.zeros(0)})
        found = predict_counts(np.array([history[-1].counts for history in histories]), self.alpha)
        return Answers(found.prediction, {"p_value": found.p_value})

    @property
    def looks(self) -> tuple[int, ...]:
        return (self.n,) if isinstance(self.n, int) else tuple(self.n)

    @cached_property
    def _draws(self) -> tuple[Draw | None, ...]:
        return draw_up_to(self.looks)


@dataclass(frozen=True)
class Sequential:
    """PREDICT at looks that grow by half, from 16 samples to n_max; the first look that rejects a tie answers.

    The last look has .7 alpha, the others share the rest equally; at each, the top two counts are tested at its part
    alpha_k (`predict_counts`). A class other than the smoothed classifier's is returned with probability at most
    sum alpha_k = alpha, under any stopping rule.

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
        return {"design": "sequential", "method": "predict", "alpha": self.alpha, "n_max": self.n_max,
                "looks": "16*1.5^k", "spending": f"{1 - LAST_SHARE:.1g}/{LAST_SHARE:g}"}

    def most(self) -> int:
        return self.n_max

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = [self._draws[len(history)] for history in histories]
        looked = [i for i, history in enumerate(histories) if history and draws[i]]
        _, p_value, _ = self._tests([histories[i][-1:] for i in looked])  # earlier looks have not answered
        for i in np.array(looked, dtype=np.int64)[p_value <= self.alpha].tolist():
            draws[i] = None
        return draws

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "predict", "predict")
        owner, p_value, top = self._tests(histories)
        least, answer = np.ones(len(histories)), np.full(len(histories), ABSTAIN)
        np.minimum.at(least, owner, p_value)
        rejects = np.flatnonzero(p_value <= self.alpha)[::-1]
        answer[owner[rejects]] = top[rejects]  # the first look is written last
        return Answers(answer, {"p_value": least})

    @cached_property
    def looks(self) -> tuple[int, ...]:
        return growing_looks(self.n_max)

    @cached_property
    def _draws(self) -> tuple[Draw | None, ...]:
        return draw_up_to(self.looks)

    def _tests(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(owner, p_k alpha / alpha_k rounded up, top class) of every look, (T,)."""
        owner, look, counts = flat_looks(histories, 0, self.looks)
        if not len(owner):
            return owner, np.zeros(0), owner
        share = np.array(spending_shares(len(self.looks), LAST_SHARE))[look]
        p_value = predict_counts(counts, self.alpha).p_value / share * np.where(share < 1, 1 + 2.0**-51, 1.0)
        return owner, p_value, counts.argmax(axis=1)


PredictPlan = FixedPredict | Sequential
"""The designs that `SmoothedClassifier.predict` takes."""


def draw_up_to(looks: Sequence[int]) -> tuple[Draw | None, ...]:
    """Return the draw before each look at a sample that grows to `looks`; then None.

    >>> [draw and draw.n for draw in draw_up_to([100, 1000])]
    [100, 900, None]
    """
    return (*(Draw("predict", n - before) for before, n in pairwise((0, *looks))), None)
