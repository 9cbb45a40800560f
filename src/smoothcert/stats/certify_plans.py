"""Certification plans: a fixed number of samples, sequential at fixed radii, sequential for the full curve."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from smoothcert.checks import check_count, check_known, check_probability
from smoothcert.errors import InputError
from smoothcert.stats.curve import INTERVAL, curve_sizes
from smoothcert.stats.histories import Answers, Draw, History, RadiusOf, check_stages, flat_looks
from smoothcert.stats.procedures import ABSTAIN, METHODS, certify_with
from smoothcert.stats.radius import check_margin
from smoothcert.stats.sequential import RunningBounds, Seen, check_sequential, doubling_looks, spending_shares

LAST_SHARE = 0.8
"""Share of alpha that certification at fixed radii keeps for its last look."""
FUTILITY = 0.01
"""Probability beta of giving up on a radius that more samples would have certified, over all looks together."""


@dataclass(frozen=True)
class FixedCertify:
    """n0 samples choose the class, n fresh ones bound its probability: `certify_with`."""

    kind = "certify"
    n0: int
    n: int
    alpha: float
    method: str
    margin: float | None
    radius_of: RadiusOf = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("n0", self.n0)
        check_count("n", self.n)
        _check_certify(self.alpha, self.method, self.margin)

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


@dataclass(frozen=True)
class RadiiCertify:
    """Is the class certified at each of `radii`? Looks at doubling counts until every answer is in.

    n0 samples choose the class and are thrown away. Looks at 100, 200, 400, ... and n_max samples: the last has .8
    alpha, the others share the rest equally. A radius is claimed once the certified radius reaches it (radius 0: once
    there is any), and given up once even limits the other way, at beta = .01 over all looks, fall short of it. Radii
    that unanimous votes would not certify at n_max are left out from the start; if that is all of them no sample
    follows the selection, and the image is abstained from.

    The certified radius comes from `RunningBounds` of the looks taken, so it holds at every radius, under any stopping
    rule, and at any alpha chosen without looking at the counts. A fixed-n method on the last counts would not.
    `radii` are sorted, and each kept once.
    """

    kind = "certify"
    n0: int
    n_max: int
    radii: tuple[float, ...]
    alpha: float
    method: str
    margin: float | None
    radius_of: RadiusOf = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("n0", self.n0)
        check_count("n_max", self.n_max)
        _check_certify(self.alpha, self.method, self.margin)
        check_sequential(self.method)
        object.__setattr__(self, "radii", _check_radii(self.radii))

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
        open_ = self.decided([histories[i] for i in looked])[1].any(axis=1)
        for i, history in enumerate(histories):
            if len(history) == 1:
                draws[i] = self._draws[0]
        for i in np.array(looked, dtype=np.int64)[open_].tolist():
            draws[i] = self._draws[len(histories[i]) - 1]
        return draws

    def decided(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray]:
        """(claimed, open), both (M, R) bool: which radii are certified, and which may still be."""
        seen, _ = self._seen(histories)
        proved, hoped = self.bounds.proved_and_hoped(seen)
        claimed = self._reached(self.radius_of(proved))
        return claimed, self._reached(self.radius_of(hoped)) & self._reachable & ~claimed

    def judge(self, histories: Sequence[History]) -> Answers:
        check_stages(histories, "select", "estimate")
        seen, chosen = self._seen(histories)
        return _answers(self.radius_of(self.bounds.proved(seen)), chosen)

    @cached_property
    def bounds(self) -> RunningBounds:
        """What the looks prove of the class probabilities."""
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
        return self._reached(self.radius_of(self.bounds.proved(unanimous)))[0]

    def _reached(self, radius: np.ndarray) -> np.ndarray:
        return (radius[:, None] >= self._targets) & (radius > 0)[:, None]

    @cached_property
    def _targets(self) -> np.ndarray:
        return np.array(self.radii)

    def _seen(self, histories: Sequence[History]) -> tuple[Seen, np.ndarray]:
        chosen = _chosen(histories)
        owner, look, counts = flat_looks(histories, 1, self.bounds.looks)
        if not len(owner):
            return Seen(len(histories), owner, look, owner, owner), chosen
        rows = np.arange(len(owner)), chosen[owner]
        n_a = counts[rows]
        counts[rows] = -1
        return Seen(len(histories), owner, look, n_a, counts.max(axis=1)), chosen


@dataclass(frozen=True)
class CurveCertify:
    """A pilot of n0 samples chooses the class and the number n of fresh samples; `method` judges these at alpha.

    n is the least that brings the radius within a share `loss` of the one at n_max, whatever the pilot leaves possible
    (`curve_sizes`). Class and n are fixed given the pilot, none of whose samples is used again, so the guarantee is
    the method's own. An image that the pilot finds hopeless is abstained from without further samples.
    """

    kind = "certify"
    n0: int
    loss: float
    n_max: int
    alpha: float
    method: str
    margin: float | None
    radius_of: RadiusOf = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        check_count("n0", self.n0)
        check_count("n_max", self.n_max)
        check_probability("loss", self.loss)
        _check_certify(self.alpha, self.method, self.margin)

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


def _judge_once(histories: Sequence[History], alpha: float, method: str, radius_of: RadiusOf) -> Answers:
    """The fixed-n procedure on the second look of each history; abstention where there is none."""
    chosen, radius = _chosen(histories), np.zeros(len(histories))
    sampled = [i for i, history in enumerate(histories) if len(history) == 2]
    if sampled:
        selection, estimation = (np.array([histories[i][j].counts for i in sampled]) for j in (0, 1))
        radius[sampled] = certify_with(radius_of, selection, estimation, alpha, method).radius
    return _answers(radius, chosen)


def _answers(radius: np.ndarray, chosen: np.ndarray) -> Answers:
    return Answers(np.where(radius > 0, chosen, ABSTAIN), {"radius": radius})


def _chosen(histories: Sequence[History]) -> np.ndarray:
    """The most frequent class of each first look (the lowest among equals), (M,)."""
    if not histories:
        return np.zeros(0, dtype=np.int64)
    return np.array([history[0].counts for history in histories]).argmax(axis=1)


def _check_certify(alpha: float, method: str, margin: float | None) -> None:
    check_probability("alpha", alpha)
    check_known("method", method, METHODS)
    if margin is not None:
        check_margin(margin)


def _check_radii(radii: Sequence[float]) -> tuple[float, ...]:
    try:
        values = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values) & (values >= 0)):
        raise InputError(f"radii must be one or more finite numbers of at least 0, got {radii!r}")
    return tuple(np.unique(values).tolist())
