"""Certification at fixed radii: look often, claim each radius as soon as it is proved, and stop once all are decided.

Symbols: look k of m is taken at n_k samples, t = n_k / n_max; N_A of them fell on the class; p_r is the probability
that radius r stands for. Two rules prove a radius. "union": the bounds of look k hold at its own part of alpha, so all
hold together. "exact": N_A >= b_k at some look, where the cut-offs b_k spend alpha exactly (`cutoffs`). The second
takes about a tenth fewer samples and is one-sided.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from scipy import special

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.stats.certify_plans import ProvingPlan, check_level, choose, refuse_without_noise
from smoothcert.stats.cutoffs import crossing_probability, expect_walk
from smoothcert.stats.histories import LABEL, Draw, History, RadiusOf, check_stages, flat_looks
from smoothcert.stats.ladders import Ladder, bounds_at, find_quantiles, test_at
from smoothcert.stats.radius import ProbabilityBounds
from smoothcert.stats.rivals import Rivals, spread
from smoothcert.stats.sequential import RunningBounds, Seen, check_sequential, close_looks, early_spending
from smoothcert.stats.sizing import estimate_bounds

FUTILITY = {"exact": 0.005, "union": 0.01}
"""gamma by rule: about the probability of giving up on a radius that n_max samples would have certified."""
EXACT_MOST = 1_000_000
"""The largest n_max with exact cut-offs, whose cost grows with it."""
LATTICE = 64
"""Besides those asked for, radii of so many to one unit of Phi^-1(p_A) can be reported by the rule "exact"."""
_N0 = 100
_LEAK = 1e-6
"""Part of alpha that is kept for the classes other than the leading one; see `AtRadii`."""


@dataclass(frozen=True, repr=False)
class RadiiDesign(ProvingPlan):
    """The base of all versions of the design "radii": its options, and the order of its draws."""

    kind = "certify"
    n0: int = cast(int, None)
    n_max: int = 100_000
    radii: Sequence[float] = ()
    alpha: float = 0.001
    method: str = "two-sided"
    margin: float | None = None
    radius_of: RadiusOf = field(default=refuse_without_noise, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.n0 not in (None, 0) or isinstance(self.n0, bool):
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

    def most(self) -> int:
        return self.n0 + (self.n_max if self.reachable.any() else 0)

    def next(self, histories: Sequence[History]) -> list[Draw | None]:
        draws = [self._draws[min(len(history), 1)] for history in histories]
        after = 0 if self.first is None else 1
        looked = [i for i, history in enumerate(histories) if len(history) > after]
        undecided = self.decide([histories[i] for i in looked])[1]
        for i, still_open in zip(looked, undecided, strict=True):
            draws[i] = self._draws[len(histories[i])] if still_open.any() else None
        return draws if self.reachable.any() else [
            draw if not history else None for draw, history in zip(draws, histories, strict=True)]

    @cached_property
    def _draws(self) -> tuple[Draw | None, ...]:
        """The draw after each number of looks, and None after the last one."""
        estimates = (Draw("estimate", n) for n in np.diff(self.looks, prepend=0).tolist())
        return (*([] if self.first is None else [self.first]), *estimates, None)

    @property
    def first(self) -> Draw | None:
        """The draw that settles the class, before those that bound its probability; None where there is none."""
        return Draw("select", self.n0)

    @property
    @abstractmethod
    def looks(self) -> tuple[int, ...]:
        """The samples at each look."""

    @property
    @abstractmethod
    def bounds(self) -> RunningBounds:
        """The bounds on the class probabilities that the looks prove by a union bound."""

    @cached_property
    def reachable(self) -> np.ndarray:
        """(R,) bool: the radii that n_max unanimous votes certify."""
        one = np.zeros(1, dtype=np.int64)
        unanimous = Seen(1, one, one + len(self.looks) - 1, one + self.n_max, one)
        return self.reaches(self.radius_of(self.bounds.prove(unanimous)))[0]

    def decide(self, histories: Sequence[History]) -> tuple[np.ndarray, np.ndarray]:
        """Return (claimed, open), both (M, R) bool: which radii are certified, and which may still be."""
        return self.weigh(self.collect(histories)[0])

    @abstractmethod
    def weigh(self, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        """Return (claimed, open) as `decide`, given the votes for each image's class."""

    def reaches(self, radius: np.ndarray) -> np.ndarray:
        """Return (M, R) bool: which of the design's radii do not exceed these certified ones (M,)."""
        return (radius[:, None] >= np.array(self.radii)) & (radius > 0)[:, None]

    def collect(self, histories: Sequence[History], rivals: Rivals | None = None) -> tuple[Seen, np.ndarray]:
        """Return the looks at the votes that bound the probability, and the class of each image, (M,).

        `rivals` are those that the looks are to tell of; None is the largest one.
        """
        owner, look, counts = flat_looks(histories, 0 if self.first is None else 1, self.looks)
        chosen = self.classes(histories, owner, look, counts)
        if not len(owner):
            none = owner if rivals is None else np.zeros((0, rivals.count), dtype=np.int64)
            return Seen(len(histories), owner, look, owner, none), chosen
        rows = np.arange(len(owner)), chosen[owner]
        n_a = counts[rows]
        if rivals is not None:
            return Seen(len(histories), owner, look, n_a, rivals.pick(chosen[owner], counts)), chosen
        counts[rows] = -1
        return Seen(len(histories), owner, look, n_a, counts.max(axis=1)), chosen

    def classes(
        self, histories: Sequence[History], owner: np.ndarray, look: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """Return the class that is judged for each image, (M,), given all looks as `flat_looks` returns them."""
        return choose(histories)


@dataclass(frozen=True, repr=False)
class AtRadii(RadiiDesign):
    """Decide for each of `radii` whether the class is certified there, and stop once all are decided.

    Looks at 100, 200, ... samples, from 1,000 on a tenth apart, and at n_max. By look k, .3 t^.6 of alpha may have been
    spent, and all of it by the last one. A radius is claimed as soon as it is proved (radius 0: as soon as any is), and
    given up once the votes, carried forward to n_max with a rise of c_k = Phi^-1(1 - gamma min(2.5 t, 1)) standard
    deviations, would not prove it: n_max sin^2(asin sqrt(N_A / n_k) + c_k sqrt(1/n_k - 1/n_max) / 2). Here gamma is
    .005 by the rule "exact" and .01 by "union". Giving up costs power, never soundness. Radii that unanimous votes
    would not certify at n_max are left out from the start; if that is all of them, an image is abstained from after its
    first draw.

    Method "two-sided" goes by the rule "union", and its certified radius is that of `RunningBounds`. Method "cohen"
    goes by the rule "exact" up to n_max = 1,000,000, and by "union" beyond. The certified radius of "exact" is the
    largest that is claimed of the asked radii and those of Phi^-1(p_A) = 1/64, 2/64, ... (see `ladders`). Certificates
    hold under any rule of stopping, and at any alpha that is chosen without looking at the counts. A fixed-n method on
    the last counts would not hold.

    The class is that of n0 samples, which are then thrown away; or the label; or, with n0 = 0, the class that leads,
    which takes no sample. Then any class can be claimed. Let h_r(p) be the probability that a class of probability p is
    ever claimed at radius r, and r_1 the least radius asked, at which claims begin. If p_A >= 1/2, the votes for all
    other classes together are those of one class of probability 1 - p_A <= 1/2, so the certificate fails with
    probability at most h_r(p_r) + h_{r_1}(1/2). If p_A < 1/2, three groups of classes that have probability 1/2 at most
    cover all of them, and it fails with probability at most 3 h_{r_1}(1/2). Where h_{r_1}(1/2) <= 1e-6 alpha, which is
    computed (it holds from r_1 = sigma / 4 or so on), cut-offs that spend 1 - 1e-6 of alpha are therefore sound. Where
    it does not hold, those are that spend a third of alpha, because h_{r_1}(1/2) is at most what r_1 spends.

    Attributes:
        n0: samples that choose the class. None becomes 0 where the rule is "exact" and h_{r_1}(1/2) small enough, and
            else 100.
        n_max: the most samples an image may take after the selection.
        radii: one or more, in the units of sigma; they are sorted, and each is kept once.
        method: "two-sided" or "cohen".
        labels_known: judge the label's own class, and no other: all that certified accuracy asks for. An image whose
            label cannot be certified is abstained from. n0 is then 0.
        alpha, margin, radius_of: as for `FixedN`.
    Raises:
        InputError: values outside these.
    """

    labels_known: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.labels_known, bool):
            raise InputError(f"labels_known must be True or False, got {self.labels_known!r}")
        if self.labels_known:
            if self.n0:
                raise InputError(f"n0 = {self.n0} samples would choose the class, and with labels known it is the "
                                 f"label: leave n0 out")
            object.__setattr__(self, "n0", 0)
        elif self.n0 == 0 and self.rule == "union":
            raise InputError(f"n0 = 0 follows the leading class, which is proved for the method cohen and n_max up to "
                             f"{EXACT_MOST:,} alone (here {self.method}, {self.n_max:,}): give the samples that choose "
                             f"the class, such as {_N0}")
        elif self.n0 is None and (self.rule == "union" or self.radius_of is not refuse_without_noise):
            object.__setattr__(self, "n0", 0 if self.rule == "exact" and self._is_separate else _N0)

    def identity(self) -> dict[str, Any]:
        return {"design": "radii", "version": 2, "rule": self.rule, "method": self.method, "alpha": self.alpha,
                "n0": self.n0, "n_max": self.n_max, "radii": list(self.radii), "labels_known": self.labels_known,
                "looks": "100*1.1^k", "spending": "0.3*t^0.6", "futility": FUTILITY[self.rule], "margin": self.margin}

    def classes(
        self, histories: Sequence[History], owner: np.ndarray, look: np.ndarray, counts: np.ndarray
    ) -> np.ndarray:
        """Return the chosen class of each image or its label, as for every version, where there is one.

        Else it is the class that leads at the first look which certifies the least radius, or, until there is one, at
        the last look.
        """
        if self.first is not None:
            return choose(histories)
        leader = counts.argmax(axis=1) if len(owner) else owner
        found = np.zeros(len(histories), dtype=np.int64)
        found[owner] = leader  # the last look is written last
        proved = np.flatnonzero(counts.max(axis=1) >= self._cuts[look, 0])[::-1] if len(owner) else owner
        found[owner[proved]] = leader[proved]  # and here the first one
        return found

    def prove(
        self, histories: Sequence[History], rivals: Rivals | None = None
    ) -> tuple[np.ndarray, ProbabilityBounds]:
        check_stages(histories, "estimate" if self.first is None else self.first.stage, "estimate")
        seen, chosen = self.collect(histories, rivals)
        if self.rule == "union":
            return chosen, self.bounds.prove(seen)
        found = bounds_at(self._ladder.climb(seen))
        return chosen, found if rivals is None else spread(found.p_a, found.q_a, rivals.count)

    def weigh(self, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
        if self.rule == "union":
            claimed = self.reaches(self.radius_of(self.bounds.prove(seen)))
            return claimed, self.reaches(self._project(seen, claimed)) & self.reachable & ~claimed
        hopeful = np.ones((seen.images, len(self.radii)), dtype=bool)
        hopeful[seen.looked_at] = seen.n_a[seen.ends, None] > self._give_up[seen.look[seen.ends]]
        crossed = np.zeros_like(hopeful)
        np.logical_or.at(crossed, seen.owner, seen.n_a[:, None] >= self._cuts[seen.look])
        claimed = np.logical_and.accumulate(crossed, axis=1)
        return claimed, np.logical_and.accumulate(crossed | (hopeful & self.reachable), axis=1) & ~claimed

    def expect(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for images whose label has probability p, (P,), how probably the one asked radius is claimed, and the
        mean samples, both (P,); see `expect_walk`. By the rule "exact", with labels known, and for one radius alone.
        """
        test = float(special.ndtr(self.quantiles[0]))
        return expect_walk(self.looks, self._cuts[:, 0].tolist(), self._give_up[:, 0].tolist(), test, p)

    @property
    def rule(self) -> str:
        """How a radius is proved: "exact" or "union"."""
        return "exact" if self.method == "cohen" and self.n_max <= EXACT_MOST else "union"

    @property
    def first(self) -> Draw | None:
        return Draw(LABEL, 1) if self.labels_known else Draw("select", self.n0) if self.n0 else None

    @cached_property
    def looks(self) -> tuple[int, ...]:  # type: ignore[override]
        return close_looks(self.n_max)

    @cached_property
    def bounds(self) -> RunningBounds:  # type: ignore[override]
        spent = np.array(early_spending(self.looks)) * self.alpha
        return RunningBounds(self.looks, tuple(np.diff(spent, prepend=0.0).tolist()), self.method)

    @cached_property
    def reachable(self) -> np.ndarray:
        return self._cuts[-1] <= self.n_max if self.rule == "exact" else super().reachable

    def _project(self, seen: Seen, claimed: np.ndarray) -> np.ndarray:
        """Return the radii (M,) that the votes of the last look, carried forward to n_max, would prove.

        inf without a look, and where all radii are claimed (M, R).
        """
        hoped = np.full(seen.images, np.inf)
        left = ~claimed[seen.looked_at].all(axis=1)
        ends = seen.ends[left]
        n, slope = np.array(self.looks)[seen.look[ends]], self._slopes[seen.look[ends]]
        n_a, rival = (self.n_max * np.sin(np.clip(np.arcsin(np.sqrt(votes[ends] / n)) + move, 0, np.pi / 2)) ** 2
                      for votes, move in ((seen.n_a, slope), (seen.rival, -slope)))
        rival = np.minimum(rival, self.n_max - n_a)
        at_n_max = np.full(len(n), self.n_max)
        hoped[seen.looked_at[left]] = self.radius_of(
            estimate_bounds(n_a, rival, at_n_max, self.bounds.alphas[-1], self.method))
        return hoped

    @cached_property
    def _ladder(self) -> Ladder:
        """The asked radii and the lattice; where the leading class is followed, from the least asked one on."""
        highest = special.ndtri(np.exp(np.log(self._spending[-1]) / self.n_max))
        lattice = np.arange(1, math.ceil(LATTICE * highest) + 1) / LATTICE
        steps = np.append(self.quantiles, lattice[lattice > self.quantiles[0]] if self.first is None else lattice)
        return Ladder(self.looks, self._spending, steps, self.radius_of)

    @cached_property
    def quantiles(self) -> list[float]:
        """The quantiles Phi^-1(p_r) that the asked radii stand for."""
        return find_quantiles(np.array(self.radii), self.radius_of).tolist()

    @cached_property
    def _cuts(self) -> np.ndarray:
        """(m, R) int64: the cut-offs of the asked radii."""
        return np.stack([test_at(self.looks, self._spending, z).complete() for z in self.quantiles], axis=1)

    @cached_property
    def _give_up(self) -> np.ndarray:
        """(m, R) int64: the most votes at which an asked radius is given up; below its cut-off."""
        back = np.arcsin(np.sqrt(np.minimum(self._cuts[-1] / self.n_max, 1.0))) - self._slopes[:, None]
        most = np.floor(np.array(self.looks)[:, None] * np.sin(np.maximum(back, 0.0)) ** 2).astype(np.int64)
        return np.minimum(most, self._cuts - 1)

    @cached_property
    def _slopes(self) -> np.ndarray:
        """(m,): how far asin sqrt(share of votes) may still rise from each look to n_max."""
        n = np.array(self.looks)
        c = -special.ndtri(FUTILITY[self.rule] * np.minimum(2.5 * n / self.n_max, 1.0))
        return c / 2 * np.sqrt(np.maximum(1 / n - 1 / self.n_max, 0.0))

    @cached_property
    def _spending(self) -> tuple[float, ...]:
        """The part of alpha that may have been spent by each look."""
        if self.n0 != 0 or self.labels_known:
            return self._spend(1.0)
        return self._spend(1 - _LEAK if self._is_separate else 1 / 3)

    @cached_property
    def _is_separate(self) -> bool:
        """True where a class of probability 1/2 is ever claimed with probability 1e-6 alpha at most."""
        spending = self._spend(1 - _LEAK)
        cuts = test_at(self.looks, spending, self.quantiles[0]).complete()
        return crossing_probability(self.looks, cuts.tolist(), 0.5, 0.5) <= _LEAK * self.alpha

    def _spend(self, share: float) -> tuple[float, ...]:
        return tuple(share * self.alpha * spent for spent in early_spending(self.looks))
