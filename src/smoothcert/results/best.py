"""Certified runs side by side, and the best of them at each radius: stars, envelopes, best sigma, best method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from smoothcert.results.base import Noted, Points, check_same_data, run_notes, why_not_side_by_side
from smoothcert.results.certified import Result, accuracies, default_radii
from smoothcert.results.figures import sigma_words
from smoothcert.results.paired import Difference, find_differences
from smoothcert.stats import AccuracyBounds, OnePass
from smoothcert.stats.intervals import accuracy_of_counts
from smoothcert.store.names import few, group_by_words

ONE_PASS = ("mean", "test_set", "population")
FIELDS = ("accuracy", "test_set", "bernstein", "population", "all_radii")


@dataclass(frozen=True)
class BestRuns:
    """At each radius (P,) the best of the runs of one method, or of all.

    Attributes:
        name, group: how tables call it, and the method.
        runs: names of its runs.
        radii: (P,).
        values: the largest certified accuracy, and of each bound the largest, every run's taken at rho / number of
            runs in the table: all of them hold together with probability 1 - rho, so any may be chosen by looking.
        sigma, run: those of the best run at each radius; "" where nothing is certified.
    """

    name: str
    group: str
    runs: tuple[str, ...]
    radii: np.ndarray
    values: dict[str, np.ndarray]
    sigma: tuple[str, ...]
    run: tuple[str, ...]


@dataclass(frozen=True)
class CertifiedRuns:
    """Certified runs, read at the same radii and held against each other.

    Attributes:
        at: certified accuracy of each run, with its bounds.
        stars: of each run (P,) bool, whether no run of its method has more certified accuracy at that radius.
        envelopes: one for each method, or one over all runs where no method is told; none where runs are not
            comparable.
        notes: what a reader has to know: rounded radii, an alpha that is not told, missing images, radii out of reach.
        warning: why the runs are not comparable, which a reader has to know first; "" where they are.
        has_envelopes: whether they were asked for as rows of their own.
        intervals: the lower bounds that a table for people shows, "one" or "all"; rows and JSON always have all.
        paired: of each run but the first, if asked for: what the first one has more at each radius, on shared images.
        one_pass: of each run, if asked for: its accuracy with one noisy copy.
    """

    kind: ClassVar[str] = "certify"

    results: Sequence[Result]
    radii: Sequence[float]
    rho: float
    at: Sequence[AccuracyBounds]
    stars: tuple[np.ndarray, ...]
    envelopes: tuple[BestRuns, ...]
    notes: tuple[str, ...]
    warning: str = ""
    has_envelopes: bool = False
    intervals: str = "one"
    paired: tuple[tuple[Difference, ...], ...] = ()
    one_pass: tuple[OnePass, ...] = ()

    @classmethod
    def of(cls, results: Sequence[Result], points: Points) -> Self:
        """Read `results` at the radii asked for, or at `default_radii`; several over the same images are compared."""
        radii, rho = points.radii or tuple(default_radii(results)), points.rho
        why_not, lacking = why_not_side_by_side(results)
        if any(one.claim != results[0].claim for one in results):
            why_not = why_not or "their radii claim different things"
        at = accuracies(results, radii, rho)
        one_pass = tuple(one.one_pass(radii, rho) for one in results) if points.one_pass else ()
        notes = (*run_notes(results), *lacking, *reach_notes(results, radii))
        if points.paired:
            check_same_data(results)
            paired = tuple(find_differences(results[0], one, radii, rho) for one in results[1:])
            notes = (*(f"{one.name} is {one.network}" for one in results if one.network), *notes)
        else:
            paired = ()
        if len(results) < 2 or why_not:
            none = tuple(np.zeros(len(radii), bool) for _ in results)
            warning = f"not compared, and nothing is starred: {why_not}" if why_not else ""
            return cls(results, radii, rho, at, none, (), notes, warning, points.envelopes, points.intervals, paired,
                       one_pass)
        accuracy, groups = np.stack([one.accuracy for one in at]), [result.group for result in results]
        most = {group: accuracy[[one == group for one in groups]].max(axis=0) for group in groups}
        stars = tuple((row > 0) & (row >= most[group] - 1e-12) for row, group in zip(accuracy, groups, strict=True))
        return cls(results, radii, rho, at, stars, _envelopes(results, at, rho), notes, "", points.envelopes,
                   points.intervals, paired, one_pass)

    @property
    def shown_envelopes(self) -> tuple[BestRuns, ...]:
        """The envelopes that were asked for as rows of their own."""
        return self.envelopes if self.has_envelopes else ()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each run and radius, then one for each envelope and radius."""
        found = []
        for number, (result, at, stars) in enumerate(zip(self.results, self.at, self.stars, strict=True)):
            facts = {"run": result.name, "images": result.images, "sigma": sigma_words(result.sigma).strip("?"),
                     "method": result.method, "alpha": result.alpha, "n": result.n, "margin": result.margin,
                     "claim": result.claim and result.claim.words,
                     "acr": result.acr, "lower_bound": result.is_lower_bound, "abstained": int(result.abstained.sum()),
                     "rho": self.rho}
            found += [{**facts, "radius": radius, "decided": result.is_decided(radius), "claimed": at.claimed[i],
                       **{name: getattr(at, name)[i] for name in FIELDS}, "group": result.group, "norm": result.norm,
                       "rounded_up": result.printed, "best": bool(stars[i]), **self._paired_cells(number, i),
                       **({f"one_pass_{part}": getattr(self.one_pass[number], part)[i] for part in ONE_PASS}
                          if self.one_pass else {})}
                      for i, radius in enumerate(at.radii)]
        empty = dict.fromkeys(found[0], "") if found else {}
        found += [{**empty, "run": one.name, "sigma": one.sigma[i], "rho": self.rho, "radius": radius,
                   **{name: one.values[name][i] for name in FIELDS}, "group": one.group, "norm": self.results[0].norm}
                  for one in self.shown_envelopes for i, radius in enumerate(one.radii)]
        return found

    def _paired_cells(self, number: int, place: int) -> dict[str, Any]:
        """Return what the first run has more than run `number` at a radius, with its interval; none for the first."""
        if not self.paired:
            return {}
        one = self.paired[number - 1][place] if number else None
        return dict(zip(("first_minus_this", "paired_low", "paired_high"),
                        ("", "", "") if one is None else (one.value, one.low, one.high), strict=True))

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object for each run, then one for each envelope that was asked for."""
        runs = [{
            "store": result.path or None, "kind": self.kind, "name": result.name, "images": result.images,
            "complete": result.complete, "sigma": None if math.isnan(result.sigma) else result.sigma,
            "method": result.method, "alpha": result.alpha, "n": result.n, "margin": result.margin,
            "claim": result.claim and result.claim.words, "rho": self.rho,
            "norm": result.norm, "rounded_up": result.printed, "notes": list(result.remarks),
            "lower_bound": result.is_lower_bound, "decided": result.decided, "r_max": result.ceiling,
            "acr": result.acr, "abstained": int(result.abstained.sum()), "radii": at.radii.tolist(),
            "claimed": at.claimed.tolist(), **{name: getattr(at, name).tolist() for name in FIELDS},
            "group": result.group, "best": stars.tolist(), "network": result.network,
            **({"one_pass": {part: getattr(self.one_pass[number], part).tolist() for part in ONE_PASS}}
               if self.one_pass else {}),
            **({"paired": [one.to_dict() for one in self.paired[number - 1]]} if self.paired and number else {}),
        } for number, (result, at, stars) in enumerate(zip(self.results, self.at, self.stars, strict=True))]
        return [*runs, *(
            {"name": one.name, "group": one.group, "runs": list(one.runs), "rho": self.rho, "radii": one.radii.tolist(),
             "best_sigma": list(one.sigma), "best_run": list(one.run),
             **{name: values.tolist() for name, values in one.values.items()}} for one in self.shown_envelopes)]


def reach_notes(results: Sequence[Noted], radii: Sequence[float]) -> list[str]:
    """Return which runs could not have proved some of the radii, and what they could: what a dash in a table means."""
    beyond = [(result.name, note) for result in results if (note := result.reach_note(radii))]
    return [f"{few(names)}: {note}" for names, note in group_by_words(beyond)]


def best_method(envelopes: Sequence[BestRuns]) -> list[str]:
    """Return the method with the highest envelope at each radius; "" where nothing is certified."""
    accuracy = np.stack([one.values["accuracy"] for one in envelopes])
    return [envelopes[k].group if value > 0 else ""
            for k, value in zip(accuracy.argmax(axis=0), accuracy.max(axis=0), strict=True)]


def _envelopes(results: Sequence[Result], at: Sequence[AccuracyBounds], rho: float) -> tuple[BestRuns, ...]:
    found = []
    for group in dict.fromkeys(result.group for result in results):
        runs = [(result, told) for result, told in zip(results, at, strict=True) if result.group == group]
        accuracy = np.stack([told.accuracy for _, told in runs])
        values = best_bounds(runs, rho / len(results))
        chosen = [runs[k][0] if value > 0 else None
                  for k, value in zip(accuracy.argmax(axis=0), values["accuracy"], strict=True)]
        found.append(BestRuns(
            f"oracle envelope of {group}" if group else "oracle envelope", group, tuple(run.name for run, _ in runs),
            at[0].radii, values, tuple("" if run is None else sigma_words(run.sigma) for run in chosen),
            tuple("" if run is None else run.name for run in chosen)))
    return tuple(found)


def best_bounds(runs: Sequence[tuple[Result, AccuracyBounds]], rho: float) -> dict[str, np.ndarray]:
    """Return the largest value (P,) that any run has in each of `FIELDS`, bounds at `rho`.

    Bounds grow with the number of claims, so of runs with as many images and one alpha only the most claims count.
    """
    claimed: dict[tuple[int, float], np.ndarray] = {}
    for result, told in runs:
        key = (result.images, result.level)
        claimed[key] = np.maximum(claimed.get(key, 0), told.claimed)
    at = [accuracy_of_counts(runs[0][1].radii, most, m, alpha, rho) for (m, alpha), most in claimed.items()]
    return {field: np.stack([getattr(one, field) for one in at]).max(axis=0) for field in FIELDS}
