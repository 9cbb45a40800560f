"""Two runs on the same images: differences of certified accuracy, with paired intervals."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from smoothcert.checks import check_probability
from smoothcert.errors import InputError
from smoothcert.results.base import check_same_data, run_notes
from smoothcert.results.best import reach_notes
from smoothcert.results.certified import Result
from smoothcert.results.predictions import Predicted
from smoothcert.stats import paired_interval


@dataclass(frozen=True)
class Difference:
    """Shares of images that a run gets right and certifies at `radius` (None: answers of PREDICT).

    `first` and `second` are the runs' certified accuracies on the shared images; `only_first` and `only_second` count
    the images that just one of them has; `low` and `high` hold first - second on new images of the same kind, with
    probability 1 - rho at one radius chosen beforehand. `out_of_reach` says of each run whether its samples could not
    have proved the radius; where neither's could, the figures say nothing.
    """

    radius: float | None
    first: float
    second: float
    only_first: int
    only_second: int
    low: float
    high: float
    lower_bound: bool = False
    out_of_reach: tuple[bool, bool] = (False, False)

    @property
    def value(self) -> float:
        return self.first - self.second

    def to_dict(self) -> dict[str, Any]:
        """Return its fields and the difference itself."""
        return {**asdict(self), "difference": self.value}


@dataclass(frozen=True)
class Comparison:
    """`differences` of two runs over the `images` that they share; `left_out` are images of one of them only.

    `acr` are the average certified radii on the shared images, and `acr_error` the standard error of their difference,
    an estimate; None for predictions.
    """

    names: tuple[str, str]
    images: int
    left_out: tuple[int, int]
    differences: tuple[Difference, ...]
    rho: float
    norm: str = "l2"
    acr: tuple[float, float] | None = None
    acr_error: float | None = None
    notes: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each difference, as for CSV."""
        return [one.to_dict() for one in self.differences]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {**asdict(self), "differences": self.rows()}


def compare(first: Result | Predicted, second: Result | Predicted, radii: Sequence[float], rho: float) -> Comparison:
    """Compare two runs of one kind image by image; answers of PREDICT are compared at no radius.

    Raises:
        InputError: they are over different data sets, share no image, or are of different kinds.
    """
    check_probability("rho", rho)
    if first.kind != second.kind:
        raise InputError(f"{first.name} and {second.name} are of different kinds: radii cannot be compared with the "
                         f"answers of PREDICT")
    check_same_data([first, second])
    _, one, two = np.intersect1d(first.index, second.index, assume_unique=True, return_indices=True)
    if not len(one):
        raise InputError(f"{first.name} and {second.name} have no image in common")
    places = ((first, one), (second, two))
    shared = [run if run.label is None else replace(run, label=run.label[where]) for run, where in places]
    differences: list[Difference] = []
    points: list[Any] = [*first.comparison_points(radii)]
    for radius in points:
        right_one, right_two = (run.is_right(radius)[where] for run, where in places)
        differences.append(replace(
            _difference(radius, right_one, right_two, rho),
            lower_bound=not (first.is_decided(radius) and second.is_decided(radius)),
            out_of_reach=(first.is_out_of_reach(radius), second.is_out_of_reach(radius))))
    acr, error = None, None
    credit = [run.credit[where] for run, where in places if run.credit is not None]
    if credit:
        acr = float(credit[0].mean()), float(credit[1].mean())
        error = float(np.std(credit[0] - credit[1], ddof=1) / math.sqrt(len(one))) if len(one) > 1 else None
    return Comparison(
        (first.name, second.name), len(one), (first.images - len(one), second.images - len(one)), tuple(differences),
        rho, first.norm, acr, error, (*run_notes(shared), *reach_notes([first, second], radii)))


def _difference(radius: float | None, first: np.ndarray, second: np.ndarray, rho: float) -> Difference:
    b, c, m = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    return Difference(radius, float(first.mean()), float(second.mean()), b, c, *paired_interval(b, c, m, rho))
