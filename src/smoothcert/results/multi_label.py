"""Certified labels: how many inputs have all labels right and certified, and how many labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.results.base import Measured, Points, check_records
from smoothcert.results.figures import reach_words
from smoothcert.results.outputs import OutputResult, describe_run
from smoothcert.stats import AccuracyBounds, max_radius
from smoothcert.stats.intervals import certified_accuracy
from smoothcert.stats.multi_label import LabelAnswers
from smoothcert.store.multi_label import LabelVotes
from smoothcert.store.store import Store

STEPS = 8
"""The points of a table without radii, from 0 to the largest radius that is certified."""


@dataclass(frozen=True)
class LabelFigures:
    """The figures at one radius that was chosen beforehand, by Holm's procedure over the labels of an input.

    Attributes:
        exact: the share of the inputs with all labels right and certified.
        population: with probability 1 - rho, at most the share of new inputs that have all labels right and robust.
        labels: (L,) the share of the inputs with this label right and certified.
        mean: the share of all labels that are right and certified, of one count: L shares add rounding errors.
        present: the same share of all labels that are present, over all inputs; None where none is.
    """

    radius: float
    exact: float
    population: float
    labels: tuple[float, ...]
    mean: float
    present: float | None


@dataclass(frozen=True, repr=False, kw_only=True)
class CertifiedLabels(OutputResult):
    """The certified labels of the inputs of one run.

    Attributes:
        label: (N, L) bool, the labels that are present, by the data.
        answers: what is certified of them.
    """

    kind: ClassVar[str] = "multi-label"
    holds: ClassVar[str] = "the labels of a multi-label run"
    is_comparable: ClassVar[bool] = True
    norm: ClassVar[str] = "l2"
    credit: ClassVar[None] = None

    label: np.ndarray
    answers: LabelAnswers

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """Return the labels of a multi-label store, as they were certified."""
        check_records(store)
        return cls.build(store, LabelVotes.of(store), name)

    @classmethod
    def build(cls, store: Store, votes: LabelVotes, name: str | None = None, path: str | None = None) -> Self:
        """Return what the votes of a store prove; `path` is where it is kept."""
        return cls(index=votes.index, label=votes.present, answers=votes.judge(), alpha=votes.plan.alpha,
                   n=votes.plan.n, **describe_run(store, name, path))

    @classmethod
    def default_radii(cls, results: Sequence[Any]) -> list[float]:
        """Return evenly spaced radii up to the largest that is certified."""
        most = max(float(one.answers.holm.max()) for one in results)
        return [round(float(r), 3) for r in np.linspace(0, most, STEPS, endpoint=False)] if most else [0.0]

    @property
    def classes(self) -> None:
        """None: what is present is told by labels of their own."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """None: its bounds rest on the alpha of the run."""
        return ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Its notes."""
        return self.notes

    @property
    def _right(self) -> np.ndarray:
        """(N, L) bool: right and not abstained."""
        return (self.answers.chosen == self.label) & (self.answers.holm > 0)

    @property
    def ceiling(self) -> float:
        """r_max: the largest radius that its samples could have proved of any label."""
        return float(max_radius(self.n, self.alpha, self.sigma))

    def is_out_of_reach(self, radius: float) -> bool:
        """Return whether its samples could not have proved `radius`, and no right label claims it."""
        return radius > self.ceiling and not np.any(self._right & (self.answers.holm >= radius))

    def reach_note(self, radii: Sequence[float]) -> str:
        """Return what its samples could have proved, "" where they could have proved all of `radii`."""
        beyond = any(map(self.is_out_of_reach, radii))
        return reach_words(self.ceiling, self.n, self.alpha, self.sigma) if beyond else ""

    def comparison_points(self, radii: Sequence[float]) -> list[float]:
        """Return the radii at which it is compared with another run."""
        return list(radii)

    def is_right(self, radius: float) -> np.ndarray:
        """Return (N,) bool: all labels right and certified at `radius`."""
        return np.all(self._right & (self.answers.holm >= radius), axis=1)

    def bounds(self, radii: Sequence[float], rho: float, at_once: bool = False) -> AccuracyBounds:
        """Return the share of inputs with all labels right and certified, with its intervals.

        Args:
            at_once: take the radii that hold together, in place of Holm's, which hold at one radius chosen beforehand.
        """
        radius = self.answers.radius if at_once else self.answers.holm
        right = (self.answers.chosen == self.label) & (radius > 0)
        return certified_accuracy(radius.min(axis=1), right.all(axis=1), radii, self.alpha, rho)

    def at(self, radii: Sequence[float], rho: float = 0.05) -> list[LabelFigures]:
        """Return the figures at each radius."""
        right, exact, found = self._right, self.bounds(radii, rho), []
        for at, radius in enumerate(radii):
            kept = right & (self.answers.holm >= radius)
            found.append(LabelFigures(
                float(radius), float(exact.accuracy[at]), float(exact.population[at]),
                tuple(kept.mean(axis=0).tolist()), float(kept.mean()),
                float(kept[self.label].mean()) if self.label.any() else None))
        return found

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return the share of inputs with all labels right and certified."""
        return [Measured("accuracy", "all labels", tuple(radii), tuple(one.exact for one in self.at(radii)),
                         self.images)]


@dataclass(frozen=True)
class LabelRuns:
    """Multi-label runs beside each other, at the same radii."""

    kind: ClassVar[str] = "multi-label"

    results: Sequence[CertifiedLabels]
    radii: tuple[float, ...]
    rho: float

    @classmethod
    def of(cls, results: Sequence[CertifiedLabels], points: Points) -> Self:
        """Read runs at the radii of `points`."""
        return cls(results, points.radii or tuple(CertifiedLabels.default_radii(results)), points.rho)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run and radius."""
        return [{"run": run.name, "inputs": run.images, "complete": run.complete, "sigma": run.sigma,
                 "alpha": run.alpha, "n": run.n, "radius": one.radius, "all_labels": one.exact,
                 "new_inputs_at_least": one.population, "mean_label": one.mean, "present_labels": one.present,
                 **{f"label_{k}": share for k, share in enumerate(one.labels)}}
                for run in self.results for one in run.at(self.radii, self.rho)]

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object for each run."""
        return [{"store": run.path or None, "kind": self.kind, "name": run.name, "inputs": run.images,
                 "complete": run.complete, "sigma": run.sigma, "alpha": run.alpha, "n": run.n, "rho": self.rho,
                 "labels": run.label.shape[1], "notes": list(run.notes),
                 "figures": [vars(one) for one in run.at(self.radii, self.rho)]}
                for run in self.results]
