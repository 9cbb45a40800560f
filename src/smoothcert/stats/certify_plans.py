"""Certification plans: a fixed number of samples, sequential at fixed radii, sequential for the full curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from scipy import special

from smoothcert.checks import check_count, check_known, check_probability
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.histories import Answers, Draw, History, RadiusOf, check_stages, flat_looks
from smoothcert.stats.procedures import ABSTAIN, METHODS, bounds_of, certify_with
from smoothcert.stats.radius import ProbabilityBounds, check_margin
from smoothcert.stats.sequential import RunningBounds, Seen, check_sequential, doubling_looks, spending_shares

LAST_SHARE = 0.8
"""Share of alpha that certification at fixed radii keeps for its last look."""
FUTILITY = 0.01
"""Probability beta of giving up on a radius that more samples would have certified, over all looks together."""
INTERVAL = 0.99
"""Confidence of a pilot's two-sided interval of each probability."""


def refuse_without_noise(bounds: ProbabilityBounds) -> np.ndarray:
    """Raise InputError: a radius depends on the noise, and this stands in for it until a plan is given one."""
    raise InputError("this plan knows no noise yet: give it to SmoothedClassifier.certify, or make it with "
                     "radius_of=partial(noise.radius, margin=margin)")


@dataclass(frozen=True, repr=False)
class FixedN(Displayed):
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

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "select", "estimate", most=1)
        return _judge_once(histories, self.alpha, self.method, self.radius_of)

    def prove(self, histories: Sequence[History]) -> tuple[np.ndarray, ProbabilityBounds]:
        """Return the chosen classes and the bounds that the counts prove, (M,); p_a = 0 where there are none."""
        check_stages(histories, "select", "estimate", most=1)
        return _prove_once(histories, self.alpha, self.method)


