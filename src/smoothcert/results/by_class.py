"""Clean and certified accuracy of a run's images, class by class: shares, without bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smoothcert.results.certified import Result


@dataclass(frozen=True)
class ClassShares:
    """The images of each of C classes that a run has images of, in the order of the classes.

    Attributes:
        label: (C,) the classes. names: (C,) their names, or their numbers.
        images: (C,) how many images of each there are.
        right: (C,) share that the smoothed classifier answers correctly. abstained: (C,).
        certified: (C, R) share that is right and certified at each radius.
        acr: (C,) average certified radius.
    """

    label: np.ndarray
    names: tuple[str, ...]
    images: np.ndarray
    right: np.ndarray
    abstained: np.ndarray
    certified: np.ndarray
    acr: np.ndarray

    def weakest(self, most: int) -> np.ndarray:
        """Return the places of the at most `most` classes of lowest ACR, in the order of the classes."""
        return np.sort(np.argsort(self.acr, kind="stable")[:most])


def shares_by_class(result: Result, radii: Sequence[float]) -> ClassShares | None:
    """Return the shares of each class at `radii` (R,); None where labels are not known."""
    if result.label is None:
        return None
    label, where = np.unique(result.label, return_inverse=True)
    images = np.bincount(where)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(where, values, len(label)) / images

    certified = np.array([mean(result.is_right(radius)) for radius in radii]).reshape(len(radii), len(label)).T
    return ClassShares(label, tuple(result.class_name(k) for k in label.tolist()), images, mean(result.correct),
                       mean(result.abstained), certified, mean(result.credit))
