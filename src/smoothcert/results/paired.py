"""Two runs over the same images held against each other at single radii, with intervals of their difference."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from smoothcert.errors import InputError
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


def shared_images(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return where the images that two runs share stand in each of them. Raises InputError where they share none."""
    _, one, two = np.intersect1d(first.index, second.index, assume_unique=True, return_indices=True)
    if not len(one):
        raise InputError(f"{first.name} and {second.name} have no image in common")
    return one, two


def find_differences(first: Any, second: Any, points: Sequence[Any], rho: float) -> tuple[Difference, ...]:
    """Return the differences of two runs of one kind on the images that both have, at each of `points`."""
    one, two = shared_images(first, second)
    found = []
    for point in points:
        right_one, right_two = first.is_right(point)[one], second.is_right(point)[two]
        only_one, only_two = int((right_one & ~right_two).sum()), int((right_two & ~right_one).sum())
        found.append(Difference(
            point, float(right_one.mean()), float(right_two.mean()), only_one, only_two,
            *paired_interval(only_one, only_two, len(one), rho),
            lower_bound=not (first.is_decided(point) and second.is_decided(point)),
            out_of_reach=(first.is_out_of_reach(point), second.is_out_of_reach(point))))
    return tuple(found)