@dataclass(frozen=True, repr=False)
class AtRadii(Displayed):
    """Decide for each of `radii` whether the class is certified there, with looks at doubling counts.

    n0 samples choose the class and are thrown away. Looks at 100, 200, 400, ... and n_max samples: the last has .8
    alpha, the others share the rest equally. A radius is claimed once the certified radius reaches it (radius 0: once
    there is any), and given up once even limits the other way, at beta = .01 over all looks, fall short of it. Radii
    that unanimous votes would not certify at n_max are left out from the start; if that is all of them no sample
    follows the selection, and the image is abstained from.

    The certified radius comes from `RunningBounds` of the looks taken, so it holds at every radius, under any stopping
    rule, and at any alpha chosen without looking at the counts. A fixed-n method on the last counts would not.

    Attributes:
        n0, alpha, margin, radius_of: as for `FixedN`.
        n_max: the most samples an image may take after the selection.
        radii: one or more, in the units of sigma; they are sorted, and each is kept once.
        method: "two-sided" or "cohen".
    Raises:
        InputError: values outside these.
    """

    kind = "certify"
    n0: int = 100
    n_max: int = 100_000
    radii: Sequence[float] = ()
    alpha: float = 0.001
    method: str = "two-sided"
    margin: float | None = None
    radius_of: RadiusOf = field(default=refuse_without_noise, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("n0", self.n0)
        check_count("n_max", self.n_max)
        check_level(self.alpha, self.method, self.margin)
        check_sequential(self.method)
        try:
            values = np.atleast_1d(np.asarray(self.radii, dtype=np.float64))
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values >= 0)):
            raise InputError(f"radii must be one or more finite numbers of at least 0, got {self.radii!r}")
        object.__setattr__(self, "radii", tuple(np.unique(values).tolist()))

    def identity(self) -> dict[str, Any]:
        return {"design": "radii", "method": self.method, "alpha": self.alpha, "n0": self.n0, "n_max": self.n_max,
                "radii": list(self.radii), "looks": "100*2^k", "spending": f"{1 - LAST_SHARE:.1g}/{LAST_SHARE:g}",
                "futility": FUTILITY, "margin": self.margin}

    def most(self) -> int:
        return self.n0 + (self.n_max if self._reachable.any() else 0)

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws: list[Draw | None] = [None if history else Draw("select", self.n0) for history in histories]
        if not self._reachable.any():
            return draws
        looked = [i for i, history in enumerate(histories) if len(history) > 1]
        open_ = self.decide([histories[i] for i in looked])[1].any(axis=1)
        for i, history in enumerate(histories):
            if len(history) == 1:
                draws[i] = self._draws[0]
        for i in np.array(looked, dtype=np.int64)[open_].tolist():
            draws[i] = self._draws[len(histories[i]) - 1]
        return draws

    def decide(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray]:
        """Return (claimed, open), both (M, R) bool: which radii are certified, and which may still be."""
        seen, _ = self._collect(histories)
        proved, hoped = self.bounds.prove_and_hope(seen)
        claimed = self._reaches(self.radius_of(proved))
        return claimed, self._reaches(self.radius_of(hoped)) & self._reachable & ~claimed

    def judge(self, histories: Sequence[History]) -> Answers:
        chosen, bounds = self.prove(histories)
        return answer(self.radius_of(bounds), chosen)

    def prove(self, histories: Sequence[History]) -> tuple[np.ndarray, ProbabilityBounds]:
        """Return the chosen classes and the bounds that the looks prove, (M,); p_a = 0 where there are none."""
        check_stages(histories, "select", "estimate")
        seen, chosen = self._collect(histories)
        return chosen, self.bounds.prove(seen)

    @cached_property
    def bounds(self) -> RunningBounds:
        """The bounds on the class probabilities that the looks prove."""
        looks = doubling_looks(self.n_max)
        alphas = tuple(share * self.alpha for share in spending_shares(len(looks), LAST_SHARE))
        return RunningBounds(looks, alphas, (FUTILITY / len(looks),) * len(looks), self.method)

    @cached_property
    def _draws(self) -> tuple[Draw | None, ...]:
        looks = self.bounds.looks
        return (*(Draw("estimate", n - before) for before, n in zip((0, *looks), looks, strict=False)), None)

    @cached_property
    def _reachable(self) -> np.ndarray:
        one = np.zeros(1, dtype=np.int64)
        unanimous = Seen(1, one, one + len(self.bounds.looks) - 1, one + self.n_max, one)
        return self._reaches(self.radius_of(self.bounds.prove(unanimous)))[0]

    def _reaches(self, radius: np.ndarray) -> np.ndarray:
        return (radius[:, None] >= np.array(self.radii)) & (radius > 0)[:, None]

    def _collect(self, histories: Sequence[History]) -> tuple[Seen, np.ndarray]:
        """Return the looks of all images, and the class chosen for each image."""
        chosen = _choose(histories)
        owner, look, counts = flat_looks(histories, 1, self.bounds.looks)
        if not len(owner):
            return Seen(len(histories), owner, look, owner, owner), chosen
        rows = np.arange(len(owner)), chosen[owner]
        n_a = counts[rows]
        counts[rows] = -1
        return Seen(len(histories), owner, look, n_a, counts.max(axis=1)), chosen


@dataclass(frozen=True, repr=False)
class Curve(Displayed):
    """Size n for each image so that its whole curve of radii is nearly the one at n_max.

    A pilot of n0 samples chooses the class and the number n of fresh samples; `method` judges these at alpha. n is the
    least that brings the radius within a share `loss` of the one at n_max, whatever the pilot leaves possible
    (`curve_sizes`). Class and n are fixed given the pilot, none of whose samples is used again, so the guarantee is
    the method's own. An image that the pilot finds hopeless is abstained from without further samples.

    Attributes:
        n0: samples of the pilot; None becomes `default_pilot(n_max)`, 1,000 where n_max is 10,000 or more.
        loss: share of the radius at n_max that may be lost.
        n_max: the most samples an image may take after the pilot.
        alpha, method, margin, radius_of: as for `FixedN`.
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

    def __post_init__(self) -> None:
        check_count("n_max", self.n_max)
        if self.n0 is None:
            object.__setattr__(self, "n0", default_pilot(self.n_max))
        check_count("n0", self.n0)
        check_probability("loss", self.loss)
        check_level(self.alpha, self.method, self.margin)

    def identity(self) -> dict[str, Any]:
        return {"design": "curve", "method": self.method, "alpha": self.alpha, "n0": self.n0, "n_max": self.n_max,
                "loss": self.loss, "interval": INTERVAL, "margin": self.margin}

    def most(self) -> int:
        return self.n0 + self.n_max

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws: list[Draw | None] = [None if history else Draw("pilot", self.n0) for history in histories]
        piloted = [i for i, history in enumerate(histories) if len(history) == 1]
        if piloted:
            counts = np.array([histories[i][0].counts for i in piloted])
            rival, n_a = np.partition(counts, -2, axis=1)[:, -2:].T
            sizes = curve_sizes(n_a, rival, self.n0, self.n_max, self.loss, self.alpha, self.method, self.radius_of)
            for i, n in zip(piloted, sizes.tolist(), strict=True):
                draws[i] = Draw("estimate", n) if n else None
        return draws

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "pilot", "estimate", most=1)
        return _judge_once(histories, self.alpha, self.method, self.radius_of)

    def prove(self, histories: Sequence[History]) -> tuple[np.ndarray, ProbabilityBounds]:
        """Return the chosen classes and the bounds that the counts prove, (M,); p_a = 0 where there are none."""
        check_stages(histories, "pilot", "estimate", most=1)
        return _prove_once(histories, self.alpha, self.method)


CertifyPlan = FixedN | AtRadii | Curve
"""The designs that `SmoothedClassifier.certify` takes."""


def with_noise(plan: CertifyPlan, radius: RadiusOf) -> CertifyPlan:
    """Return a plan that turns bounds into radii by a noise's `radius(bounds, margin)`."""
    return replace(plan, radius_of=partial(radius, margin=plan.margin))


