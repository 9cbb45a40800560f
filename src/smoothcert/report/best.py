"""The best of several runs at each radius: stars, envelopes over models, the best sigma and the best method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from smoothcert.errors import InputError
from smoothcert.report.compare import image_notes, run_notes
from smoothcert.report.results import Result
from smoothcert.report.same_data import check_same_data

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
        stars: of each run (P,) bool, whether no run of its method has more certified accuracy at that radius.
        envelopes: one for each method, or one over all runs where no method is told; none where runs are not
            comparable.
        notes: what a reader has to know: rounded radii, missing images, runs that are not comparable.
        with_envelopes: whether they were asked for as rows of their own.
    """

    results: Sequence[Result]
    radii: Sequence[float]
    rho: float
    stars: tuple[np.ndarray, ...]
    envelopes: tuple[Best, ...]
    notes: tuple[str, ...]
    with_envelopes: bool = False

    @classmethod
    def of(cls, results: Sequence[Result], radii: Sequence[float], rho: float, with_envelopes: bool = False) -> Self:
        """The board of `results`, which are compared where there are several over one data set."""
        notes = run_notes(results)
        none = tuple(np.zeros(len(radii), bool) for _ in results)
        if len(results) < 2:
            return cls(results, radii, rho, none, (), tuple(notes), with_envelopes)
        try:
            check_same_data(results)
        except InputError as error:
            return cls(results, radii, rho, none, (), (*notes, f"not compared: {error}"), with_envelopes)
        return cls(results, radii, rho, _stars(results, radii), _envelopes(results, radii, rho),
                   (*notes, *image_notes(results)), with_envelopes)


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


def sigma_words(result: Result) -> str:
    """Its sigma; "?" where a log does not say."""
    return "?" if np.isnan(result.sigma) else f"{result.sigma:g}"


def _stars(results: Sequence[Result], radii: Sequence[float]) -> tuple[np.ndarray, ...]:
    accuracy = np.stack([_claimed(result, radii) for result in results])
    groups = np.array([result.group for result in results])
    return tuple((row > 0) & (row >= accuracy[groups == group].max(axis=0) - 1e-12)
                 for row, group in zip(accuracy, groups, strict=True))


def _envelopes(results: Sequence[Result], radii: Sequence[float], rho: float) -> tuple[Best, ...]:
    at = [result.at(radii, rho / len(results)) for result in results]
    found = []
    for group in dict.fromkeys(result.group for result in results):
        runs = [(result, told) for result, told in zip(results, at, strict=True) if result.group == group]
        values = {field: np.stack([getattr(told, field) for _, told in runs]) for field in FIELDS}
        top, most = values["accuracy"].argmax(axis=0), values["accuracy"].max(axis=0)
        chosen = [runs[k][0] if value > 0 else None for k, value in zip(top, most, strict=True)]
        found.append(Best(f"envelope of {group}" if group else "envelope", group, tuple(run.name for run, _ in runs),
                          at[0].radii, {field: part.max(axis=0) for field, part in values.items()},
                          tuple("" if run is None else sigma_words(run) for run in chosen),
                          tuple("" if run is None else run.name for run in chosen)))
    return tuple(found)


def _claimed(result: Result, radii: Sequence[float]) -> np.ndarray:
    return np.array([np.mean(result.correct & (result.radius >= r)) for r in radii])
