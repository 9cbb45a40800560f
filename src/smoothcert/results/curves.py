"""Curves of certified accuracy against radius, as arrays; and the other curves that are drawn beside them.

A drawn curve has as many points as can be seen: the same picture from far fewer corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcert.checks import check_probability
from smoothcert.errors import InputError
from smoothcert.results.attacks import norm_of
from smoothcert.results.base import check_records, check_same_data
from smoothcert.results.certified import Result, accuracies
from smoothcert.results.distributional import FORMS, Robustness, loss_words
from smoothcert.store.store import Store

COLUMNS = 2000
"""Columns of the finest picture that a thinned curve is meant for."""

_POINTS = 61
"""Points of a bound on the loss against rho."""


@dataclass(frozen=True)
class CertifiedCurve:
    """Certified accuracy `accuracy` at `radius`, with the exact lower bound on this test set; all (P,)."""

    name: str
    radius: np.ndarray
    accuracy: np.ndarray
    lower: np.ndarray


@dataclass(frozen=True)
class Envelope:
    """The best of several runs at each radius.

    Attributes:
        curves: those of the runs, each bound at rho.
        radius, accuracy: the largest certified accuracy of any run at each radius; (P,).
        lower: the largest bound on this test set of any run, each at rho / number of runs, so that all hold together
            with probability 1 - rho at one radius chosen beforehand; (P,).
        best: (P,) which run has that accuracy.
        name: the method whose runs they are; "" where no method is named.
    """

    curves: list[CertifiedCurve]
    radius: np.ndarray
    accuracy: np.ndarray
    lower: np.ndarray
    best: np.ndarray
    name: str = ""


@dataclass(frozen=True)
class Upper:
    """Empirical upper bound on robust accuracy: the share of images, `accuracy` (P,), on which no attack of l2 norm at
    most `radius` (P,) succeeded; a step curve that ends with the largest norm tried."""

    name: str
    radius: np.ndarray
    accuracy: np.ndarray


@dataclass(frozen=True, eq=False)
class BoundLine:
    """One line of a run: loss at rho, (P,) each; `kind` is "certificate", "bound" (with its label) or "found"."""

    name: str
    run: int
    kind: str
    rho: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True, eq=False)
class BoundPanel:
    """Lines of the same cost and classifier, which `title` names; `loss` is what they bound, and at most `ceiling`."""

    title: str
    lines: list[BoundLine]
    loss: str
    ceiling: float | None


def certified_curve(result: Result, rho: float = 0.05) -> CertifiedCurve:
    """Return the step curve of a run: its corners are the radii of its right images, so nothing between is lost."""
    return curve_of(result, rho, columns=None)


def curve_of(result: Result, rho: float = 0.05, columns: int | None = COLUMNS) -> CertifiedCurve:
    """Return the curve of a run as it is drawn: at each corner its certified accuracy, and the bound on this test set.

    Args:
        columns: see `thin`; None keeps every corner.
    """
    at = result.at(corners(result, columns), rho)
    name = result.name
    if result.is_lower_bound:
        name += f" (lower bound{f' beyond {result.asked_to:g}' if result.asked_to else ''})"
    return CertifiedCurve(name, at.radii, at.accuracy, at.test_set)


def corners(result: Result, columns: int | None = COLUMNS) -> np.ndarray:
    """Return the radii at which a run's curve is drawn: 0, its steps (thinned), and the float after the last."""
    steps = np.unique(result.radius[result.correct])
    steps = steps if columns is None else thin(steps, columns)
    return np.concatenate([[0.0], steps, np.nextafter(steps[-1:], np.inf)])


