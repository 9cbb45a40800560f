"""Certified intervals of a regression: their widths at each radius, and how many targets lie inside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.results.base import Measured, Points, check_records
from smoothcert.results.outputs import OutputResult, describe_run
from smoothcert.store.intervals import Sketches
from smoothcert.store.store import Store

QUANTILES = (0.1, 0.9)
"""The quantiles of widths that tables and pictures show beside mean and median."""


@dataclass(frozen=True)
class Widths:
    """The intervals of one output at one radius, over all inputs.

    Attributes:
        mean, median, low, high: of their widths; the last two are the `QUANTILES`. Infinite ends make infinite widths.
        inside: the share of the targets that lie in their interval; None where the data have none.
        exact: whether the sketches hold the ranks that the interval is read from; else it is read a little wider.
    """

    radius: float
    output: int
    mean: float
    median: float
    low: float
    high: float
    inside: float | None
    exact: bool

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values, with null for infinite widths, which JSON does not have."""
        return {name: None if value == math.inf else value for name, value in vars(self).items()}


@dataclass(frozen=True, repr=False, kw_only=True)
class CertifiedIntervals(OutputResult):
    """The intervals of a regression over the inputs of one run.

    Attributes:
        sketches: what intervals are read from, at the run's own radii.
        percentile, outputs: what they were certified with.
    """

    kind: ClassVar[str] = "regression"
    holds: ClassVar[str] = "the intervals of a regression"

    sketches: Sketches
    percentile: float
    outputs: int

    @classmethod
    def of(cls, store: Store, name: str | None = None) -> Self:
        """Return the intervals of a regression store, as they were certified."""
        check_records(store)
        return cls.build(store, Sketches.of(store), name)

    @classmethod
    def build(cls, store: Store, sketches: Sketches, name: str | None = None, path: str | None = None) -> Self:
        """Return intervals as sketches of a store are to be read; `path` is where they are kept."""
        plan = sketches.plan
        return cls(index=sketches.index, sketches=sketches, alpha=plan.alpha, n=plan.n, percentile=plan.percentile,
                   outputs=plan.outputs, **describe_run(store, name, path))

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii that it was certified at."""
        return self.sketches.plan.radii

    def at(self, radii: Sequence[float] = ()) -> list[Widths]:
        """Return the widths at some radii, or at those of the run, output by output.

        Raises InputError for a radius that its n cannot give.
        """
        sketches = self.sketches.at(radii) if radii else self.sketches
        _, lower, upper = sketches.read()
        with np.errstate(invalid="ignore"):  # both ends infinite
            width = np.where(lower == upper, 0.0, upper.astype(np.float64) - lower)
        target = sketches.target
        exact = sketches.plan.is_exact(sketches.ranks)
        found = []
        for k in range(self.outputs):
            for at, radius in enumerate(sketches.plan.radii):
                one = width[:, k, at]
                low, high = np.quantile(one, QUANTILES, method="inverted_cdf").tolist()
                inside = None if target is None else float(np.mean(
                    (lower[:, k, at] <= target[:, k]) & (target[:, k] <= upper[:, k, at])))
                found.append(Widths(radius, k, float(one.mean()), float(np.median(one)), low, high, inside,
                                    bool(exact[at])))
        return found

    def measurements(self, radii: Sequence[float]) -> list[Measured]:
        """Return the mean widths of each output."""
        found = self.at(radii)
        return [Measured("width", f"output {k}" if self.outputs > 1 else "", tuple(one.radius for one in of_output),
                         tuple(one.mean for one in of_output), self.images)
                for k in range(self.outputs) if (of_output := [one for one in found if one.output == k])]


@dataclass(frozen=True)
class IntervalRuns:
    """Regressions beside each other; each is read at the radii asked for, or at its own."""

    kind: ClassVar[str] = "regression"

    results: Sequence[CertifiedIntervals]
    radii: tuple[float, ...]

    @classmethod
    def of(cls, results: Sequence[CertifiedIntervals], points: Points) -> Self:
        """Read regressions at the radii of `points`."""
        return cls(results, points.radii)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run, output and radius."""
        return [{"run": run.name, "inputs": run.images, "complete": run.complete, "sigma": run.sigma,
                 "percentile": run.percentile, "alpha": run.alpha, "n": run.n, **vars(one)}
                for run in self.results for one in run.at(self.radii)]

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object for each run."""
        return [{"store": run.path or None, "kind": self.kind, "name": run.name, "inputs": run.images,
                 "complete": run.complete, "sigma": run.sigma, "percentile": run.percentile, "alpha": run.alpha,
                 "n": run.n, "outputs": run.outputs, "notes": list(run.notes),
                 "figures": [one.to_json() for one in run.at(self.radii)]} for run in self.results]
