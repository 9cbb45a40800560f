"""Certification plans: a fixed number of samples, sequential at fixed radii, sequential for the full curve."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np

from smoothcert.checks import check_count, check_known, check_positive, check_probability
from smoothcert.display import Displayed
from smoothcert.errors import InputError
from smoothcert.stats.histories import Answers, Draw, History, RadiusOf, check_stages, flat_looks
from smoothcert.stats.procedures import ABSTAIN, METHODS, certify_with
from smoothcert.stats.radius import ProbabilityBounds, check_margin
from smoothcert.stats.sequential import RunningBounds, Seen, check_sequential, doubling_looks, spending_shares
from smoothcert.stats.sizing import INTERVAL, LEAST, LOWEST, aim_of, size_curves

LAST_SHARE = 0.8
"""Share of alpha that certification at fixed radii keeps for its last look."""
FUTILITY = 0.01
"""Probability beta of giving up on a radius that more samples would have certified, over all looks together."""


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
        _check_level(self.alpha, self.method, self.margin)

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
        _check_level(self.alpha, self.method, self.margin)
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
        check_stages(histories, "select", "estimate")
        seen, chosen = self._collect(histories)
        return _answer(self.radius_of(self.bounds.prove(seen)), chosen)

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
        _check_level(self.alpha, self.method, self.margin)

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

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "pilot", "estimate", most=1)
        return _judge_once(histories, self.alpha, self.method, self.radius_of)


CertifyPlan = FixedN | AtRadii | Curve
"""The designs that `SmoothedClassifier.certify` takes."""


def with_noise(plan: CertifyPlan, radius: RadiusOf) -> CertifyPlan:
    """Return a plan that turns bounds into radii by a noise's `radius(bounds, margin)`."""
    return replace(plan, radius_of=partial(radius, margin=plan.margin))


def _check_level(alpha: float, method: str, margin: float | None) -> None:
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
    return _answer(radius, chosen)


def _answer(radius: np.ndarray, chosen: np.ndarray) -> Answers:
    return Answers(np.where(radius > 0, chosen, ABSTAIN), {"radius": radius})


def default_pilot(n_max: int) -> int:
    """Return 1,000 samples, but no more than a tenth of n_max, unless that is below 100."""
    return min(1000, max(n_max // 10, 100), n_max)