def thin(steps: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Return the first and the last of the sorted radii `steps` in each of `columns` equal columns of [0, steps[-1]].

    A step curve drawn through these has the value of the whole curve at every edge of a column, and spans the same
    values within each: at that width nothing else can be seen.
    """
    if len(steps) <= 2 * columns:
        return steps
    column = np.searchsorted(np.linspace(0, steps[-1], columns + 1), steps, side="left")
    change = np.flatnonzero(np.diff(column))
    kept = np.unique(np.concatenate([[0], change, change + 1, [len(steps) - 1]]))
    return steps[kept]


def value_at(curve: CertifiedCurve, radius: np.ndarray, field: str = "accuracy") -> np.ndarray:
    """Return a curve's `accuracy` or `lower` at any radii: that of the first corner at or beyond each, else 0."""
    place = np.searchsorted(curve.radius, radius, side="left")
    values = np.append(getattr(curve, field), 0.0)
    return values[place]


def envelopes(results: Sequence[Result], rho: float) -> list[Envelope]:
    """Return an envelope for each method (group), every run's bounds at rho / number of all runs."""
    check_same_data(results)
    groups = dict.fromkeys(result.group for result in results)
    return [replace(envelope([one for one in results if one.group == group], rho, len(results)), name=group)
            for group in groups]


def envelope(results: Sequence[Result], rho: float, runs: int | None = None) -> Envelope:
    """Return the envelope over `results`, with every run's own curve.

    Args:
        runs: number of runs whose bounds hold together; that of `results` by default.
    """
    check_same_data(results)
    radius = np.unique(np.concatenate([corners(result) for result in results]))
    at = accuracies(results, radius, check_probability("rho", rho) / (runs or len(results)))
    accuracy = np.stack([one.accuracy for one in at])
    return Envelope([curve_of(result, rho) for result in results], radius, accuracy.max(axis=0),
                    np.stack([one.test_set for one in at]).max(axis=0), accuracy.argmax(axis=0))


def upper_bound(store: Store, name: str) -> Upper:
    """Return how robust the images of an attack store can be at most: what its successful attacks prove.

    The distance of an image is the smallest perturbation that was answered with another class, over all settings: 0
    where the image itself is. An abstention is no such answer: it contradicts no certificate.

    Raises:
        InputError: attacks in another norm than l2. StoreError: a store of another kind, or without records.
    """
    check_records(store)
    if norm_of(store) != "l2":
        raise InputError(f"{name} attacks in norm {norm_of(store)}: an upper bound beside certified radii takes l2")
    answer = store.column("prediction")
    lost = np.where((answer == store.column("label")) | (answer < 0), np.inf, store.column("l2"))
    images, row = np.unique(store.column("index"), return_inverse=True)
    distance = np.full(len(images), np.inf)
    np.minimum.at(distance, row, lost)
    steps = np.unique(distance[np.isfinite(distance)])
    last = float(store.column("l2").max())
    radius = np.unique(np.concatenate([[0.0], steps, [last]]))
    return Upper(name, radius, (distance > radius[:, None]).mean(axis=1))


def bound_panels(runs: Sequence[Robustness]) -> list[BoundPanel]:
    """Return the smoothed classifier's bounds and worst cases, and, where ascents were made, the base classifier's.

    Raises:
        InputError: runs of different losses.
    """
    losses = sorted({loss_words(run) for run in runs})
    if len(losses) > 1:
        raise InputError(f"these runs bound different losses ({', '.join(losses)}): draw each loss alone")
    titles = {"outside": "smoothed classifier", "inside": "base classifier, its input's noise in rho"}
    lines = {form: _bound_lines(runs, form) for form in FORMS}
    return [BoundPanel(titles[form], lines[form], losses[0], runs[0].ceiling) for form in FORMS if lines[form]]


def _bound_lines(runs: Sequence[Robustness], form: str) -> list[BoundLine]:
    last = [float(run.found[form].rho.max()) for run in runs if form in run.found]
    grid = np.linspace(0, 1, _POINTS) ** 2 * (max([*last, *(max(run.rho) for run in runs)]) or 1.0)
    lines: list[BoundLine] = []
    for number, run in enumerate(runs):
        if form == "outside" and run.certificate is not None:
            certificate = run.certificate
            lines.append(BoundLine(f"{run.name}, certificate", number, "certificate", grid,
                                   np.array([certificate.at(float(rho)).value for rho in grid])))
        if form in run.bounds:
            at = [run.bounds[form].at(float(rho)) for rho in grid]
            labels = " / ".join(sorted({one.label for one in at}))
            lines.append(BoundLine(f"{run.name}, {form} ({labels})", number, "bound", grid,
                                   np.array([one.value for one in at])))
        if form in run.found:
            found = run.found[form]
            order = np.argsort(found.rho, kind="stable")
            lines.append(BoundLine(f"{run.name}, worst case found", number, "found", found.rho[order],
                                   found.loss[order]))
    return lines