def check_level(alpha: float, method: str, margin: float | None) -> None:
    """Raise InputError for values that no procedure takes."""
    check_probability("alpha", alpha)
    check_known("method", method, METHODS)
    if margin is not None:
        check_margin(margin)


def _choose(histories: Sequence[History]) -> np.ndarray:
    """Return the most frequent class of each first look (the lowest among equals), (M,)."""
    if not histories:
        return np.zeros(0, dtype=np.int64)
    return np.array([history[0].counts for history in histories]).argmax(axis=1)


def _judge_once(histories: Sequence[History], alpha: float, method: str, radius_of: RadiusOf) -> Answers:
    """Judge the second look of each history by the fixed-n procedure; an image without one is abstained from."""
    chosen, radius = _choose(histories), np.zeros(len(histories))
    sampled = [i for i, history in enumerate(histories) if len(history) == 2]
    if sampled:
        selection, estimation = (np.array([histories[i][j].counts for i in sampled]) for j in (0, 1))
        radius[sampled] = certify_with(radius_of, selection, estimation, alpha, method).radius
    return answer(radius, chosen)


def _prove_once(
    histories: Sequence[History], alpha: float, method: str
) -> tuple[np.ndarray, ProbabilityBounds]:
    """Return the bounds of the fixed-n procedure from the second look of each history, for the class of the first."""
    chosen, m = _choose(histories), len(histories)
    bounds = ProbabilityBounds(np.zeros(m), np.ones(m), np.ones(m), np.zeros(m))
    sampled = [i for i, history in enumerate(histories) if len(history) == 2]
    if sampled:
        selection, estimation = (np.array([histories[i][j].counts for i in sampled]) for j in (0, 1))
        found = bounds_of(selection.argmax(axis=1), estimation, alpha, method)
        for name in ("p_a", "q_a", "p_b", "q_b"):
            getattr(bounds, name)[sampled] = getattr(found, name)
    return chosen, bounds


def answer(radius: np.ndarray, chosen: np.ndarray) -> Answers:
    """Return the chosen classes with their radii, and an abstention where there is no radius."""
    return Answers(np.where(radius > 0, chosen, ABSTAIN), {"radius": radius})


