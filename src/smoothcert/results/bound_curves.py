"""Bounds on the expected loss against rho beside the worst case found, as arrays for a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smoothcert.errors import InputError
from smoothcert.results.distributional import FORMS, Robustness, loss_words

_POINTS = 61


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a run: loss at rho, (P,) each; `kind` is "certificate", "bound" (with its label) or "found"."""

    name: str
    run: int
    kind: str
    rho: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True, eq=False)
class Panel:
    """Lines that speak of the same cost and classifier, which `title` names; `loss` is what they bound, and at most
    `ceiling`."""

    title: str
    series: list[Series]
    loss: str
    ceiling: float | None


def bound_panels(runs: Sequence[Robustness]) -> list[Panel]:
    """The smoothed classifier's bounds and worst cases, and, where ascents were made, those of the base classifier.

    Raises:
        InputError: runs of different losses.
    """
    losses = sorted({loss_words(run) for run in runs})
    if len(losses) > 1:
        raise InputError(f"these runs bound different losses ({', '.join(losses)}): draw each loss alone")
    titles = {"outside": "smoothed classifier", "inside": "base classifier, its input's noise in rho"}
    series = {form: _series(runs, form) for form in FORMS}
    return [Panel(titles[form], series[form], losses[0], runs[0].ceiling) for form in FORMS if series[form]]


def _series(runs: Sequence[Robustness], form: str) -> list[Series]:
    last = [float(run.found[form].rho.max()) for run in runs if form in run.found]
    grid = np.linspace(0, 1, _POINTS) ** 2 * (max([*last, *(max(run.rho) for run in runs)]) or 1.0)
    made: list[Series] = []
    for number, run in enumerate(runs):
        if form == "outside" and run.certificate is not None:
            certificate = run.certificate
            made.append(Series(f"{run.name}, certificate", number, "certificate", grid,
                               np.array([certificate.at(float(rho)).value for rho in grid])))
        if form in run.bounds:
            at = [run.bounds[form].at(float(rho)) for rho in grid]
            labels = " / ".join(sorted({one.label for one in at}))
            made.append(Series(f"{run.name}, {form} ({labels})", number, "bound", grid,
                               np.array([one.value for one in at])))
        if form in run.found:
            found = run.found[form]
            order = np.argsort(found.rho, kind="stable")
            made.append(Series(f"{run.name}, worst case found", number, "found", found.rho[order], found.loss[order]))
    return made
