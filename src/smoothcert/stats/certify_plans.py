"""Certification plans of one look: a fixed number of samples, or one sized by a pilot for the full curve."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from smoothcert.checks import check_count, check_known, check_positive, check_probability
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.histories import Answers, Draw, History, RadiusOf, check_counts, check_stages
from smoothcert.stats.procedures import ABSTAIN, METHODS, bounds_of
from smoothcert.stats.radius import ProbabilityBounds, check_margin
from smoothcert.stats.rivals import Rivals
from smoothcert.stats.sizing import INTERVAL, LEAST, LOWEST, aim_of, size_curves


def refuse_without_noise(bounds: ProbabilityBounds) -> np.ndarray:
    """Raise InputError: a radius depends on the noise, and this stands in for it until a plan is given one."""
    raise InputError("this plan knows no noise yet: give it to SmoothedClassifier.certify, or make it with "
                     "radius_of=partial(noise.radius, margin=margin)")


class ProvingPlan(Displayed):
    """The base of the plans that certify: what their looks prove, and the answers that follow from it."""

    radius_of: RadiusOf

    @abstractmethod
    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        """Return the classes and the bounds that the looks prove, (M,); p_a = 0 where there are none.

        With `rivals`, p_b bounds each of these, (M, k).
        """

    def judge(self, histories: Sequence[History]) -> Answers:
        chosen, bounds = self.prove(histories)
        return answer(self.radius_of(bounds), chosen)


@dataclass(frozen=True, repr=False)
class FixedN(ProvingPlan):
    """CERTIFY from a fixed number of samples: n0 choose the class, n fresh ones bound its probability.

    Attributes:
        n0: samples that choose the class, then thrown away.
        n: samples that bound its probability.
        alpha: failure probability of each certificate.
        method: "two-sided", "cohen" or "t-certify"; see `certify_counts`.
        margin: tau in [0, 1/2), for the radius within which the class keeps probability 1/2 + tau; None: the plain one.
        radius_of: turns ProbabilityBounds (M,) into radii (M,). `SmoothedClassifier.certify` fills in its noise's.
    Raises:
        InputError: values outside these.
    """

    kind = "certify"
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    method: str = "two-sided"
    margin: float | None = None
    radius_of: RadiusOf = field(default=refuse_without_noise, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("n0", self.n0)
        check_count("n", self.n)
        check_level(self.alpha, self.method, self.margin)

    def identity(self) -> dict[str, Any]:
        return {"method": self.method, "alpha": self.alpha, "n0": self.n0, "n": self.n, "margin": self.margin}

    def most(self) -> int:
        return self.n0 + self.n

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = (Draw("select", self.n0), Draw("estimate", self.n), None)
        return [draws[min(len(history), 2)] for history in histories]

    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        check_stages(histories, "select", "estimate", most=1)
        return _prove_once(histories, self.alpha, self.method, rivals)


@dataclass(frozen=True, repr=False)
class Curve(ProvingPlan):
    """Size n for each image so that its whole curve of radii is nearly the one at n_max.

    A pilot of n0 samples chooses the class and the number n of fresh samples; `method` judges these at alpha. n is the
    least that is expected to bring the radius within a share `loss` of the one at n_max, given the pilot
    (`size_curves`). Class and n are fixed given the pilot, none of whose samples is used again, so the guarantee is
    the method's own. An image that the pilot finds hopeless is abstained from without further samples.

    Attributes:
        n0: samples of the pilot; None becomes `default_pilot(n_max)`, 1,000 where n_max is 10,000 or more.
        loss: share of the mean radius at n_max that may be lost; a single image may lose more.
        n_max: the most samples an image may take after the pilot.
        alpha, method, margin, radius_of: as for `FixedN`.
        to: the radius up to which the curve is asked for, in the units of sigma; no sample is spent on larger radii,
            which are reported as they come. None asks for all of it.
    Raises:
        InputError: values outside these.
    """

    kind = "certify"
    n0: int = cast(int, None)
    loss: float = 0.01
    n_max: int = 100_000
    alpha: float = 0.001
    method: str = "two-sided"
    margin: float | None = None
    radius_of: RadiusOf = field(default=refuse_without_noise, compare=False, repr=False)
    to: float | None = None

    def __post_init__(self) -> None:
        check_count("n_max", self.n_max)
        if self.n0 is None:
            object.__setattr__(self, "n0", default_pilot(self.n_max))
        check_count("n0", self.n0)
        check_probability("loss", self.loss)
        if self.to is not None:
            check_positive("to", self.to)
        check_level(self.alpha, self.method, self.margin)

    def identity(self) -> dict[str, Any]:
        aim, top = aim_of(self.method, self.to)
        return {"design": "curve", "version": 2, "method": self.method, "alpha": self.alpha, "n0": self.n0,
                "n_max": self.n_max, "loss": self.loss, "to": self.to, "interval": INTERVAL, "prior": [LOWEST, top],
                "aim": aim, "least": LEAST, "margin": self.margin}

    def most(self) -> int:
        return self.n0 + self.n_max

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws: list[Draw | None] = [None if history else Draw("pilot", self.n0) for history in histories]
        piloted = [i for i, history in enumerate(histories) if len(history) == 1]
        if piloted:
            counts = np.array([histories[i][0].counts for i in piloted])
            rival, n_a = np.partition(counts, -2, axis=1)[:, -2:].T
            for i, n in zip(piloted, self.sizes(n_a, rival).tolist(), strict=True):
                draws[i] = Draw("estimate", n) if n else None
        return draws

    def sizes(self, n_a: np.ndarray, rival: np.ndarray) -> np.ndarray:
        """Return the fresh samples of each image, (M,), from the pilot's top two counts (M,); 0 where it is hopeless.
        """
        return size_curves(n_a, rival, self.n0, self.n_max, self.loss, self.alpha, self.method, self.radius_of,
                           self.to)

    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        check_stages(histories, "pilot", "estimate", most=1)
        return _prove_once(histories, self.alpha, self.method, rivals)


def check_level(alpha: float, method: str, margin: float | None) -> None:
    """Raise InputError for values that no procedure takes."""
    check_probability("alpha", alpha)
    check_known("method", method, METHODS)
    if margin is not None:
        check_margin(margin)


def choose(histories: Sequence[History]) -> np.ndarray:
    """Return the most frequent class of each first look (the lowest among equals), (M,)."""
    if not histories:
        return np.zeros(0, dtype=np.int64)
    return np.array([history[0].counts for history in histories]).argmax(axis=1)


def _prove_once(
    histories: Sequence[History], alpha: float, method: str, rivals: Rivals | None
) -> tuple[np.ndarray, ProbabilityBounds]:
    """Return the bounds of the fixed-n procedure from the second look of each history, for the class of the first."""
    chosen, m = choose(histories), len(histories)
    shape = (m,) if rivals is None else (m, rivals.count)
    bounds = ProbabilityBounds(np.zeros(m), np.ones(m), np.ones(shape), np.zeros(shape))
    sampled = [i for i, history in enumerate(histories) if len(history) == 2]
    if sampled:
        selection, estimation = (
            check_counts(name, np.array([histories[i][j].counts for i in sampled]), least_total=1)
            for j, name in enumerate(("selection", "estimation")))
        found = bounds_of(selection.argmax(axis=1), estimation, alpha, method, rivals)
        for name in ("p_a", "q_a", "p_b", "q_b"):
            getattr(bounds, name)[sampled] = getattr(found, name)
    return chosen, bounds


def answer(radius: np.ndarray, chosen: np.ndarray) -> Answers:
    """Return the chosen classes with their radii, and an abstention where there is no radius."""
    return Answers(np.where(radius > 0, chosen, ABSTAIN), {"radius": radius})


def default_pilot(n_max: int) -> int:
    """Return 1,000 samples, but no more than a tenth of n_max, unless that is below 100."""
    return min(1000, max(n_max // 10, 100), n_max)
