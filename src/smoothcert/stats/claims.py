"""More claims from the same votes: top-k radii, radii of groups of classes, radii against harmful classes.

Symbols: L <= p_A; u_1 >= u_2 >= ... bound the probabilities of the largest rivals; rho = radius / sigma. At distance
rho, c_A keeps Phi(Phi^-1(L) - rho), and any set of classes with probability s together has Phi(Phi^-1(s) + rho) at most
(Neyman-Pearson, as for the plain radius). The limits behind one claim hold together at the level of the run, whatever
the number of classes is (see `smoothcert.stats.rivals`). Each claim has to be fixed without looking at the votes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np

from smoothcert.checks import check_count, check_known
from smoothcert.errors import ConfigError, InputError
from smoothcert.stats.certify_plans import ProvingPlan, answer
from smoothcert.stats.histories import Answers, History, Look, RadiusOf
from smoothcert.stats.procedures import (
    ABSTAIN,
    CertifiedCounts,
    bounds_of,
    certify_with,
)
from smoothcert.stats.radius import ProbabilityBounds, gaussian_radius, max_radius
from smoothcert.stats.rivals import LargestRivals, Rivals, SomeRivals, spread
from smoothcert.stats.sequential import SEQUENTIAL_METHODS
from smoothcert.stats.top_k import top_k_of
from smoothcert.stats.transfer import Transfer


class Claim(ABC):
    """A claim on an image within its radius. To add one: a frozen dataclass of this base, and a row in `CLAIMS`.

    Attributes:
        kind: the name by which a store's identity knows it.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def words(self) -> str:
        """The claim in a few words, for tables."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """A clause on what holds within the radius, for notes."""

    @property
    @abstractmethod
    def promise(self) -> str:
        """The verb of a sentence on images that are right and certified: what stays so within the radius."""

    @abstractmethod
    def check(self, num_classes: int) -> None:
        """Raise InputError, which names all problems, unless the claim can be made of so many classes."""

    @abstractmethod
    def check_plan(self, plan: ProvingPlan) -> None:
        """Raise InputError unless the claim can be made of votes that were drawn and are judged by this plan."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return the claim as plain values, from which `claim_from` makes it again."""

    @abstractmethod
    def count_limits(self, method: str) -> int:
        """Return how many limits hold together at each look."""

    @abstractmethod
    def judge(self, plan: ProvingPlan, histories: Sequence[History]) -> Answers:
        """Return the answers of the looks that a plan took."""

    @abstractmethod
    def certify(self, selection: np.ndarray, estimation: np.ndarray, radius_of: RadiusOf, alpha: float,
                method: str) -> CertifiedCounts:
        """Return the answers of counts (M, K)."""

    @abstractmethod
    def is_right(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Return whether each answer (M,) is the right one for a label (M,); an abstention is not."""

    def widest(self, n: int, alpha: float, sigma: float) -> float:
        """Return a radius that no n votes exceed."""
        return float(max_radius(n, alpha, sigma))


class _AgainstRivals(Claim):
    """The base of claims that hold the chosen class against some rivals."""

    @property
    @abstractmethod
    def rivals(self) -> Rivals:
        """The classes that it is held against."""

    @abstractmethod
    def radius(self, bounds: ProbabilityBounds, radius_of: RadiusOf) -> np.ndarray:
        """Return the radii (M,) of bounds whose p_b are of the rivals, (M, k)."""

    def check_plan(self, plan: ProvingPlan) -> None:
        told = cast(Any, plan)
        if told.method not in SEQUENTIAL_METHODS:
            raise InputError(f"the limits of this claim hold together by {' or '.join(SEQUENTIAL_METHODS)}, and "
                             f"{told.method} splits alpha after seeing the counts: give one of these methods")
        if told.margin is not None:
            raise InputError(f"a margin ({told.margin:g}) says how many votes one class keeps, which this claim is not "
                             f"about: drop it (--no-margin)")

    def count_limits(self, method: str) -> int:
        return 1 if method == "cohen" else 1 + self.rivals.count

    def judge(self, plan: ProvingPlan, histories: Sequence[History]) -> Answers:
        chosen, bounds = plan.prove(histories, self.rivals)
        return answer(self.radius(bounds, plan.radius_of), chosen)

    def certify(self, selection: np.ndarray, estimation: np.ndarray, radius_of: RadiusOf, alpha: float,
                method: str) -> CertifiedCounts:
        check_known("method", method, SEQUENTIAL_METHODS)
        chosen = selection.argmax(axis=1)
        radius = self.radius(bounds_of(chosen, estimation, alpha, method, self.rivals), radius_of)
        return CertifiedCounts(np.where(radius > 0, chosen, ABSTAIN), radius)

    def is_right(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        return prediction == label


@dataclass(frozen=True)
class TopK(_AgainstRivals):
    """The chosen class stays among the k most probable ones (Jia et al. 2020).

    For c_A to leave them, k others must each reach it, hence any t of them together t times as much. The k largest
    limits bound each such set: with S_t the sum of the t smallest of them, at most 1 - L, c_A stays while for some t

        Phi(Phi^-1(L) - rho) > Phi(Phi^-1(S_t) + rho) / t,    t = 1, ..., k.

    The radius is sigma times the largest root rho over t. No larger one follows from the same bounds: probabilities
    that are as large as the limits allow, or equal where 1 - L is used up, attain it. For k = 1 it is the plain radius
    of the method. Method "two-sided" takes 1 + k limits (.9 alpha for c_A, .1 alpha / k for each rival), where the
    paper takes one for every class; "cohen" takes one, and S_t = 1 - L.

    Attributes:
        k: at least 1, and less than the number of classes.
    """

    kind = "top-k"
    k: int

    def __post_init__(self) -> None:
        check_count("k", self.k)

    @property
    def words(self) -> str:
        return f"top-{self.k}"

    @property
    def meaning(self) -> str:
        return f"within its radius the class stays among the {self.k} most probable ones, not always the first"

    @property
    def promise(self) -> str:
        return f"have their class among the {self.k} most probable answers of the smoothed classifier"

    def widest(self, n: int, alpha: float, sigma: float) -> float:
        log_p = np.log([alpha]) / n
        bounds = spread(np.exp(log_p), -np.expm1(log_p), self.k)
        return float(self.radius(bounds, partial(gaussian_radius, sigma=sigma))[0])

    @property
    def rivals(self) -> Rivals:
        return LargestRivals(self.k)

    def check(self, num_classes: int) -> None:
        if self.k >= num_classes:
            raise InputError(f"top-k says something for k below the number of classes, {num_classes}, got k = {self.k}")

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "k": self.k}

    def radius(self, bounds: ProbabilityBounds, radius_of: RadiusOf) -> np.ndarray:
        return top_k_of(bounds, radius_of)


@dataclass(frozen=True)
class Costs(_AgainstRivals):
    """The answer is none of the targets that are harmful for the chosen class.

    c_A stays ahead of every harmful target for ||d|| < sigma/2 (Phi^-1(L) - Phi^-1(u)), where u = CP_up of the target
    with the most votes, or 1 - L if that is less. The most probable target is a fixed class, so one limit bounds it
    however many there are. A class without a harmful target is never answered harmfully: its images get the radius that
    a target without a vote would leave.

    Attributes:
        targets: the harmful targets of each class that has any.
    """

    kind = "costs"
    targets: Mapping[int, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", dict(sorted(
            (int(one), tuple(sorted(set(map(int, these))))) for one, these in self.targets.items())))

    @property
    def words(self) -> str:
        return "harmful targets"

    @property
    def meaning(self) -> str:
        count = sum(bool(these) for these in self.targets.values())
        return (f"within its radius the answer is no harmful target of the class ({count} class"
                f"{'es have' if count != 1 else ' has'} some); it may be another class")

    @property
    def promise(self) -> str:
        return "are answered by no harmful target of their class by the smoothed classifier"

    @property
    def rivals(self) -> Rivals:
        return SomeRivals(cast(dict[int, tuple[int, ...]], self.targets))

    def check(self, num_classes: int) -> None:
        named = {*self.targets, *(target for these in self.targets.values() for target in these)}
        problems = [f"class {one} is unknown: there are 0 to {num_classes - 1}"
                    for one in sorted(named) if not 0 <= one < num_classes]
        problems += [f"class {one} is a harmful target of itself" for one, these in self.targets.items()
                     if one in these]
        if not any(self.targets.values()):
            problems.append("no class has a harmful target")
        if problems:
            raise ConfigError(problems, "the costs")

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "targets": {str(one): list(these) for one, these in self.targets.items()}}

    def radius(self, bounds: ProbabilityBounds, radius_of: RadiusOf) -> np.ndarray:
        return radius_of(ProbabilityBounds(bounds.p_a, bounds.q_a, bounds.p_b[:, 0], bounds.q_b[:, 0]))


@dataclass(frozen=True)
class Groups(Claim):
    """The answer by groups of classes does not change: votes for classes of one group count together.

    This is the smoothed classifier of the base classifier that answers by group, so every plan judges its votes as it
    judges those for classes, at the same level. It answers with the group that has the most votes, which need not be
    the group of the class with the most votes.

    Attributes:
        groups: the classes of each group, by the group's name; every class is in one group.
    """

    kind = "groups"
    groups: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", {str(name): tuple(sorted(map(int, these)))
                                            for name, these in self.groups.items()})

    @property
    def words(self) -> str:
        return f"{len(self.groups)} groups"

    @property
    def meaning(self) -> str:
        names = list(self.groups)
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        return f"answers are groups of classes ({shown}), right where the label's group is answered"

    @property
    def promise(self) -> str:
        return "are given the group of their class by the smoothed classifier of groups"

    def check(self, num_classes: int) -> None:
        places: dict[int, list[str]] = {one: [] for one in range(num_classes)}
        problems = []
        for name, these in self.groups.items():
            problems += [] if these else [f"group {name} is empty"]
            for one in these:
                if one in places:
                    places[one].append(name)
                else:
                    problems.append(f"group {name}: class {one} is unknown: there are 0 to {num_classes - 1}")
        problems += [f"class {one} is in {' and in '.join(dict.fromkeys(names))}{' twice' * (len(set(names)) == 1)}"
                     for one, names in places.items() if len(names) > 1]
        if left := [str(one) for one, names in places.items() if not names]:
            problems.append(f"{'class' if len(left) == 1 else 'classes'} {', '.join(left)} "
                            f"{'is' if len(left) == 1 else 'are'} in no group")
        if len(self.groups) < 2:
            problems.append("there must be at least two groups")
        if problems:
            raise ConfigError(problems, "the groups")

    def check_plan(self, plan: ProvingPlan) -> None:
        if isinstance(plan, Transfer):
            raise InputError("these certificates were transferred, and what was counted are the flips between classes, "
                             "also those within a group: certify the network itself for groups")

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "groups": {name: list(these) for name, these in self.groups.items()}}

    def count_limits(self, method: str) -> int:
        return {"cohen": 1, "two-sided": 2}.get(method, len(self.groups))

    def judge(self, plan: ProvingPlan, histories: Sequence[History]) -> Answers:
        looks = [look for history in histories for look in history]
        counts = self.merge(np.array([look.counts for look in looks])) if looks else []
        merged = iter([Look(look.stage, votes) for look, votes in zip(looks, counts, strict=True)])
        found = plan.judge([[next(merged) for _ in history] for history in histories])
        first = np.array([history[0].counts for history in histories])
        return Answers(self._name_by_class(found.prediction, first), found.values)

    def certify(self, selection: np.ndarray, estimation: np.ndarray, radius_of: RadiusOf, alpha: float,
                method: str) -> CertifiedCounts:
        found = certify_with(radius_of, self.merge(selection), self.merge(estimation), alpha, method)
        return CertifiedCounts(self._name_by_class(found.prediction, selection), found.radius)

    def merge(self, counts: np.ndarray) -> np.ndarray:
        """Return the votes of the groups, (T, G), from those of the classes, (T, K)."""
        order = [one for these in self.groups.values() for one in these]
        sizes = [len(these) for these in self.groups.values()]
        return np.add.reduceat(counts[:, order], np.cumsum([0, *sizes[:-1]]), axis=1)

    def is_right(self, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
        group = self._group_of()
        known = (prediction >= 0) & (label >= 0) & (label < len(group))
        return known & (group[np.where(known, prediction, 0)] == group[np.where(known, label, 0)])

    def _group_of(self) -> np.ndarray:
        """The number of each class's group, (K,)."""
        group = np.zeros(sum(map(len, self.groups.values())), dtype=np.int64)
        for number, these in enumerate(self.groups.values()):
            group[list(these)] = number
        return group

    def _name_by_class(self, answers: np.ndarray, votes: np.ndarray) -> np.ndarray:
        """Return for each group that is answered, (M,), the class of it with the most of these votes, (M, K)."""
        if not len(answers):
            return answers
        inside = self._group_of() == answers[:, None]
        return np.where(answers < 0, ABSTAIN, np.where(inside, votes, -1).argmax(axis=1))


CLAIMS: dict[str, type[TopK | Groups | Costs]] = {TopK.kind: TopK, Groups.kind: Groups, Costs.kind: Costs}
"""Claims by the kind that a store's identity names."""


def claim_from(told: Mapping[str, Any]) -> Claim:
    """Return the claim with this identity. Raises InputError for none."""
    try:
        cls = CLAIMS[check_known("claim", told.get("kind"), CLAIMS)]
        return cls(*(told[item.name] for item in fields(cls)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{dict(told)!r:.200} is no claim: {error}") from None


def is_right(claim: Claim | None, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return whether each answer (M,) is the right one for a label (M,); None is the claim of plain radii."""
    return prediction == label if claim is None else claim.is_right(prediction, label)
