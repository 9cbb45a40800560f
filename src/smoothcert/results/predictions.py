"""Answers of PREDICT: of a predict store, a log without radii, or a count file. An abstention counts as wrong."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.checks import one_line
from smoothcert.results.base import (
    ASSUMED_ALPHA,
    Measured,
    Points,
    StoreResult,
    alpha_caution,
    check_records,
    look_answers,
    run_notes,
    setting_of,
    unseen_classes,
    why_not_side_by_side,
)
from smoothcert.results.networks import describe_network
from smoothcert.stats import AccuracyBounds, certified_accuracy
from smoothcert.store.names import name_of
from smoothcert.store.store import Store


@dataclass(frozen=True, repr=False)
class Predicted(StoreResult):
    """Answers of PREDICT for the images of one run.

    Attributes:
        name: how tables call it.
        index, correct, abstained, label: (M,) per image; an abstention counts as wrong.
        sigma, alpha, n: what they were predicted with; n is the most samples an image could take. A log may not state
            them: then sigma is NaN and the others are None.
        setting: the store's identity without what tells its images apart.
        complete: whether the run has finished.
        notes: what a log or a store says that a reader of its figures has to know besides; `remarks` has all of it.
        classes: the names of the classes, where known.
        earlier: the answers of the same sample at smaller n, where the run looked at it several times; each look is
            judged at alpha by itself.
        path: the store that holds them.
        network: which network they are of, in words; "" where it is not told.
    """

    kind: ClassVar[str] = "predict"
    holds: ClassVar[str] = "the answers of PREDICT"
    is_comparable: ClassVar[bool] = True
    norm: ClassVar[str] = "l2"
    credit: ClassVar[None] = None

    name: str
    index: np.ndarray
    correct: np.ndarray
    abstained: np.ndarray
    label: np.ndarray
    sigma: float
    alpha: float | None
    n: int | None
    setting: dict[str, Any] = field(default_factory=dict)
    complete: bool = True
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    earlier: tuple["Predicted", ...] = ()
    path: str = ""
    network: str = ""

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """Return the answers of a `predict` store, or raise StoreError where it has none."""
        check_records(store)
        procedure = store.identity.procedure
        n = procedure.n or procedure.n_max
        label, answers = store.column("label"), store.column("prediction")[:, None]
        looks = n if isinstance(n, list) else [n]
        if len(looks) > 1:
            looks, answers = look_answers(store, procedure.raw["alpha"])
        at_looks = [cls(one_line(name or name_of(store.folder)), store.column("index"), given == label, given < 0,
                        label, store.identity.noise.sigma, procedure.alpha, look, setting_of(store.identity),
                        store.complete, tuple(map(one_line, store.provenance.notes)), store.class_names,
                        path=str(store.folder), network=describe_network(store))
                    for look, given in zip(looks, answers.T, strict=True)]
        return replace(at_looks[-1], earlier=tuple(at_looks[:-1]))

    @property
    def looks(self) -> tuple["Predicted", ...]:
        """The answers at every n, the smallest first."""
        return *self.earlier, self

    @property
    def remarks(self) -> tuple[str, ...]:
        """Its notes, and which classes its images do not show."""
        return (*self.notes, *unseen_classes(self.label, self.classes))

    @property
    def cautions(self) -> tuple[str, ...]:
        """Warnings of what its bounds rest on; "" where there is nothing to warn of."""
        return (alpha_caution(self.alpha),)

    @property
    def images(self) -> int:
        return len(self.index)

    def bounds(self, rho: float) -> AccuracyBounds:
        """Return its accuracy with lower bounds; each answer is not that of g with probability at most alpha."""
        level = ASSUMED_ALPHA if self.alpha is None else self.alpha
        return certified_accuracy(np.zeros(self.images), self.correct, [0.0], level, rho)

    def shares(self, rho: float) -> dict[str, float]:
        """Return accuracy and abstentions with the bounds at `rho`, as fractions."""
        at = self.bounds(rho)
        return {"accuracy": float(at.accuracy[0]), "abstained": float(self.abstained.mean()),
                "test_set": float(at.test_set[0]), "population": float(at.population[0])}

    def comparison_points(self, radii: Sequence[float]) -> list[None]:
        """Return the one point at which it is compared with another run; it has no radius."""
        return [None]

    def is_right(self, radius: None) -> np.ndarray:
        """Return (M,) bool: right."""
        return self.correct

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return its accuracy and abstentions at every n; a paper prints those at the largest."""
        return [Measured("accuracy", f"n {look.n:,}" if self.earlier else "", (0.0,), (float(look.correct.mean()),),
                         look.images, abstained=float(look.abstained.mean()), is_comparable=look.n == self.n)
                for look in self.looks]


@dataclass(frozen=True)
class PredictedRuns:
    """Runs of PREDICT beside each other.

    Attributes:
        rho: failure probability of each lower bound.
        warning: why their figures are not comparable; "" where they are.
        notes: what a reader has to know.
    """

    kind: ClassVar[str] = "predict"

    results: Sequence[Predicted]
    rho: float
    warning: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, results: Sequence[Predicted], points: Points) -> Self:
        """Set runs of PREDICT beside each other; of `points`, only rho plays a part."""
        why_not, lacking = why_not_side_by_side(results)
        return cls(results, points.rho, f"not comparable: {why_not}" if why_not else "",
                   (*run_notes(results), *lacking))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run and n."""
        return [{"name": look.name, "images": look.images, "complete": look.complete,
                 "sigma": None if math.isnan(look.sigma) else look.sigma, "alpha": look.alpha, "n": look.n,
                 "rho": self.rho, **look.shares(self.rho)} for one in self.results for look in one.looks]

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object for each run; `earlier` are the figures at smaller n."""
        return [{"store": one.path or None, "kind": self.kind, "name": one.name, "images": one.images,
                 "complete": one.complete, "sigma": None if math.isnan(one.sigma) else one.sigma, "alpha": one.alpha,
                 "n": one.n, "rho": self.rho, **one.shares(self.rho),
                 "earlier": [{"n": look.n, **look.shares(self.rho)} for look in one.earlier],
                 "notes": list(one.remarks)} for one in self.results]
