"""Two runs on the same images: differences of certified accuracy, with paired intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smoothcert.checks import check_probability
from smoothcert.errors import InputError
from smoothcert.results.certified import ASSUMED_ALPHA, Result
from smoothcert.results.figures import alpha_words, down, sigma_words
from smoothcert.results.predictions import Predicted
from smoothcert.results.same_data import OverImages, check_same_data
from smoothcert.stats import paired_interval
from smoothcert.store.names import few, grouped

Run = Result | Predicted


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


def compare(first: Run, second: Run, radii: Sequence[float], rho: float) -> Comparison:
    """First against second, image by image.

    Raises:
        InputError: they are over different data sets, share no image, or are of different kinds.
    """
    check_probability("rho", rho)
    check_same_data([first, second])
    _, one, two = np.intersect1d(first.index, second.index, assume_unique=True, return_indices=True)
    if not len(one):
        raise InputError(f"{first.name} and {second.name} have no image in common")
    shared = [run if run.label is None else replace(run, label=run.label[where])
              for run, where in ((first, one), (second, two))]
    told = {"names": (first.name, second.name), "images": len(one), "rho": rho,
            "left_out": (first.images - len(one), second.images - len(one)),
            "notes": (*run_notes(shared), *reach_notes([first, second], radii))}
    if isinstance(first, Predicted) and isinstance(second, Predicted):
        return Comparison(differences=(_difference(None, first.correct[one], second.correct[two], rho),), **told)
    if isinstance(first, Predicted) or isinstance(second, Predicted):
        raise InputError(f"{first.name} and {second.name} are of different kinds: radii cannot be compared with the "
                         f"answers of PREDICT")
    claims = [np.where(run.correct, run.radius, -1.0)[where] for run, where in ((first, one), (second, two))]
    rows = [replace(_difference(r, claims[0] >= r, claims[1] >= r, rho),
                    lower_bound=not (first.is_decided(r) and second.is_decided(r)),
                    out_of_reach=(first.is_out_of_reach(r), second.is_out_of_reach(r))) for r in radii]
    counted = [np.maximum(c, 0.0) for c in claims]
    error = float(np.std(counted[0] - counted[1], ddof=1) / math.sqrt(len(one))) if len(one) > 1 else None
    return Comparison(differences=tuple(rows), norm=first.norm, acr_error=error,
                      acr=(float(counted[0].mean()), float(counted[1].mean())), **told)


def run_notes(runs: Sequence[Run]) -> list[str]:
    """What a reader has to know of the runs' figures, in words; equal words of several runs once."""
    printed = [(run.name, "radii as logs printed them, possibly rounded up") for run in runs
               if isinstance(run, Result) and run.printed]
    doubled = [(run.name, "t-certify is proved at 2 alpha, and so are its lower bounds") for run in runs
               if isinstance(run, Result) and run.method == "t-certify"]
    silent = [(run.name, f"alpha is not told, so bounds take {ASSUMED_ALPHA:g}; --alpha says another") for run in runs
              if run.alpha is None]
    told = [*printed, *doubled, *silent, *((run.name, note) for run in runs for note in run.remarks)]
    return [f"{few(names)}: {words}" for names, words in grouped(told)]


def reach_notes(runs: Sequence[Run], radii: Sequence[float]) -> list[str]:
    """Which runs could not have proved some of the radii, and what they could: what a dash in a table means."""
    beyond = [(run.name, f"no radius above {down(run.ceiling or 0.0, 3)} can be proved with n = {run.n:,}, alpha "
                         f"{alpha_words(run.alpha)} and sigma {sigma_words(run.sigma)}; a dash stands beyond it")
              for run in runs if isinstance(run, Result) and any(map(run.is_out_of_reach, radii))]
    return [f"{few(names)}: {words}" for names, words in grouped(beyond)]


def image_notes(runs: Sequence[OverImages]) -> list[str]:
    """Which runs lack images that others have, in words."""
    every = np.unique(np.concatenate([run.index for run in runs]))
    lacking = [(run.name, f"{run.images} of the {len(every)} images: {_shown(np.setdiff1d(every, run.index))} missing")
               for run in runs if run.images < len(every)]
    return [f"{few(names)} {'has' if len(names) == 1 else 'have'} {words}" for names, words in grouped(lacking)]


def why_not_side_by_side(runs: Sequence[OverImages]) -> tuple[str, list[str]]:
    """Why the figures of runs do not belong side by side, "" where they do; and which images which of them lack."""
    try:
        check_same_data(runs)
    except InputError as error:
        return str(error), []
    lacking = image_notes(runs)
    return "the runs are over different images" if lacking else "", lacking


def _shown(index: np.ndarray) -> str:
    if len(index) == 1:
        return f"image {index[0]} is"
    return f"{len(index)} (from image {index[0]} to {index[-1]}) are"


def _difference(radius: float | None, first: np.ndarray, second: np.ndarray, rho: float) -> Difference:
    b, c, m = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    return Difference(radius, float(first.mean()), float(second.mean()), b, c, *paired_interval(b, c, m, rho))