def default_pilot(n_max: int) -> int:
    """Return 1,000 samples, but no more than a tenth of n_max, unless that is below 100."""
    return min(1000, max(n_max // 10, 100), n_max)


def curve_sizes(
    n_a: np.ndarray, rival: np.ndarray, pilot: int, n_max: int, loss: float, alpha: float, method: str,
    radius_of: Callable[[ProbabilityBounds], np.ndarray],
) -> np.ndarray:
    """Return the number of fresh samples for each image, int64 (M,), from its pilot counts; 0 where it may abstain.

    n = max over the pilot's intervals of min {n : R_n(p) >= (1 - loss) R_n_max(p)}, R_n(p) the radius at the counts
    expected of p: floor(n p_A) and ceil(n p_B). 0 where even the best ends of the intervals have no radius; n_max
    where the worst ends have none at n_max (somewhere between, the radius is then as close to 0 as one likes, and a
    share of it takes every sample).

    For "cohen", p is p_A alone: the need is U-shaped in it (near 1/2 the radius vanishes, near 1 it lives on n), so
    largest at an end. For the others p is (p_A, p_B) with p_A + p_B <= 1: the need is largest at (low, high), the
    smallest radius, (high, low), the largest, or (low, low), where p_A costs nothing yet and p_B's limit lives on n.
    Inside, at the steps of the counts and where the two arms of p_b meet, up to 7 % more was found.
    "t-certify" is sized as "two-sided", whose radius is close to its own, but has none unless p_a > 1/2.

    Limits are to the precision of SciPy's: they choose n and prove nothing.
    """
    pairs, where = np.unique(n_a * (pilot + 1) + (0 if method == "cohen" else rival), return_inverse=True)
    n_a, rival = np.divmod(pairs, pilot + 1)
    low_a, high_a = _interval(n_a, pilot)
    low_b, high_b = _interval(rival, pilot)

    def radius(n: np.ndarray, p_a: np.ndarray, p_b: np.ndarray) -> np.ndarray:
        k_a = np.floor(n * p_a * (1 + 1e-15))  # (k / n) n may fall an ulp short of k
        return radius_of(_estimate_bounds(k_a, np.minimum(np.ceil(n * p_b * (1 - 1e-15)), n - k_a), n, alpha, method))

    if method == "cohen":
        hoped = radius_of(ProbabilityBounds(high_a, 1 - high_a, 1 - high_a, high_a))
        ends = [(low_a, 1 - low_a), (high_a, 1 - high_a)]
    else:
        hoped = radius_of(ProbabilityBounds(high_a, 1 - high_a, low_b, 1 - low_b))
        hoped = np.where((method == "t-certify") & (high_a <= 0.5), 0.0, hoped)
        ends = [(low_a, np.minimum(high_b, 1 - low_a)), (low_a, low_b), (np.minimum(high_a, 1 - low_b), low_b)]
    p_a, p_b = (np.concatenate(p) for p in zip(*ends, strict=True))
    needs, at_most = _least_n(lambda n: radius(n, p_a, p_b), np.full(len(p_a), n_max), loss)
    needs, at_most = needs.reshape(len(ends), -1), at_most.reshape(len(ends), -1)
    sizes = np.where(at_most[0] > 0, needs.max(axis=0), n_max)
    return np.where(hoped > 0, sizes, 0)[where]


def _least_n(
    radius: Callable[[np.ndarray], np.ndarray], n_max: np.ndarray, loss: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return min {n : R_n >= (1 - loss) R_n_max} to 1/512 of itself, and R_n_max, by geometric bisection."""
    at_most = radius(n_max)
    enough, high = (1 - loss) * at_most, n_max
    low = np.zeros_like(high)
    while True:
        open_ = high - low > np.maximum(high >> 9, 1)
        if not open_.any():
            return high, at_most
        middle = np.clip(np.sqrt(np.maximum(low, 1) * high.astype(float)).astype(np.int64), low + 1, high - 1)
        middle = np.where(open_, middle, high)
        reached = radius(middle) >= enough
        high, low = np.where(open_ & reached, middle, high), np.where(open_ & ~reached, middle, low)


def _estimate_bounds(
    k_a: np.ndarray, k_b: np.ndarray, n: np.ndarray, alpha: float, method: str
) -> ProbabilityBounds:
    if method == "cohen":
        p, q = _estimate_lower(k_a, n, alpha)
        return ProbabilityBounds(p, q, q, p)
    p, q = _estimate_lower(k_a, n, 0.9 * alpha)
    q_b, p_b = _estimate_lower(n - k_b, n, 0.1 * alpha)
    rest = (q < p_b) | ((method == "t-certify") & (p <= 0.5))
    return ProbabilityBounds(p, q, np.where(rest, q, p_b), np.where(rest, p, q_b))


def _interval(k: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    tail, trials = (1 - INTERVAL) / 2, np.full(len(k), n)
    return _estimate_lower(k, trials, tail)[0], _estimate_lower(n - k, trials, tail)[1]


def _estimate_lower(k: np.ndarray, n: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    q = np.where(k > 0, special.betainccinv(n - k + 1, np.maximum(k, 1), alpha), 1.0)
    return 1 - q, q
