"""The best of several runs at each radius: stars, envelopes over models, the best sigma and the best method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from smoothcert.results.certified import Result, accuracies
from smoothcert.results.compare import run_notes, why_not_side_by_side
from smoothcert.results.figures import sigma_words
from smoothcert.stats import CertifiedAccuracy
from smoothcert.stats.intervals import accuracy_of_counts

FIELDS = ("accuracy", "test_set", "bernstein", "population", "all_radii")


@dataclass(frozen=True)
class Best:
    """At each radius (P,) the best of the runs of one method, or of all.

    Attributes:
        name, group: how it is called, and the method.
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
class Board:
    """Runs to be shown at `radii`, with what can be said of them side by side.

    Attributes:
        at: certified accuracy of each run, with its bounds.
        stars: of each run (P,) bool, whether no run of its method has more certified accuracy at that radius.
        envelopes: one for each method, or one over all runs where no method is told; none where runs are not
            comparable.
        notes: what a reader has to know: rounded radii, an alpha that is not told, missing images.
        warning: why the runs are not comparable, which a reader has to know first; "" where they are.
        with_envelopes: whether they were asked for as rows of their own.
    """

    results: Sequence[Result]
    radii: Sequence[float]
    rho: float
    at: Sequence[CertifiedAccuracy]
    stars: tuple[np.ndarray, ...]
    envelopes: tuple[Best, ...]
    notes: tuple[str, ...]
    warning: str = ""
    with_envelopes: bool = False

    @classmethod
    def of(cls, results: Sequence[Result], radii: Sequence[float], rho: float, with_envelopes: bool = False) -> Self:
        """The board of `results`, which are compared where there are several over the same images."""
        why_not, lacking = why_not_side_by_side(results)
        at, notes = accuracies(results, radii, rho), (*run_notes(results), *lacking)
        if len(results) < 2 or why_not:
            none = tuple(np.zeros(len(radii), bool) for _ in results)
            warning = f"not compared, and nothing is starred: {why_not}" if why_not else ""
            return cls(results, radii, rho, at, none, (), notes, warning, with_envelopes)
        return cls(results, radii, rho, at, _stars(results, at), _envelopes(results, at, rho), notes, "",
                   with_envelopes)


def best_method(envelopes: Sequence[Best]) -> list[str]:
    """The method with the highest envelope at each radius; "" where nothing is certified."""
    accuracy = np.stack([one.values["accuracy"] for one in envelopes])
    return [envelopes[k].group if value > 0 else ""
            for k, value in zip(accuracy.argmax(axis=0), accuracy.max(axis=0), strict=True)]


def best_content(envelope: Best, rho: float) -> dict[str, Any]:
    """An envelope as plain values, for programs."""
    return {"name": envelope.name, "group": envelope.group, "runs": list(envelope.runs), "rho": rho,
            "radii": envelope.radii.tolist(), "best_sigma": list(envelope.sigma), "best_run": list(envelope.run),
            **{field: values.tolist() for field, values in envelope.values.items()}}


def _stars(results: Sequence[Result], at: Sequence[CertifiedAccuracy]) -> tuple[np.ndarray, ...]:
    accuracy = np.stack([one.accuracy for one in at])
    groups = np.array([result.group for result in results])
    most = {group: accuracy[groups == group].max(axis=0) for group in set(groups)}
    return tuple((row > 0) & (row >= most[group] - 1e-12) for row, group in zip(accuracy, groups, strict=True))


def _envelopes(results: Sequence[Result], at: Sequence[CertifiedAccuracy], rho: float) -> tuple[Best, ...]:
    found = []
    for group in dict.fromkeys(result.group for result in results):
        runs = [(result, told) for result, told in zip(results, at, strict=True) if result.group == group]
        accuracy = np.stack([told.accuracy for _, told in runs])
        values = best_bounds(runs, rho / len(results))
        chosen = [runs[k][0] if value > 0 else None
                  for k, value in zip(accuracy.argmax(axis=0), values["accuracy"], strict=True)]
        found.append(Best(f"envelope of {group}" if group else "envelope", group, tuple(run.name for run, _ in runs),
                          at[0].radii, values, tuple("" if run is None else sigma_words(run.sigma) for run in chosen),
                          tuple("" if run is None else run.name for run in chosen)))
    return tuple(found)


def best_bounds(runs: Sequence[tuple[Result, CertifiedAccuracy]], rho: float) -> dict[str, np.ndarray]:
    """The largest value (P,) that any run has in each of `FIELDS`, bounds at `rho`.

    Bounds grow with the number of claims, so of runs with as many images and one alpha only the most claims count.
    """
    claimed: dict[tuple[int, float], np.ndarray] = {}
    for result, told in runs:
        key = (result.images, result.level)
        claimed[key] = np.maximum(claimed.get(key, 0), told.claimed)
    at = [accuracy_of_counts(runs[0][1].radii, most, m, alpha, rho) for (m, alpha), most in claimed.items()]
    return {field: np.stack([getattr(one, field) for one in at]).max(axis=0) for field in FIELDS}
